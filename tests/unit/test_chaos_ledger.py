"""The ledger of the chaos harness."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chaos.ledger import END, START, Ledger, Tail, parse, read


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.write(START, "id-1", 0, "w0.1", "n1")
    ledger.write(END, "id-1", 2, "w0-3.12", "n1")
    first, second = read(tmp_path / "ledger")
    assert (first.kind, first.task, first.attempt, first.holder, first.nonce) == (
        (START, "id-1", 0, "w0.1", "n1")
    )
    assert (second.kind, second.attempt, second.holder, second.pid) == (
        END,
        2,
        "w0-3.12",
        os.getpid(),
    )
    assert first.at <= second.at
    assert first.wall <= second.wall


def test_there_need_be_no_file(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == []


def test_two_ledgers_append_to_one_file(tmp_path: Path) -> None:
    for nonce in ("a", "b", "c"):
        Ledger(tmp_path / "one").write(START, "id", 0, "w", nonce)
    assert [line.nonce for line in read(tmp_path / "one")] == ["a", "b", "c"]


def test_a_line_torn_by_a_kill_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "torn"
    ledger = Ledger(path)
    ledger.write(START, "whole-1", 0, "w", "n1")
    with path.open("ab") as file:
        file.write(b"S torn 0 w 12 13.25")
    ledger.write(END, "whole-2", 0, "w", "n2")
    ledger.write(END, "whole-3", 0, "w", "n3")
    assert [line.task for line in read(path)] == ["whole-1", "whole-2", "whole-3"]


@pytest.mark.parametrize(
    "text", ["", "S", "S id 0 w 1 1.5 2.5 n", "s id 0 w 1 1.5 2.5 n;", "S id x w 1 1.5 2.5 n;"]
)
def test_what_is_no_line(text: str) -> None:
    assert parse(text) is None


def test_a_tail_gives_each_line_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    tail = Tail(path)
    assert list(tail.lines()) == []
    path.write_bytes(b"S one 0 w 1 1.5 2.5 n;\nS two 0 w 1 1")
    assert [line.task for line in tail.lines()] == ["one"]
    assert list(tail.lines()) == []
    with path.open("ab") as file:
        file.write(b".5 2.5 n;\n")
    assert [line.task for line in tail.lines()] == ["two"]
