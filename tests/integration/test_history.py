"""What the history keeps, gives back and forgets: on a SQLite file and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.engine import Engine

from nxs_tasks.clock import FakeClock
from nxs_tasks.errors import HistoryError
from nxs_tasks.history import History, open_history
from nxs_tasks.history.tables import METADATA
from nxs_tasks.model.record import PlacementRecord, Record, TickRecord, TransitionRecord
from tests.integration.history_records import (
    DAY,
    NOW,
    everything,
    ids,
    loss,
    placement,
    tick,
    transition,
)

if TYPE_CHECKING:
    from tests.integration.history_fixtures import Place

pytest_plugins = ["tests.integration.history_fixtures"]


class TestAdd:
    def test_gives_back_what_was_added(self, history: History) -> None:
        records: list[Record] = [transition(), placement(), loss(), tick()]
        assert history.add(records) == len(records)
        assert everything(history) == records

    def test_keeps_what_is_unknown_unknown(self, history: History) -> None:
        shared = placement(instance=None, score=None, candidates=())
        bare = transition(evidence={})
        history.add([shared, bare])
        assert everything(history) == [bare, shared]

    def test_takes_a_read_only_mapping_as_evidence(self, history: History) -> None:
        history.add([transition(evidence=MappingProxyType({"a": 1}))])
        assert history.transitions()[0].evidence == {"a": 1}

    def test_nothing_is_nothing(self, history: History) -> None:
        assert history.add([]) == 0

    def test_the_same_event_is_kept_once(self, history: History) -> None:
        first = transition("1-0")
        history.add([first])
        again = transition("1-0", reason="another")
        assert history.add([again, transition("2-0"), again, transition("2-0")]) == 1
        assert ids(history.transitions()) == ["2-0", "1-0"]
        assert history.transitions()[1] == first

    def test_the_same_event_id_in_another_table_is_another_event(self, history: History) -> None:
        assert history.add([transition("1"), placement("1"), tick("1")]) == 3

    def test_survives_reopening(self, place: Place) -> None:
        place.open().add([transition()])
        assert place.open().transitions() == [transition()]

    @pytest.mark.parametrize(
        "bad",
        [
            pytest.param(transition("bad", reason="a\0b"), id="NUL in a text"),
            pytest.param(transition("bad", reason="\ud800"), id="half a character"),
            pytest.param(transition("bad", at=float("nan")), id="NaN as time"),
            pytest.param(transition("bad", epoch=2**63), id="epoch beyond 64 bits"),
            pytest.param(transition("bad", instance="i" * 501), id="name too long for an index"),
            pytest.param(transition("bad", evidence={"x": float("inf")}), id="infinity in JSON"),
            pytest.param(transition("bad", evidence={"x": object()}), id="not JSON"),
            pytest.param(placement("bad", score=float("nan")), id="NaN as score"),
            pytest.param(tick("bad", took_s=float("inf")), id="endless tick"),
            pytest.param(tick("b" * 501), id="event_id too long"),
        ],
    )
    def test_what_cannot_be_kept_is_named_and_nothing_is_added(
        self, history: History, bad: Record
    ) -> None:
        with pytest.raises(HistoryError, match=f"record '{bad.event_id}' cannot be kept in nxs_"):
            history.add([transition("good"), tick("good"), bad])
        assert everything(history) == []

    def test_a_failure_in_the_second_table_takes_the_first_back(
        self, place: Place, history: History
    ) -> None:
        place.sql("DROP TABLE nxs_ticks")
        with pytest.raises(HistoryError, match="nxs_ticks"):
            history.add([transition(), tick()])
        assert history.transitions() == []

    def test_threads_share_one_history(self, history: History) -> None:
        batches = [[tick(f"{n}-{i}") for i in range(5)] for n in range(8)]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(history.add, batches)) == [5] * 8
        assert len(history.ticks()) == 40


class TestFleets:
    def test_fleets_that_share_a_database_neither_see_nor_prune_each_other(
        self, place: Place, history: History
    ) -> None:
        other = open_history(place.url, place.state_path, FakeClock(), fleet="other")
        assert history.add([transition("1"), placement("1"), tick("1")]) == 3
        assert other.add([transition("1", reason="of the other")]) == 1, "the same id is another"
        assert [t.reason for t in other.transitions()] == ["of the other"]
        assert (other.placements(), other.ticks()) == ([], [])
        assert history.prune(NOW + 99 * DAY, 1) == 3
        assert len(other.transitions()) == 1
        other.close()


class TestLookBack:
    def test_newest_first_and_at_most_the_limit(self, history: History) -> None:
        history.add([transition(str(n), at=NOW + n % 3) for n in range(9)])
        assert ids(history.transitions()) == ["8", "5", "2", "7", "4", "1", "6", "3", "0"]
        assert ids(history.transitions(limit=2)) == ["8", "5"]
        assert history.transitions(limit=0) == []

    def test_placements_and_ticks_are_newest_first_too(self, history: History) -> None:
        for n in (2, 3, 1):
            history.add([placement(str(n), at=NOW + n), tick(str(n), at=NOW + n)])
        assert ids(history.placements()) == ids(history.ticks()) == ["3", "2", "1"]
        assert ids(history.placements(limit=1)) == ids(history.ticks(limit=1)) == ["3"]

    def test_a_negative_limit_is_refused(self, history: History) -> None:
        with pytest.raises(ValueError, match="limit=-1"):
            history.transitions(limit=-1)

    def test_transitions_of_one_instance(self, history: History) -> None:
        history.add([transition("1"), transition("2", instance="i-2")])
        assert ids(history.transitions("i-2")) == ["2"]
        assert history.transitions("i-3") == []

    def test_placements_of_one_task_or_instance(self, history: History) -> None:
        history.add(
            [
                placement("1", task_id="t-1", instance="i-1"),
                placement("2", task_id="t-1", instance="i-2"),
                placement("3", task_id="t-2", instance="i-2"),
                placement("4", task_id="t-2", instance=None),
            ]
        )
        assert ids(history.placements(task_id="t-1")) == ["2", "1"]
        assert ids(history.placements(instance="i-2")) == ["3", "2"]
        assert ids(history.placements(task_id="t-1", instance="i-2")) == ["2"]

    def test_losses_of_one_task(self, history: History) -> None:
        history.add([loss(f"{task}{n}", task_id=task, at=NOW + n) for task in "ab" for n in (1, 2)])
        assert ids(history.losses("a")) == ["a2", "a1"]
        assert ids(history.losses(limit=1)) == ["b2"]

    def test_ticks_of_one_job_since_a_time(self, history: History) -> None:
        history.add([tick(f"{job}{n}", job=job, at=NOW + n) for job in "ab" for n in range(3)])
        assert ids(history.ticks("a")) == ["a2", "a1", "a0"]
        assert ids(history.ticks(since=NOW + 1)) == ["b2", "a2", "b1", "a1"]
        assert ids(history.ticks("b", since=NOW + 1)) == ["b2", "b1"]

    @pytest.mark.parametrize(
        "look",
        [
            pytest.param(lambda h: h.transitions(), id="transitions"),
            pytest.param(lambda h: h.transitions("i-1"), id="transitions of an instance"),
            pytest.param(lambda h: h.placements(), id="placements"),
            pytest.param(lambda h: h.placements(task_id="t"), id="placements of a task"),
            pytest.param(lambda h: h.placements(instance="i"), id="placements to an instance"),
            pytest.param(lambda h: h.ticks(), id="ticks"),
            pytest.param(lambda h: h.ticks(since=NOW), id="ticks since"),
            pytest.param(lambda h: h.ticks("j", since=NOW), id="ticks of a job since"),
            pytest.param(lambda h: h.prune(NOW, 30), id="prune"),
        ],
    )
    def test_no_query_reads_a_whole_table_or_sorts_it(
        self, sqlite_place: Place, look: Callable[[History], object]
    ) -> None:
        history = sqlite_place.open()
        asked: list[tuple[str, Any]] = []

        def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
            if statement.startswith(("SELECT", "DELETE")):
                asked.append((statement, values))

        event.listen(Engine, "before_cursor_execute", note)
        try:
            look(history)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        assert asked
        with sqlite_place.engine().connect() as connection:
            for statement, values in asked:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
                steps = [step for *_, step in plan]
                assert all("USING INDEX" in step or "COVERING INDEX" in step for step in steps)


class TestPrune:
    def test_deletes_what_is_older_in_all_tables(self, history: History) -> None:
        border = NOW - 30 * DAY
        for name, at in [("older", border - 0.001), ("border", border), ("newer", NOW)]:
            history.add([transition(name, at=at), placement(name, at=at), tick(name, at=at)])
        assert history.prune(NOW, days=30) == 3
        assert ids(everything(history)) == ["newer", "border"] * 3
        assert history.prune(NOW, days=30) == 0

    def test_an_empty_history_has_nothing_to_delete(self, history: History) -> None:
        assert history.prune(NOW, days=1) == 0


class TestUnreadableRows:
    def test_evidence_of_another_shape_names_table_and_id(
        self, place: Place, history: History
    ) -> None:
        history.add([transition("1"), transition("2"), tick()])
        place.sql("UPDATE nxs_transitions SET evidence = '[1]' WHERE id = 2")
        with pytest.raises(HistoryError, match=r"nxs_transitions id 2 .* evidence"):
            history.transitions()
        assert ids(history.transitions(limit=1, instance="i-9")) == []
        assert history.ticks() == [tick()]

    def test_candidates_of_another_shape_name_table_and_id(
        self, place: Place, history: History
    ) -> None:
        history.add([placement()])
        place.sql("""UPDATE nxs_placements SET candidates = '["i-1"]'""")
        with pytest.raises(HistoryError, match=r"nxs_placements id 1 .* candidates"):
            history.placements()

    @pytest.mark.parametrize(
        "damage", ["evidence = '{\"cut'", "evidence = 5", "at = 'noon'", "epoch = 'x'"]
    )
    def test_what_only_sqlite_lets_in(self, sqlite_place: Place, damage: str) -> None:
        history = sqlite_place.open()
        history.add([transition()])
        sqlite_place.sql(f"UPDATE nxs_transitions SET {damage}")
        with pytest.raises(HistoryError, match=f"nxs_transitions id 1 .* {damage.split()[0]}"):
            history.transitions()


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
key = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=500)
number = st.floats(allow_nan=False, allow_infinity=False)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | number | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
json_object = st.dictionaries(st.text(max_size=10), json_value, max_size=3)
transitions = st.builds(
    TransitionRecord,
    event_id=key,
    at=number,
    instance=key,
    epoch=st.integers(-(2**63), 2**63 - 1),
    source=text,
    target=text,
    event=text,
    reason=text,
    evidence=json_object,
)
placements = st.builds(
    PlacementRecord,
    event_id=key,
    at=number,
    task_id=key,
    task=text,
    instance=st.none() | key,
    score=st.none() | number,
    reason=text,
    candidates=st.lists(json_object, max_size=3).map(tuple),
)
ticks = st.builds(
    TickRecord, event_id=key, at=number, job=key, lateness_s=number, took_s=number, node=text
)
on_one_database = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class TestProperties:
    @on_one_database
    @given(record=transitions | placements | ticks)
    def test_every_record_comes_back_equal(
        self, place: Place, history: History, record: Record
    ) -> None:
        place.sql(*(f"DELETE FROM {table}" for table in METADATA.tables))
        assert history.add([record]) == 1
        assert everything(history) == [record]

    @on_one_database
    @given(batches=st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=5))
    def test_however_events_are_batched_and_repeated_each_is_new_once(
        self, place: Place, history: History, batches: list[list[int]]
    ) -> None:
        place.sql("DELETE FROM nxs_ticks")
        new = [history.add([tick(str(n), at=NOW + n) for n in batch]) for batch in batches]
        distinct = {n for batch in batches for n in batch}
        assert sum(new) == len(distinct)
        assert ids(history.ticks()) == [str(n) for n in sorted(distinct, reverse=True)]

    @on_one_database
    @given(
        ages=st.lists(st.integers(0, 20), max_size=8),
        days=st.integers(1, 10),
        limit=st.integers(0, 8),
    )
    def test_prune_and_limit_are_what_a_list_would_do(
        self, place: Place, history: History, ages: list[int], days: int, limit: int
    ) -> None:
        place.sql("DELETE FROM nxs_ticks")
        history.add([tick(str(n), at=NOW - age * DAY / 2) for n, age in enumerate(ages)])
        kept = [n for n, age in enumerate(ages) if age <= 2 * days]
        assert history.prune(NOW, days) == len(ages) - len(kept)
        newest_first = sorted(kept, key=lambda n: (-ages[n], n), reverse=True)
        assert ids(history.ticks(limit=limit)) == [str(n) for n in newest_first][:limit]
