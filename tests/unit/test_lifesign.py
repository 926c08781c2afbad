"""What a life sign says, and what `nxs probe` concludes from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nxs_tasks import lifesign
from nxs_tasks.cli.probe import NO, UNSAID, YES, probe
from nxs_tasks.clock import SYSTEM
from nxs_tasks.lifesign import CONTROL, STARTING, Sign, Unreadable, Verdict, judge
from tests.unit.builders import case

NOW = 10_000.0
LONG = 1_000.0
FLEET = "default"


def a_sign(**known: Any) -> Sign:
    """Of a healthy worker, a second old."""
    healthy: dict[str, Any] = {
        "node": "w1@t", "fleet": FLEET, "pid": os.getpid(), "written": NOW - 1, "state": "ACTIVE",
        "process": lifesign.process_of(os.getpid()), "turned": NOW - 2, "connected": True,
        "answers_since": NOW - LONG, "consuming": True, "running": 0, "slots": 4,
    }  # fmt: skip
    return Sign(**{**healthy, **known})


def judged(touched_s: float | None = None, there: bool = True, **known: Any) -> Verdict:
    return judge(a_sign(**known), there=there, now=NOW, touched_s=touched_s)


class TestVerdict:
    def test_a_healthy_worker_is_live_and_ready(self) -> None:
        assert (judged().not_live, judged().not_ready) == ("", "")

    @pytest.mark.parametrize(
        ("known", "reason"),
        [
            case("all slots are taken", {"running": 4}, ""),
            case("it has errors or is slow", {"state": "DEGRADED"}, ""),
            case("whether it consumes is unknown", {"consuming": None}, ""),
            case("a control worker", {"state": CONTROL, "consuming": None}, ""),
            case("it starts", {"state": STARTING, "connected": False}, "it starts"),
            case("it has just joined", {"state": "JOINING"}, "it is JOINING"),
            case("it was given up", {"state": "ZOMBIE"}, "it is ZOMBIE"),
            case("somebody wants it so", {"cordoned": "by eve"}, "it is cordoned by eve"),
            case("it ends", {"leaving": "signal 15"}, "it shuts down: signal 15"),
            case("it takes no work", {"consuming": False}, "its consumer takes no work"),
            case("no broker", {"answers_since": None}, "the broker does not answer"),
            case(
                "no connection yet",
                {"connected": False, "turned": None, "answers_since": NOW - 60},
                "it has no connection to the broker yet",
            ),
            case(
                "the broker is away for long, and everything waits for it",
                {"answers_since": None, "connected": False, "turned": NOW - LONG},
                "the broker does not answer",
            ),
            case("a long shutdown", {"leaving": "x", "turned": NOW - LONG}, "it shuts down: x"),
            case("its only slot is the event loop", {"occupied": True, "turned": NOW - LONG}, ""),
            case("its transport does not say when it turned", {"turned": None}, ""),
            case(
                "the broker is back for a moment, and the event loop is not yet",
                {"turned": NOW - LONG, "answers_since": NOW - 5},
                "",
            ),
        ],
    )
    def test_it_is_live_and_perhaps_not_ready(self, known: dict[str, Any], reason: str) -> None:
        assert judged(**known).not_live == ""
        assert judged(**known).not_ready == reason

    @pytest.mark.parametrize(
        ("known", "reason"),
        [
            case("frozen", {"written": NOW - 20}, "is frozen: no sign of life for 20 s"),
            case(
                "frozen while the broker is away",
                {"written": NOW - 20, "answers_since": None},
                "is frozen: no sign of life for 20 s",
            ),
            case("its event loop", {"turned": NOW - 41}, "its event loop stands still for 40 s"),
            case(
                "it finds no way to a broker that answers",
                {"connected": False, "turned": None},
                "it has no connection, and the broker answers since 999 s",
            ),
            case(
                "it never comes up",
                {"state": STARTING, "written": NOW - 121},
                "is stuck while it starts: no sign of life for 121 s",
            ),
        ],
    )
    def test_it_is_not_live_and_so_not_ready(self, known: dict[str, Any], reason: str) -> None:
        verdict = judged(**known)
        assert verdict.not_live.endswith(reason)
        assert verdict.not_ready == verdict.not_live

    def test_a_process_that_is_gone_is_not_live(self) -> None:
        assert judged(there=False).not_live == f"its process {os.getpid()} is gone"

    def test_it_takes_its_time_to_start(self) -> None:
        assert judged(state=STARTING, written=NOW - 100).not_live == ""

    def test_a_file_that_is_touched_counts_and_a_clock_that_was_set_does_not(self) -> None:
        """A full disk lets nobody write; a wall clock may be set back or forward."""
        assert judged(touched_s=3, written=NOW - LONG).not_live == ""
        assert judged(touched_s=-600, written=NOW - 20).not_live
        assert judged(touched_s=600).not_live == ""


class TestFile:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        path = lifesign.path_of(str(tmp_path), FLEET, "w1@t")
        sign = a_sign(cordoned="by eve:\n  new \x1f kernel", consuming=None, asked_s=0.25)
        lifesign.write(path, sign)
        assert lifesign.read(path) == sign.having(cordoned="by eve: new kernel")
        assert lifesign.read(path).consuming is None
        assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]

    def test_a_name_may_hold_anything(self, tmp_path: Path) -> None:
        path = lifesign.path_of(str(tmp_path), "a/b", "../w 1@ü")
        lifesign.write(path, a_sign(node="../w 1@ü"))
        assert Path(path).parent == tmp_path / "alive"
        assert [lifesign.read(p).node for p in lifesign.paths(str(tmp_path))] == ["../w 1@ü"]

    def test_fields_of_a_newer_version_are_passed_over(self) -> None:
        assert lifesign.from_text(a_sign().as_text() + "mood cheerful\n") == a_sign()

    @pytest.mark.parametrize("text", ["", "node w1\n", "\0", a_sign().as_text() + "pid many\n"])
    def test_what_is_no_sign_is_named(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "x.sign"
        path.write_text(text)
        with pytest.raises(Unreadable, match=r"x\.sign is no life sign"):
            lifesign.read(str(path))

    def test_a_file_that_cannot_be_replaced_is_kept_fresh(self, tmp_path: Path) -> None:
        path = lifesign.path_of(str(tmp_path), FLEET, "w1@t")
        lifesign.write(path, a_sign())
        os.utime(path, (0, 0))
        # Where its draft would be, so that nothing can be written, as with a full disk.
        os.mkdir(f"{path}.{os.getpid()}")
        with pytest.raises(OSError, match="directory"):
            lifesign.write(path, a_sign(running=3))
        assert lifesign.read(path).running == 0
        assert SYSTEM.now() - os.stat(path).st_mtime < 60

    def test_a_later_process_with_the_same_pid_is_another(self) -> None:
        assert lifesign.is_there(a_sign())
        assert not lifesign.is_there(a_sign(process="another boot/1"))
        assert lifesign.is_there(a_sign(process="")), "where it cannot be told"

    def test_a_process_that_has_ended_is_not_there(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        assert not lifesign.is_there(a_sign(pid=child.pid))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NXS_STATE_DIR", str(tmp_path))
    return str(tmp_path)


def leave(folder: str, /, **known: Any) -> None:
    now = SYSTEM.monotonic()
    fresh = a_sign(**{"written": now, "turned": now, "answers_since": now - LONG, **known})
    lifesign.write(lifesign.path_of(folder, fresh.fleet, fresh.node), fresh)


class TestProbe:
    def test_both_questions_are_answered_if_none_is_asked(
        self, state: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        leave(state, cordoned="by eve")
        assert probe([]) == NO
        assert capsys.readouterr().out.splitlines() == [
            "w1@t is live (ACTIVE, 0 of 4 slots)",
            "w1@t is not ready: it is cordoned by eve",
        ]
        assert (probe(["live"]), probe(["ready"])) == (YES, NO)

    def test_of_several_one_is_named(self, state: str, capsys: pytest.CaptureFixture[str]) -> None:
        leave(state)
        leave(state, node="w2@t", state="JOINING")
        assert probe(["ready"]) == UNSAID
        assert "w1@t (fleet default), w2@t (fleet default)" in capsys.readouterr().err
        assert [probe(["ready", n]) for n in ("w1", "w1@t", "w2", "w2@t")] == [YES, YES, NO, NO]
        assert probe(["ready", "w3"]) == UNSAID
        assert "no worker 'w3' here; there is w1@t, w2@t" in capsys.readouterr().err

    def test_a_control_worker_beside_a_task_worker_need_not_be_told_apart(self, state: str) -> None:
        leave(state, node="control@t", state=CONTROL)
        assert probe(["ready"]) == YES
        leave(state, state="JOINING")
        assert probe(["ready"]) == NO
        assert probe(["ready", "control"]) == YES

    def test_what_a_killed_process_left_counts_only_where_nobody_lives(
        self, state: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        leave(state, node="dead@t", process="another boot/1")
        assert probe(["live"]) == NO
        assert "is gone" in capsys.readouterr().out
        leave(state)
        assert probe(["live"]) == YES

    def test_workers_of_nxs_up_are_found(self, state: str) -> None:
        leave(os.path.join(state, "up"))
        assert probe(["live"]) == YES

    def test_a_state_directory_may_be_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NXS_STATE_DIR", str(tmp_path / "other"))
        leave(str(tmp_path))
        assert probe(["live", "--state-dir", str(tmp_path)]) == YES
        assert probe([f"--state-dir={tmp_path}", "live", "w1"]) == YES

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["live"], "has left a sign of life in"),
            (["--state-dir"], "--state-dir needs a folder"),
            (["live", "--jsn"], "unknown option --jsn"),
            (["live", "w1", "w2"], "more than one node: w1 w2"),
        ],
    )
    def test_what_cannot_be_said_has_a_code_of_its_own(
        self, state: str, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
    ) -> None:
        assert probe(arguments) == UNSAID
        assert told in capsys.readouterr().err

    def test_a_file_that_is_no_sign_is_named(
        self, state: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        leave(state)
        Path(lifesign.path_of(state, FLEET, "w1@t")).write_text("garbage")
        assert probe([]) == UNSAID
        assert "is no life sign of a worker" in capsys.readouterr().err

    def test_it_loads_nothing_that_takes_its_time(self, state: str) -> None:
        leave(state)
        told = (
            "import sys; sys.argv = ['nxs', '-A', 'no.such.app', 'probe', 'live']\n"
            "from nxs_tasks.cli.entry import run\n"
            "try: run()\n"
            "except SystemExit as end: code = end.code\n"
            "slow = {'celery', 'kombu', 'redis', 'typer', 'rich', 'psutil', 'sqlmodel', 'json'}\n"
            "print(code, sorted(slow & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", told], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "0 []"
