"""A process that has Celery imported and forks workers: a restart costs a fork, not an import.

Each child is the head of a process group of its own and has a log. The server reaps a child when it
is asked to, so a pid stays the child's until then. When its input ends, because whoever asked is
gone, it kills all groups that it has started.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from nxs_tasks.clock import wait_until

ROOT = Path(__file__).resolve().parents[1]
#: Longest wait for the end of a killed process, s. A deadline, not an expectation.
PATIENCE_S = 30.0


class ForkServer:
    """Starts one, and asks it. Use it as a context: at its end all children have ended."""

    def __init__(self, app: str, env: Mapping[str, str], log: Path) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("NXS_", "CELERY_"))}
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "chaos.forkserver", app],
                cwd=ROOT,
                env={**clean, **env, "PYTHONPATH": str(ROOT), "CHAOS_APP": app},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                process_group=0,
            )
        self._log = log

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, **question: Any) -> Any:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        try:
            self._popen.stdin.write(json.dumps(question).encode() + b"\n")
            self._popen.stdin.flush()
            answer = self._popen.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise RuntimeError(f"the fork server has ended, see {self._log}")
        return json.loads(answer)

    def fork(
        self, call: str, args: Sequence[Any], log: Path, env: Mapping[str, str] | None = None
    ) -> int:
        """Call `module:function` in a child; returns its pid, which is that of its group too."""
        return int(
            self._ask(op="fork", call=call, args=list(args), log=str(log), env=dict(env or {}))
        )

    def exit_code(self, pid: int) -> int | None:
        """How a child ended (negative: by that signal), None while it runs. Reaps it."""
        answer = self._ask(op="poll", pid=pid)
        return None if answer is None else int(answer)

    def reap(self, pid: int) -> int:
        """Wait for a child to end that was told to."""
        found: list[int] = []

        def ended() -> bool:
            code = self.exit_code(pid)
            found.extend([] if code is None else [code])
            return code is not None

        if not wait_until(ended, PATIENCE_S, 0.002):
            raise RuntimeError(f"process {pid} has not ended in {PATIENCE_S:.0f} s")
        return found[0]

    def kill(self, pid: int) -> int:
        """Kill the whole group of a child, as a power failure would."""
        os.killpg(pid, signal.SIGKILL)
        return self.reap(pid)

    def end(self, pid: int) -> int:
        """Ask a child to end, and wait until it has."""
        os.kill(pid, signal.SIGTERM)
        return self.reap(pid)

    def guard(self, pid: int) -> None:
        """Kill this process too, if whoever asked goes away without a word."""
        self._ask(op="guard", pid=pid)

    def close(self) -> None:
        """End it and every child."""
        assert self._popen.stdin is not None
        if self._popen.poll() is None and not self._popen.stdin.closed:
            with suppress(RuntimeError):
                self._ask(op="guard", pid=0)  # what was guarded is ended by us
        with suppress(BrokenPipeError):
            self._popen.stdin.close()
        try:
            self._popen.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class _Server:
    """The other side, in the process of its own."""

    def __init__(self) -> None:
        self._children: set[int] = set()
        self._guarded = 0

    def serve(self) -> None:
        rest = b""
        while data := os.read(0, 65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                os.write(1, json.dumps(self._answer(json.loads(line))).encode() + b"\n")
        self._end_all()

    def _answer(self, question: dict[str, Any]) -> Any:
        if question["op"] == "fork":
            return self._fork(question)
        if question["op"] == "poll":
            return self._poll(question["pid"])
        self._guarded = question["pid"]
        return None

    def _fork(self, question: dict[str, Any]) -> int:
        pid = os.fork()
        if pid == 0:
            _be_child(question)
        with suppress(OSError):
            os.setpgid(pid, pid)  # also here: it may be killed before it has done so itself
        self._children.add(pid)
        return pid

    def _poll(self, pid: int) -> int | None:
        found, status = os.waitpid(pid, os.WNOHANG)
        if not found:
            return None
        self._children.discard(pid)
        return os.waitstatus_to_exitcode(status)

    def _end_all(self) -> None:
        for pid in self._children:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if self._guarded:
            with suppress(ProcessLookupError):
                os.kill(self._guarded, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)


def _be_child(question: dict[str, Any]) -> NoReturn:
    """Does what was asked, and ends as any process does: what is to be done at its end is done."""
    with suppress(OSError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(question["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for fd in (1, 2):
        os.dup2(log, fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(question["env"])
    module, _, function = question["call"].partition(":")
    getattr(import_module(module), function)(*question["args"])
    sys.exit()


def run_celery(argv: list[str]) -> None:
    """In a child: what `celery -A APP …` does, its exit code included."""
    sys.argv = ["celery", *argv]
    command = import_module("celery.bin.celery").celery
    # As `app.start` does it, which loses the exit code.
    command.params[0].default = import_module(os.environ["CHAOS_APP"]).app
    command.main(args=argv)


def main() -> None:
    """Serve on standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked decides
    import_module("celery.bin.celery")
    for name in ("worker", "beat"):
        import_module(f"celery.bin.{name}")
    for pool in ("solo", "thread", "prefork"):
        import_module(f"celery.concurrency.{pool}")
    for part in ("celery.worker.consumer", "celery.apps.worker", "kombu.transport.redis"):
        import_module(part)
    import_module(sys.argv[1])
    gc.collect()
    gc.freeze()
    _Server().serve()


if __name__ == "__main__":
    main()
