"""Lines to a real server: what a failure is taken for, and how long it may take."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from nxs_tasks.clock import SYSTEM
from nxs_tasks.deadline import Deadline, within
from nxs_tasks.store import FleetStore
from nxs_tasks.store.line import Line, Lines, NotWritten
from nxs_tasks.store.publisher import Write
from tests.conftest import Server, new_store
from tests.integration.black_hole import LossyCable, silent_server, unreachable_server

#: What a call is given, and what it may take on a machine that is busy with other things, s.
SHORT_S = 0.4
GENEROUS_S = 10.0


def send(line: Line, *messages: str, seconds: float = GENEROUS_S) -> bool:
    return line.publish(line.next_write({"celery": messages}), Deadline(seconds))


def failure(line: Line, seconds: float = SHORT_S) -> NotWritten:
    before = SYSTEM.monotonic()
    with pytest.raises(NotWritten) as raised:
        send(line, "x", seconds=seconds)
    assert SYSTEM.monotonic() - before < GENEROUS_S
    return raised.value


def waiting(store: FleetStore) -> list[str]:
    found: list[str] = store.client.lrange("celery", 0, -1)  # type: ignore[assignment]
    return list(reversed(found))


@pytest.fixture
def cable(own_server: Server) -> Iterator[LossyCable]:
    made = LossyCable(own_server.url)
    yield made
    made.close()


class TestWell:
    def test_writes_of_a_line_are_numbered(self, url: str) -> None:
        store = new_store(url)
        line = Line(store)
        first, second = line.next_write({"celery": ["a"]}), line.next_write({"celery": ["b"]})
        assert [line.publish(w, Deadline(GENEROUS_S)) for w in (first, first, second)] == [
            True,
            False,
            True,
        ]
        assert first.producer == second.producer
        assert waiting(store) == ["a", "b"]

    def test_a_server_that_has_forgotten_the_script_is_told_it(self, url: str) -> None:
        store = new_store(url)
        line = Line(store)
        send(line, "a")
        store.client.script_flush()
        send(line, "ü \udcff")
        store.client.script_flush()
        assert line.publish_unique(
            line.next_write({"celery": ["c"]}), "t-1", "k", Deadline(GENEROUS_S)
        ) == ("t-1")
        store.client.script_flush()
        write = line.next_write({})
        assert [line.is_void(write, Deadline(GENEROUS_S)) for _ in range(2)] == [True, True]
        assert waiting(store) == ["a", "ü \udcff", "c"]

    def test_a_line_that_was_idle_too_long_connects_anew(self, url: str) -> None:
        store = new_store(url)
        line = Line(store)
        send(line, "a")
        for _ in range(3):
            store.client.client_kill_filter(_type="normal", skipme=True)
            send(line, "b")
        assert waiting(store) == ["a", "b", "b", "b"]

    def test_a_restart_of_the_server_costs_nothing(self, own_server: Server) -> None:
        line = Line(new_store(own_server.url))
        send(line, "a")
        own_server.kill()
        own_server.start()
        send(line, "b")
        assert waiting(new_store(own_server.url)) == ["a", "b"]

    def test_threads_have_lines_of_their_own_and_use_them_again(self, url: str) -> None:
        store, lines = new_store(url), Lines(new_store(url))
        start = threading.Barrier(8)

        def submit(name: int) -> None:
            start.wait()
            for n in range(50):
                with lines.line() as line:
                    send(line, f"{name}-{n}")

        threads = [threading.Thread(target=submit, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = waiting(store)
        assert len(set(found)) == len(found) == 400
        assert len(list(store.client.scan_iter(store.keys.producer("*")))) <= 8


class TestAnswerLost:
    def test_the_second_try_finds_the_first(self, own_server: Server, cable: LossyCable) -> None:
        line, store = Line(new_store(cable.url)), new_store(own_server.url)
        send(line, "a")
        cable.to, cable.lose_answers = b"EVALSHA", 1
        assert send(line, "b") is False
        assert send(line, "c") is True
        assert waiting(store) == ["a", "b", "c"]

    def test_twice_is_a_write_of_unknown_end(self, own_server: Server, cable: LossyCable) -> None:
        line, store = Line(new_store(cable.url)), new_store(own_server.url)
        send(line, "a")
        cable.to, cable.lose_answers = b"EVALSHA", 2
        error = failure(line, seconds=GENEROUS_S)
        assert (error.maybe, error.refused, error.write.lists) == (True, False, {"celery": ("x",)})
        assert waiting(store) == ["a", "x"]
        assert not Line(new_store(own_server.url)).is_void(error.write, Deadline(GENEROUS_S))

    def test_one_that_never_came_is_void(self, own_server: Server, cable: LossyCable) -> None:
        line, store = Line(new_store(cable.url)), new_store(own_server.url)
        send(line, "a")
        cable.refuse = b"EVALSHA"
        error = failure(line, seconds=GENEROUS_S)
        assert error.maybe
        other = Line(store)
        assert other.is_void(error.write, Deadline(GENEROUS_S))
        assert not other.publish(error.write, Deadline(GENEROUS_S))
        assert waiting(store) == ["a"]


class TestFailure:
    def test_refused(self, own_server: Server) -> None:
        own_server.kill()
        error = failure(Line(new_store(own_server.url)))
        assert (error.maybe, error.refused) == (False, False)
        assert own_server.url in str(error)

    def test_killed_under_an_open_line(self, own_server: Server) -> None:
        line = Line(new_store(own_server.url))
        send(line, "a")
        own_server.kill()
        assert not failure(line).refused

    def test_frozen(self, own_server: Server) -> None:
        line, store = Line(new_store(own_server.url)), new_store(own_server.url)
        send(line, "a")
        own_server.freeze()
        error = failure(line)
        assert (error.maybe, error.refused) == (True, False)
        own_server.thaw()
        # The command lay before the server. Whatever came of it, it is known from now on.
        other = Line(new_store(own_server.url))
        void = other.is_void(error.write, Deadline(GENEROUS_S))
        assert waiting(store) == (["a"] if void else ["a", "x"])

    def test_frozen_before_the_first_word(self, own_server: Server) -> None:
        own_server.freeze()
        error = failure(Line(new_store(own_server.url)))
        assert (error.maybe, error.refused) == (False, False)
        own_server.thaw()

    def test_a_server_that_never_answers(self) -> None:
        with silent_server() as (url, _):
            assert not failure(Line(new_store(url))).maybe

    def test_a_server_that_never_accepts(self) -> None:
        with unreachable_server() as url:
            assert not failure(Line(new_store(url))).maybe

    def test_out_of_memory(self, own_server: Server) -> None:
        store = new_store(own_server.url)
        line = Line(store)
        send(line, "a")
        store.client.config_set("maxmemory", "1")
        error = failure(line)
        assert (error.maybe, error.refused, "memory" in str(error)) == (False, False, True)
        store.client.config_set("maxmemory", "0")
        send(line, "b")
        assert waiting(store) == ["a", "b"]

    def test_read_only(self, own_server: Server) -> None:
        store = new_store(own_server.url)
        line = Line(store)
        send(line, "a")
        store.client.replicaof("127.0.0.1", "1")
        error = failure(line)
        assert (error.maybe, error.refused, "read only" in str(error)) == (False, False, True)
        store.client.replicaof("NO", "ONE")
        send(line, "b")
        assert waiting(store) == ["a", "b"]

    def test_too_few_replicas(self, own_server: Server) -> None:
        store = new_store(own_server.url)
        store.client.config_set("min-replicas-to-write", "1")
        error = failure(Line(store))
        assert (error.maybe, error.refused, "NOREPLICAS" in str(error)) == (False, False, True)

    def test_a_password_that_has_changed_is_for_now(self, own_server: Server) -> None:
        store = new_store(own_server.url)
        store.client.config_set("requirepass", "new")
        error = failure(Line(new_store(own_server.url)))
        assert (error.maybe, error.refused, "password" in str(error)) == (False, False, True)

    def test_a_list_that_is_none_is_the_fault_of_the_write(self, url: str) -> None:
        store = new_store(url)
        store.client.set("celery", "x")
        error = failure(Line(store))
        assert (error.maybe, error.refused, "WRONGTYPE" in str(error)) == (False, True, True)

    def test_no_password_is_shown(self) -> None:
        with silent_server() as (url, _):
            secret = url.replace("redis://", "redis://:hunter2@")
            assert "hunter2" not in str(failure(Line(new_store(secret))))

    def test_after_a_failure_nobody_uses_the_line_again(self, own_server: Server) -> None:
        lines = Lines(new_store(own_server.url))

        def producer(seconds: float = GENEROUS_S) -> str:
            write = Write("", 0, {})
            try:
                with lines.line() as line:
                    write = line.next_write({"celery": ("x",)})
                    line.publish(write, Deadline(seconds))
            except NotWritten:
                assert seconds < GENEROUS_S
            return write.producer

        assert producer() == (before := producer())
        own_server.freeze()
        assert producer(SHORT_S) == before
        own_server.thaw()
        assert producer() not in ("", before)


class TestWithin:
    def test_what_comes_back(self) -> None:
        assert within(GENEROUS_S, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            within(GENEROUS_S, lambda: 1 // 0)

    def test_what_does_not_is_left_behind(self) -> None:
        release, late = threading.Event(), threading.Event()
        results = []

        def call() -> int:
            release.wait(GENEROUS_S)
            return 7

        def take(result: int) -> None:
            results.append(result)
            late.set()

        with pytest.raises(TimeoutError, match="no answer within"):
            within(0.01, call, take)
        release.set()
        assert late.wait(GENEROUS_S)
        assert results == [7]
