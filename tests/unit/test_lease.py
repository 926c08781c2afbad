"""The word of memory in which a worker's main process tells its pool that it is known to live."""

from __future__ import annotations

import multiprocessing

import pytest

from nxs_tasks.worker.lease import Lease

EPOCHS = [1, 2, 7, (1 << 24) + 3]


def test_nothing_is_fresh_before_the_first_heartbeat() -> None:
    assert not Lease(10.0).fresh(1, 0.0)
    assert not Lease(10.0).fresh(0, 5.0)


@pytest.mark.parametrize("epoch", EPOCHS)
@pytest.mark.parametrize("start", [0.0, 4711.25, 1e8])
def test_it_is_fresh_until_it_is_too_old(epoch: int, start: float) -> None:
    lease = Lease(10.0)
    lease.renew(epoch, start)
    assert lease.fresh(epoch, start + 0.001)
    assert lease.fresh(epoch, start + 9.9)
    assert not lease.fresh(epoch, start + 10.1)
    lease.renew(epoch, start + 10.0)
    assert lease.fresh(epoch, start + 10.1)


def test_it_counts_for_the_epoch_that_was_confirmed_and_no_other() -> None:
    """What a process took before it lost its place is not its own again when it joins anew."""
    lease = Lease(10.0)
    lease.renew(5, 100.0)
    lease.renew(6, 101.0)
    assert not lease.fresh(5, 101.0)
    assert not lease.fresh(7, 101.0)


def test_it_lapses_when_the_process_has_lost_its_place() -> None:
    lease = Lease(10.0)
    lease.renew(5, 100.0)
    lease.lapse()
    assert not lease.fresh(5, 100.0)
    lease.renew(6, 101.0)
    assert lease.fresh(6, 101.0)


def test_a_time_that_is_still_to_come_is_not_believed() -> None:
    lease = Lease(10.0)
    lease.renew(5, 100.0)
    assert not lease.fresh(5, 99.0)


def test_a_forked_process_reads_what_its_parent_writes_later() -> None:
    lease = Lease(10.0)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def tell() -> None:
        while theirs.recv():
            theirs.send(lease.fresh(3, 101.0))

    child = context.Process(target=tell, daemon=True)
    child.start()
    ours.send(True)
    assert ours.recv() is False
    lease.renew(3, 100.0)
    ours.send(True)
    assert ours.recv() is True
    ours.send(False)
    child.join(10)
    assert child.exitcode == 0


def test_it_tells_the_epoch_that_was_confirmed_last() -> None:
    lease = Lease(10.0)
    assert lease.epoch() is None
    for epoch in (1, 5):
        lease.renew(epoch, 100.0)
        assert lease.epoch() == epoch
    lease.lapse()
    assert lease.epoch() is None
