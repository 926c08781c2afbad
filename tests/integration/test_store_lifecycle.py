"""What the lifecycle writes and reads: losses, back-offs, refusals, and what heartbeats count."""

from __future__ import annotations

from typing import Any

import pytest

from nxs_tasks.errors import JoinRefused, Stale
from nxs_tasks.model.decision import Transition, Withhold
from nxs_tasks.model.instance import STEADY, Flapping, Instance, Load, Profile
from nxs_tasks.model.state import Event, State
from nxs_tasks.store import FleetStore
from nxs_tasks.store.events import Events
from tests.conftest import add_instance, set_back

PROFILE = Profile(tasks=frozenset(), queues=frozenset({"celery"}))


def the(store: FleetStore) -> Instance:
    found = store.snapshot().get("w1")
    assert found is not None
    return found


def join(store: FleetStore, identity: str, refused_s: float = 600.0) -> int:
    seen = store.epoch("w1")
    return store.join("w1", identity, PROFILE, seen_epoch=seen, refused_s=refused_s)


def beat(store: FleetStore, epoch: int, **load: Any) -> Instance:
    known = {"slots": 1, "consuming": True, **load}
    store.heartbeat(
        *("w1", epoch, Load(**known)),
        longest_gap_s=10.0,
        succeeded=0,
        failed=0,
        window_days=7,
    )
    return the(store)


def lose(store: FleetStore, epoch: int, *, loss: bool = True) -> None:
    instance = the(store)
    store.transition(
        Transition(
            instance="w1",
            epoch=epoch,
            source=instance.state,
            target=State.GONE,
            event=Event.SILENT_CLOSED,
            loss=loss,
            reason="gone",
        )
    )


def withholding(epoch: int, **values: Any) -> Withhold:
    known: dict[str, Any] = {
        "instance": "w1",
        "epoch": epoch,
        "source": State.ACTIVE,
        "level": 1,
        "level_before": 0,
        "loss_at": 100.0,
        "until": 160.0,
        "reason": "lost 4 times",
    }
    return Withhold(**{**known, **values})


# losses


def test_an_unplanned_loss_is_remembered_and_a_planned_one_is_not(store: FleetStore) -> None:
    lose(store, add_instance(store, "w1"))
    assert len(the(store).flapping.losses) == 1
    assert abs(the(store).flapping.losses[0] - store.now()) < 60
    lose(store, add_instance(store, "w1"), loss=False)
    assert len(the(store).flapping.losses) == 1


def test_a_worker_that_takes_the_place_of_a_living_one_is_a_loss(store: FleetStore) -> None:
    add_instance(store, "w1", state=State.ACTIVE)
    join(store, "host/2")
    assert len(the(store).flapping.losses) == 1
    join(store, "host/3")
    assert len(the(store).flapping.losses) == 1, "it was JOINING and did no work"


@pytest.mark.parametrize("state", [State.LEAVING, State.GONE])
def test_a_restart_that_was_announced_is_none(store: FleetStore, state: State) -> None:
    add_instance(store, "w1", state=state)
    join(store, "host/2")
    assert the(store).flapping == STEADY


def test_eight_losses_are_remembered(store: FleetStore) -> None:
    for n in range(11):
        add_instance(store, "w1", state=State.ACTIVE)
        join(store, f"host/{n}x")
    losses = the(store).flapping.losses
    assert len(losses) == 8
    assert list(losses) == sorted(losses)


# withholding


def test_withholding_is_kept_and_recorded(store: FleetStore) -> None:
    epoch = add_instance(store, "w1", state=State.ACTIVE)
    store.withhold(withholding(epoch))
    expected = Flapping(level=1, level_at=100.0, until=160.0, why="lost 4 times")
    assert the(store).flapping == expected
    told = Events(store).pending_transitions()[-1]
    assert (told.event, told.source, told.target) == ("withheld", "ACTIVE", "ACTIVE")
    assert told.reason == "lost 4 times"


@pytest.mark.parametrize(
    "changed",
    [{"epoch": 99}, {"source": State.JOINING}, {"level_before": 1}],
    ids=lambda changed: next(iter(changed)),
)
def test_of_one_that_has_changed_it_is_refused(store: FleetStore, changed: dict[str, Any]) -> None:
    epoch = add_instance(store, "w1", state=State.ACTIVE)
    with pytest.raises(Stale):
        store.withhold(withholding(**{"epoch": epoch, **changed}))
    assert the(store).flapping == STEADY


def test_one_loss_is_judged_once(store: FleetStore) -> None:
    epoch = add_instance(store, "w1", state=State.ACTIVE)
    store.withhold(withholding(epoch))
    with pytest.raises(Stale):
        store.withhold(withholding(epoch, level_before=1, level=2))


def test_it_outlives_the_process(store: FleetStore) -> None:
    epoch = add_instance(store, "w1", state=State.ACTIVE)
    store.withhold(withholding(epoch))
    join(store, "host/2")
    assert the(store).flapping.level == 1


# a failed join


def test_who_failed_may_not_join_again_for_a_while(store: FleetStore) -> None:
    add_instance(store, "w1", state=State.FAILED)
    with pytest.raises(JoinRefused, match=r"may join again in (599|600) s"):
        join(store, "host/2")
    set_back(store, "w1", "since", 601.0)
    join(store, "host/2")
    assert the(store).state is State.JOINING


def test_a_person_lets_it_in_at_once(store: FleetStore) -> None:
    add_instance(store, "w1", state=State.FAILED)
    assert store.admit("w1", "eve@desk") == (State.FAILED, 0.0)
    join(store, "host/2")
    assert the(store).state is State.JOINING
    told = [t for t in Events(store).pending_transitions() if t.event == "admitted"]
    assert [t.reason for t in told] == ["let in by eve@desk"]


def test_a_person_ends_a_back_off(store: FleetStore) -> None:
    epoch = add_instance(store, "w1", state=State.ACTIVE)
    store.withhold(withholding(epoch))
    assert store.admit("w1", "eve@desk") == (State.ACTIVE, 160.0)
    assert the(store).flapping == STEADY


def test_nobody_of_that_name(store: FleetStore) -> None:
    assert store.admit("w1", "eve@desk") is None
    assert Events(store).pending_transitions() == []


# what heartbeats count


def test_unhealthy_and_healthy_heartbeats_in_a_row(store: FleetStore) -> None:
    epoch = join(store, "host/1")
    seen = [beat(store, epoch, unhealthy=why) for why in ("", "", "slow", "slow", "")]
    assert [i.well for i in seen] == [1, 2, 0, 0, 1]
    assert [i.sick for i in seen] == [0, 0, 1, 2, 0]


def test_deaf_heartbeats_in_a_row(store: FleetStore) -> None:
    epoch = join(store, "host/1")
    seen = [beat(store, epoch, consuming=known) for known in (True, False, False, None, False)]
    assert [i.deaf for i in seen] == [0, 1, 2, 0, 1]


def test_a_gap_begins_the_counts_anew(store: FleetStore) -> None:
    epoch = join(store, "host/1")
    beat(store, epoch, unhealthy="slow", consuming=False)
    set_back(store, "w1", "beat_at", 11.0)
    seen = beat(store, epoch, unhealthy="slow", consuming=False)
    assert (seen.sick, seen.deaf) == (1, 1)


def test_progress_has_a_time_that_changes_with_it(store: FleetStore) -> None:
    epoch = join(store, "host/1")
    first = beat(store, epoch, progress="40 %")
    assert first.progress_at is not None
    assert beat(store, epoch, progress="40 %").progress_at == first.progress_at
    assert (beat(store, epoch, progress="50 %").progress_at or 0.0) > first.progress_at


def test_a_new_process_begins_with_nothing(store: FleetStore) -> None:
    epoch = join(store, "host/1")
    beat(store, epoch, unhealthy="slow", consuming=False, progress="40 %")
    join(store, "host/2")
    seen = the(store)
    assert (seen.sick, seen.well, seen.deaf, seen.progress_at) == (0, 0, 0, None)


# the observer


def test_after_a_doubt_the_next_look_is_the_first_that_is_believed(store: FleetStore) -> None:
    assert store.observe(15.0)[2] == 0.0
    assert store.observe(15.0)[2] == 0.0, "nobody has doubted"
    store.doubt()
    before = store.now()
    believed = store.observe(15.0)[2]
    assert before <= believed <= store.now()
    assert store.observe(15.0)[2] == believed, "looks after that do not move it"
    store.doubt()
    assert store.observe(15.0)[2] > believed
