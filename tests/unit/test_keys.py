"""The names of all keys: NXS's own, and kombu's as the app has set it up."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.redis import Channel

from nxs_tasks.store.keys import PRIORITY_STEPS, SEPARATOR, Keys, Wire, owner_of
from tests.unit.builders import case, examples

SHOP = Keys("shop")
WHO = "w1@host"

TABLE = {
    "members": ((), "nxs:{shop}:members"),
    "instance": ((WHO,), "nxs:{shop}:instance:w1@host"),
    "outcomes": ((WHO,), "nxs:{shop}:outcomes:w1@host"),
    "epochs": ((), "nxs:{shop}:epochs"),
    "trial": ((), "nxs:{shop}:trial"),
    "waiting": ((), "nxs:{shop}:waiting"),
    "ejected": ((), "nxs:{shop}:ejected"),
    "runs": ((WHO,), "nxs:{shop}:runs:w1@host:"),
    "named_queues": ((), "nxs:{shop}:named-queues"),
    "profiles": ((), "nxs:{shop}:profiles"),
    "transitions": ((), "nxs:{shop}:transitions"),
    "placements": ((), "nxs:{shop}:placements"),
    "losses": ((), "nxs:{shop}:losses"),
    "ticks": ((), "nxs:{shop}:ticks"),
    "last_ticks": ((), "nxs:{shop}:last-ticks"),
    "observation": ((), "nxs:{shop}:observation"),
    "beat_lease": (("web",), "nxs:{shop}:beat:web:lease"),
    "beat_term": (("web",), "nxs:{shop}:beat:web:term"),
    "beat_lead": (("web",), "nxs:{shop}:beat:web:lead"),
    "beats": (("web",), "nxs:{shop}:beat:web:all"),
    "beat_apps": ((), "nxs:{shop}:beat-apps"),
    "beat_runs": (("web",), "nxs:{shop}:beat:web:runs"),
    "holders": ((), "nxs:{shop}:holders"),
    "shelf": (("parked",), "nxs:{shop}:shelf:parked"),
    "shelf_index": (("parked",), "nxs:{shop}:shelf-index:parked"),
    "producer": (("p1",), "nxs:{shop}:producer:p1"),
    "unique": (("order 7",), "nxs:{shop}:unique:order 7"),
    "lock": (("stock",), "nxs:{shop}:lock:stock"),
    "checkpoint": (("t1",), "nxs:{shop}:checkpoint:t1"),
    "cancelled": ((), "nxs:{shop}:cancelled"),
    "cancellations": ((), "nxs:{shop}:cancelled:by"),
    "untold": ((), "nxs:{shop}:cancelled:untold"),
    "paused_queues": ((), "nxs:{shop}:paused:queues"),
    "paused_tasks": ((), "nxs:{shop}:paused:tasks"),
    "pauses": ((), "nxs:{shop}:paused:by"),
    "inflight_base": ((), "nxs:{shop}:inflight:"),
    "inflight": ((WHO, 7), "nxs:{shop}:inflight:w1@host:7"),
    "inflight_index": ((WHO, 7), "nxs:{shop}:inflight-index:w1@host:7"),
    "inflight_mutex": ((WHO, 7), "nxs:{shop}:inflight-mutex:w1@host:7"),
}
#: Names that are no keys of NXS: a connection's, and a queue's in kombu's own layout.
NO_KEYS = {
    "client_name": ((WHO, 7), "nxs:shop:w1@host:7"),
    "own_queue": ((WHO,), "nxs.shop/w1@host"),
    "control_queue": ((), "nxs.control.shop"),
}


@pytest.mark.parametrize("name", [*TABLE, *NO_KEYS])
def test_a_name(name: str) -> None:
    arguments, expected = {**TABLE, **NO_KEYS}[name]
    assert getattr(SHOP, name)(*arguments) == expected


def test_the_tables_above_are_complete() -> None:
    public = {
        name for name, _ in inspect.getmembers(Keys, inspect.isfunction) if not name.startswith("_")
    }
    assert public == set(TABLE) | set(NO_KEYS)


def test_the_default_fleet_has_the_control_queue_of_the_documentation() -> None:
    assert Keys("default").control_queue() == "nxs.control"


def test_all_keys_of_a_fleet_lie_on_one_slot_of_a_cluster() -> None:
    made = [getattr(SHOP, name)(*arguments) for name, (arguments, _) in TABLE.items()]
    assert {key[key.index("{") : key.index("}") + 1] for key in made} == {"{shop}"}
    assert len(set(made)) == len(made)


def test_two_fleets_share_no_key() -> None:
    other = Keys("shop2")
    for name, (arguments, key) in TABLE.items():
        assert getattr(other, name)(*arguments) != key


def test_what_every_in_flight_hash_begins_with_begins_nothing_else() -> None:
    base = SHOP.inflight_base()
    begins = {name for name, (_, key) in TABLE.items() if key.startswith(base)}
    assert begins == {"inflight", "inflight_base"}


# --- the owner of what is held -----------------------------------------------------------------


@pytest.mark.parametrize(
    "instance",
    [
        "celery@host",
        "a:b@host",
        "a:1@host:2",
        "größe@münchen",
        "工人@主机",
        "w}:x",
        "w}:inflight:x",
        "{w}",
        ":",
        "7",
    ],
)
def test_the_owner_of_a_hash_is_read_from_its_key(instance: str) -> None:
    assert owner_of(SHOP.inflight(instance, 12)) == (instance, 12)
    assert owner_of("a-prefix:" + SHOP.inflight(instance, 12)) == (instance, 12)


fleet_names = st.text("abcXYZ019-_.", min_size=1, max_size=8)


@examples(80)
@given(fleet_names, st.text(max_size=20), st.integers(0, 10**9), st.sampled_from(("", "app:")))
def test_the_owner_is_the_inverse_of_the_key(
    fleet: str, instance: str, epoch: int, prefix: str
) -> None:
    assert owner_of(prefix + Keys(fleet).inflight(instance, epoch)) == (instance, epoch)


@examples(60)
@given(st.text())
def test_a_server_takes_the_name_of_any_connection(instance: str) -> None:
    assert all("!" <= sign <= "~" for sign in SHOP.client_name(instance, 7))


@examples(60)
@given(st.tuples(st.text(max_size=9), st.integers(0, 99)), st.tuples(st.text(), st.integers(0, 99)))
def test_two_processes_never_share_a_key(a: tuple[str, int], b: tuple[str, int]) -> None:
    for make in (SHOP.inflight, SHOP.inflight_index, SHOP.inflight_mutex, SHOP.client_name):
        assert (make(*a) == make(*b)) == (a == b)


# --- kombu's layout ----------------------------------------------------------------------------


def test_a_queue_is_a_list_for_each_priority_most_urgent_first() -> None:
    assert Wire().queue_keys("celery") == [
        "celery",
        "celery\x06\x163",
        "celery\x06\x166",
        "celery\x06\x169",
    ]


def test_the_defaults_are_those_of_kombu() -> None:
    assert Channel.sep == SEPARATOR
    assert tuple(Channel.priority_steps) == PRIORITY_STEPS


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        case("nothing is set", {}, Wire()),
        case("everything is set to nothing", dict.fromkeys(("global_keyprefix", "sep")), Wire()),
        case("a key prefix", {"global_keyprefix": "app:"}, Wire(prefix="app:")),
        case("another separator", {"sep": ":"}, Wire(sep=":")),
        case("other steps", {"priority_steps": [0, 5]}, Wire(steps=(0, 5))),
        case("all steps as a range", {"priority_steps": range(3)}, Wire(steps=(0, 1, 2))),
        case("options of somebody else", {"visibility_timeout": 5}, Wire()),
    ],
)
def test_the_layout_follows_the_transport_options(options: dict[str, Any], expected: Wire) -> None:
    assert Wire.from_options(options) == expected


def test_prefix_separator_and_steps_make_the_lists() -> None:
    wire = Wire(prefix="app:", sep="~", steps=(0, 2))
    assert wire.queue_keys("mail") == ["app:mail", "app:mail~2"]


@pytest.mark.parametrize("options", [{}, {"sep": ":"}, {"priority_steps": [0, 1, 5]}])
def test_the_lists_are_the_ones_that_kombu_pushes_to(options: dict[str, Any]) -> None:
    # kombu's own method, on a channel that was never opened.
    channel = Channel.__new__(Channel)
    for name, value in options.items():
        setattr(channel, name, value)
    pushed = {channel._q_for_pri("celery", priority) for priority in range(10)}
    assert set(Wire.from_options(options).queue_keys("celery")) == pushed


@examples(200)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True).map(sorted),
    st.sampled_from((":", SEPARATOR)),
    st.integers(0, 9),
)
def test_the_list_of_a_priority_is_the_one_that_kombu_pushes_to(
    steps: list[int], sep: str, priority: int
) -> None:
    channel = Channel.__new__(Channel)
    channel.priority_steps, channel.sep = steps, sep
    wire = Wire(prefix="app:", sep=sep, steps=tuple(steps))
    # The prefix is put before it by kombu's client.
    assert wire.list_of("mail", priority) == "app:" + channel._q_for_pri("mail", priority)
    assert wire.list_of("mail", priority) in wire.queue_keys("mail")


def test_a_message_of_a_priority_below_all_steps_is_where_kombu_puts_it() -> None:
    assert Wire(steps=(3, 6)).list_of("mail", 0) == "mail\x06\x166"
