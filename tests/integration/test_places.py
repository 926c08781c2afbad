"""Where tasks may wait, and reading a list that changes: on fakeredis and on the real server."""

from __future__ import annotations

from nxs_tasks.model.instance import Profile
from nxs_tasks.store import FleetStore, Keys, Wire
from nxs_tasks.store.places import Places, Walk
from nxs_tasks.store.queues import PAGE
from tests.conftest import add_instance
from tests.integration.test_intents import OWN, SHARED, a_message, put


class TestWalk:
    def test_each_message_is_read_once_oldest_first(self, store: FleetStore) -> None:
        texts = [f"m{n}" for n in range(2 * PAGE + 3)]
        put(store, SHARED, *texts)
        walk, read_ = Walk(store, SHARED), []
        while page := walk.page():
            read_ += page
            walk.leave(page)
        assert read_ == texts

    def test_who_takes_meanwhile_hides_nothing(self, store: FleetStore) -> None:
        texts = [f"m{n}" for n in range(4 * PAGE)]
        put(store, SHARED, *texts)
        walk, read_ = Walk(store, SHARED), []
        while page := walk.page():
            read_ += page
            walk.leave(page)
            for _ in range(PAGE // 3):
                store.client.rpop(SHARED)
        assert read_ == texts

    def test_who_takes_more_than_was_read_hides_nothing(self, store: FleetStore) -> None:
        texts = [f"m{n}" for n in range(4 * PAGE)]
        put(store, SHARED, *texts)
        walk = Walk(store, SHARED)
        walk.leave(walk.page())
        store.client.ltrim(SHARED, 0, 2 * PAGE - 1)
        page = walk.page()
        assert page == texts[2 * PAGE : 3 * PAGE]
        assert walk.passed == 0

    def test_what_is_removed_and_what_stays(self, store: FleetStore) -> None:
        texts = [f"m{n}" for n in range(2 * PAGE + 3)]
        put(store, SHARED, *texts)
        walk, read_ = Walk(store, SHARED), []
        while page := walk.page():
            read_ += page
            stay = page[::3]
            for text in page:
                if text not in stay:
                    store.client.lrem(SHARED, -1, text)
            walk.leave(stay)
        assert read_ == texts

    def test_who_fills_it_meanwhile_is_not_followed(self, store: FleetStore) -> None:
        put(store, SHARED, *(f"m{n}" for n in range(PAGE + 1)))
        walk, read_ = Walk(store, SHARED), []
        while page := walk.page():
            read_ += page
            walk.leave(page)
            put(store, SHARED, *(f"new{len(read_)}-{n}" for n in range(2 * PAGE)))
        assert len(read_) == PAGE + 1
        assert not [text for text in read_ if text.startswith("new")]

    def test_equal_messages_do_not_hold_it_up(self, store: FleetStore) -> None:
        put(store, SHARED, *["same"] * (2 * PAGE), "last")
        walk, read_ = Walk(store, SHARED), []
        while page := walk.page():
            read_ += page
            walk.leave(page)
        assert read_ == [*["same"] * (2 * PAGE), "last"]

    def test_of_equal_messages_the_one_that_was_read_is_where_it_goes_on(
        self, store: FleetStore
    ) -> None:
        page = [*(f"m{n}" for n in range(PAGE - 1)), "same"]
        put(store, SHARED, *page, "next", "same")
        walk = Walk(store, SHARED)
        assert walk.page() == page
        walk.leave(page)
        store.client.rpop(SHARED)
        assert walk.page() == ["next", "same"]

    def test_of_no_list(self, store: FleetStore) -> None:
        assert Walk(store, SHARED).page() == []


class TestPlaces:
    def test_queues_in_the_order_in_which_messages_move(self, store: FleetStore) -> None:
        add_instance(store, "w1@t")
        put(store, OWN, a_message("t1"))
        put(store, Keys("default").own_queue("forgotten@t") + Wire().sep + "3", a_message("t2"))
        store.client.sadd("_kombu.binding.video", Wire().sep.join(("video", "", "video")))
        store.client.sadd("_kombu.binding.celery.pidbox", Wire().sep.join(("", "", "w1@t.pidbox")))
        found = Places(store).queues(store.snapshot(), also=["nxs.control", "mail", "celery"])
        assert found == [Keys("default").own_queue("forgotten@t"), OWN, "mail", "video", SHARED]

    def test_a_queue_that_an_instance_consumes(self, store: FleetStore) -> None:
        profile = Profile(tasks=frozenset(), queues=frozenset({SHARED, "mail"}))
        store.join("w1@t", "host/1", profile, seen_epoch=0)
        assert Places(store).queues(store.snapshot()) == ["mail", SHARED]

    def test_with_a_key_prefix(self, store: FleetStore) -> None:
        prefixed = FleetStore(store.client, store.keys, Wire("my*["), SHARED, store.url)
        put(store, "my*[" + OWN, a_message("t1"))
        put(store, "my-no-prefix" + OWN, a_message("t2"))
        assert Places(prefixed).queues(prefixed.snapshot()) == [OWN, SHARED]
