"""The command line and the table of the chaos harness; nothing is started here."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from chaos.account import Run
from chaos.command import main
from chaos.measure import MEASURES
from chaos.ordeal import Result
from chaos.report import show
from chaos.side import celery_side, nxs_side
from chaos.verdict import Duplicate, Verdict

VERDICT = Verdict(
    accepted=1000,
    unanswered=2,
    done=1000,
    lost=(),
    waiting={},
    left={},
    duplicates=(Duplicate(Run("a", 0, "w0.1", 1, "n", 1.0), "hard"),),
    strangers=(),
)
GOOD = Result(
    side=nxs_side(),
    verdict=VERDICT,
    acts={"hard": 50, "cut": 5},
    passed_over={},
    surprises=(),
    rate=512.4,
    settled_s=4.2,
    keys={},
    told={},
)
BAD = replace(
    GOOD,
    side=celery_side(3600, 30),
    verdict=replace(VERDICT, done=990, lost=("b",) * 10, left={"in flight": 7}),
    settled_s=None,
)


def shown(*results: Result) -> dict[str, list[str]]:
    """Row by its name, as it is printed."""
    console = Console(file=io.StringIO(), width=120)
    show(results, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [line.rsplit(maxsplit=len(results)) for line in text.splitlines()]
    return {row[0].strip(): row[1:] for row in rows}


def test_both_columns_stand_beside_each_other() -> None:
    table = shown(GOOD, BAD)
    assert table["tasks accepted"] == ["1,000", "1,000"]
    assert table["a second"] == ["512", "512"]
    assert table["acts: hard"] == ["50", "50"]
    assert table["LOST"] == ["0", "10"]
    assert table["for each act"] == ["0.000", "0.182"]
    assert table["because of: hard"] == ["1", "1"]
    assert table["UNEXPLAINED"] == ["0", "0"]
    assert table["LEFT OVER"] == ["0", "7"]
    assert table["in flight"] == ["0", "7"], "a row that one side has not is 0 there"


def test_what_never_settled_says_so() -> None:
    console = Console(file=io.StringIO(), width=120)
    show([BAD], console)
    assert "not within 30 s" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_result_is_one_line_of_json() -> None:
    told = json.loads(json.dumps(BAD.as_dict()))
    assert (told["side"], told["lost"], told["left"]) == ("celery", 10, {"in flight": 7})
    assert told["clean"] is False
    assert GOOD.as_dict()["clean"] is True


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--modes", "hard,nope"], "'nope': choose from hard,term"),
        (["--sides", "other"], "'other': choose from nxs,celery"),
        (["--modes", ","], "nothing: choose from"),
        (["--kills", "many"], "invalid int value"),
        (["recovery", "--rate", "3"], "unrecognized arguments: --rate 3"),
    ],
)
def test_a_bad_command_line_is_told_and_nothing_is_started(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"python -m chaos {name}" in capsys.readouterr().out
