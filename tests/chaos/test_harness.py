"""A small run of the harness of `make chaos`, on the side of NXS."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import pytest

from chaos.ordeal import Options, Ordeal
from chaos.plan import MODES
from chaos.side import nxs_side

pytestmark = pytest.mark.chaos


def test_killed_frozen_and_cut_off_nothing_is_lost_and_every_duplicate_is_explained(
    tmp_path: Path,
) -> None:
    options = Options(seed=7, kills=15, rate=100, pace=2.5, workers=5, slots=3, freeze_s=(0.5, 9.0))
    said: list[str] = []
    result = Ordeal(nxs_side(), options, tmp_path / "nxs", said.append).run(threading.Event())
    verdict = result.verdict
    told = "\n".join(f"{task}: {lines}" for task, lines in result.told.items())
    assert verdict.lost == (), told
    assert verdict.unexplained == 0, told
    assert verdict.left == {}, told
    assert verdict.strangers == ()
    assert result.surprises == ()
    assert result.acts["hard"] >= 15
    assert set(result.acts) | set(result.passed_over) == set(MODES)
    assert verdict.accepted > 500, "so few that it proves nothing"
    ours = [p for p in psutil.process_iter() if str(tmp_path) in " ".join(_environment(p))]
    assert ours == [], "a process was left behind"


def _environment(process: psutil.Process) -> list[str]:
    try:
        return list(process.environ().values())
    except psutil.Error:
        return []  # ended meanwhile, or somebody else's
