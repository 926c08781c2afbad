"""Sending the spool to a real server: once each, in order, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nxs_tasks.clock import SYSTEM
from nxs_tasks.deadline import Deadline
from nxs_tasks.store import FleetStore
from nxs_tasks.store.line import Line, Lines, NotWritten
from nxs_tasks.store.unique import UniqueKeys
from nxs_tasks.submission.batches import rows
from nxs_tasks.submission.replay import STRIKES_OF_MANY, STRIKES_OF_ONE, Replay
from nxs_tasks.submission.spool import Kept, Spool
from tests.conftest import Server, new_store
from tests.integration.black_hole import LossyCable

BROKER = "redis://broker/0"


class Post:
    """A spool, a server of its own, and a cable between them."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.store: FleetStore = new_store(server.url)
        self.cable = LossyCable(server.url)
        self.spool = Spool(directory / "spool.db", limit_mb=64)
        self.replay = self.new_replay()

    def new_replay(self) -> Replay:
        return Replay(self.spool, Lines(new_store(self.cable.url)), BROKER, SYSTEM)

    def keep(self, *messages: str, **more: object) -> None:
        given: dict[str, object] = {"broker": BROKER, "at": SYSTEM.now(), "why": "away"}
        given |= {"list": "celery", **more}
        kept = [Kept(**{**given, "message": m}) for m in messages]  # type: ignore[arg-type]
        self.spool.keep(kept, Deadline(10))

    def tried(self, *messages: str, accepted: bool) -> None:
        """Messages that were sent once, and nobody heard of it."""
        line = Line(self.store)
        write = line.next_write({"celery": messages})
        if accepted:
            line.publish(write, Deadline(10))
        self.keep(*messages, producer=write.producer, number=write.number)

    def sent(self, key: str = "celery") -> list[str]:
        found: list[str] = self.store.client.lrange(key, 0, -1)  # type: ignore[assignment]
        return list(reversed(found))

    def left(self) -> list[tuple[str, bool]]:
        return [(row.message, bool(row.refused)) for row in rows(self.spool, 10_000)]

    def drain(self, most: int = 50) -> int:
        """Drain until it says that it is done; how many goes that took."""
        for count in range(1, most):
            if not self.replay.drain().trouble:
                return count
        raise AssertionError(f"not done after {most} goes")


@pytest.fixture
def post(own_server: Server, tmp_path: Path) -> Iterator[Post]:
    made = Post(own_server, tmp_path)
    yield made
    made.cable.close()
    made.spool.close()


class TestOrder:
    def test_what_is_kept_is_sent(self, post: Post) -> None:
        names = [f"m{n}" for n in range(1200)]
        post.keep(*names)
        post.keep("mail", list="mails")
        done = post.replay.drain()
        assert (done.sent, done.refused, done.trouble, done.elsewhere) == (1201, 0, "", False)
        assert (post.sent(), post.sent("mails"), post.left()) == (names, ["mail"], [])

    def test_nothing_is_nothing(self, post: Post) -> None:
        assert post.replay.drain().sent == 0

    def test_what_had_arrived_is_not_sent_again(self, post: Post) -> None:
        post.tried("a", accepted=True)
        post.tried("b", accepted=False)
        post.keep("c")
        assert post.replay.drain().sent == 3
        assert (post.sent(), post.left()) == (["a", "b", "c"], [])

    def test_what_another_has_the_key_of_is_not_counted_as_sent(self, post: Post) -> None:
        post.store.client.set(post.store.keys.unique("k"), "another")
        post.keep("mine", task_id="mine", unique_key="k")
        done = post.replay.drain()
        assert (done.sent, done.superseded, post.sent(), post.left()) == (0, 1, [], [])

    def test_what_was_sent_leaves_no_trace(self, post: Post) -> None:
        post.keep("secret" * 100)
        assert post.replay.drain().sent == 1
        files = [file.read_bytes() for file in post.spool.path.parent.glob("spool*")]
        assert files
        assert not any(b"secret" in data for data in files)

    def test_what_arrives_late_is_not_taken_twice(self, post: Post) -> None:
        line = Line(post.store)
        write = line.next_write({"celery": ("late",)})
        post.keep("late", producer=write.producer, number=write.number)
        post.replay.drain()
        assert not line.publish(write, Deadline(10))
        assert post.sent() == ["late"]

    def test_one_drains_at_a_time(self, post: Post) -> None:
        post.keep("a")
        other = post.new_replay()
        assert other.batches.acquire()
        assert post.replay.drain().elsewhere
        other.batches.resign()
        assert post.replay.drain().sent == 1
        assert not other.drain().elsewhere


class TestTrouble:
    def test_a_server_that_is_away(self, post: Post) -> None:
        post.keep("a")
        post.server.kill()
        done = post.replay.drain()
        assert (done.sent, post.left()) == (0, [("a", False)])
        assert "no Redis or Valkey server answers" in done.trouble
        post.server.start()
        assert post.replay.drain().sent == 1
        assert post.sent() == ["a"]

    @pytest.mark.parametrize("lost", [1, 2, 3, 4, 5])
    def test_answers_that_are_lost(self, post: Post, lost: int) -> None:
        post.tried("a", "b", accepted=True)
        post.tried("c", accepted=False)
        names = [f"m{n}" for n in range(700)]
        post.keep(*names)
        post.cable.to, post.cable.lose_answers = b"EVALSHA", lost
        post.drain()
        assert (post.sent(), post.left()) == (["a", "b", "c", *names], [])
        assert post.cable.lose_answers == 0

    def test_out_of_memory(self, post: Post) -> None:
        post.keep("a", "b")
        post.store.client.config_set("maxmemory", "1")
        assert "memory" in post.replay.drain().trouble
        post.store.client.config_set("maxmemory", "0")
        post.drain()
        assert (post.sent(), post.left()) == (["a", "b"], [])

    def test_whoever_takes_over_from_one_that_died_doubles_nothing(self, post: Post) -> None:
        names = [f"m{n}" for n in range(1500)]
        post.keep(*names)
        died = post.new_replay()
        assert died.batches.acquire()
        batch = died.batches.take()
        assert batch is not None
        with died._lines.line() as line:
            died._send(line, batch)  # and it is gone before it can note that
        died.batches.resign()
        post.drain()
        assert (post.sent(), post.left()) == (names, [])

    def test_nor_if_it_had_not_sent_yet(self, post: Post) -> None:
        post.keep("a", "b")
        died = post.new_replay()
        assert died.batches.acquire()
        late = died.batches.take()
        died.batches.resign()
        post.drain()
        assert late is not None
        with suppress(NotWritten), died._lines.line() as line:
            died._send(line, late)
        assert (died.batches.sent(late), post.sent()) == (0, ["a", "b"])


class TestRefused:
    def test_a_list_that_is_none_holds_nobody_up(self, post: Post) -> None:
        post.store.client.set("mails", "x")
        post.keep("bad", "worse", list="mails")
        post.keep("a", "b")
        done = post.replay.drain()
        assert (done.sent, done.refused, done.trouble) == (2, 2, "")
        assert post.sent() == ["a", "b"]
        assert post.left() == [("bad", True), ("worse", True)]
        assert "WRONGTYPE" in rows(post.spool, 1)[0].refused

    def test_a_message_that_ends_the_connection_is_found_and_the_others_go(
        self, post: Post
    ) -> None:
        post.keep("a", "b", "POISON", "c", "d")
        post.cable.refuse = b"POISON"
        goes = post.drain()
        assert post.sent() == ["a", "b", "c", "d"]
        assert post.left() == [("POISON", True)]
        assert goes <= STRIKES_OF_MANY + STRIKES_OF_ONE + 2

    def test_a_message_that_had_arrived_all_the_same_is_not_refused(self, post: Post) -> None:
        line = Line(post.store)
        line.publish(line.next_write({"other": ("the server knows the script",)}), Deadline(10))
        post.keep("a")
        post.replay._suspicion.first = rows(post.spool, 1)[0].id
        post.replay._suspicion.strikes = STRIKES_OF_ONE - 1
        post.cable.to, post.cable.lose_answers = b"EVALSHA", 2
        assert post.replay.drain().refused == 0
        post.drain()
        assert (post.sent(), post.left()) == (["a"], [])


class TestUnique:
    def test_a_key_that_is_free_is_taken(self, post: Post) -> None:
        post.keep("a", unique_key="k", task_id="t-1")
        post.replay.drain()
        assert (post.sent(), UniqueKeys(post.store).owner("k")) == (["a"], "t-1")

    def test_a_key_that_another_has_is_left_to_it(
        self, post: Post, caplog: pytest.LogCaptureFixture
    ) -> None:
        line = Line(post.store)
        line.publish_unique(line.next_write({"celery": ("first",)}), "t-1", "k", Deadline(10))
        post.keep("a")
        post.keep("second", unique_key="k", task_id="t-2")
        post.keep("b")
        post.drain()
        assert (post.sent(), post.left()) == (["first", "a", "b"], [])
        assert "t-2 is not sent: task t-1 has its unique_key 'k'" in caplog.text

    @pytest.mark.parametrize("lost", [1, 2, 3])
    def test_answers_that_are_lost(self, post: Post, lost: int) -> None:
        post.keep("a", unique_key="k", task_id="t-1")
        post.cable.to, post.cable.lose_answers = b"EVALSHA", lost
        post.drain()
        assert (post.sent(), UniqueKeys(post.store).owner("k")) == (["a"], "t-1")
