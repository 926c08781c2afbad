"""What `Fleet(app)` sets in a Celery app, what it keeps, and what it refuses. No broker needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, signals

from nxs_tasks import Fleet
from nxs_tasks.celery_settings import BEAT_SCHEDULER, check
from nxs_tasks.errors import SettingError
from nxs_tasks.runtime import runtime_of
from nxs_tasks.worker.step import InstanceStep
from tests.unit.builders import TASK, case

SECRET = "s3cr3t"
REDIS = f"redis://:{SECRET}@broker:6379/0"
JOBS = {"nxs-lifecycle", "nxs-rebalance", "nxs-record", "nxs-prune"}

MakeFleet = Callable[..., Fleet]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("NXS_", "CELERY_")):
            monkeypatch.delenv(name)


@pytest.fixture
def fleet_of() -> Iterator[MakeFleet]:
    """`Fleet`, whose signal receivers end with the test."""
    made: list[Fleet] = []

    def make(app: Any, **settings: Any) -> Fleet:
        made.append(Fleet(app, **settings))
        return made[-1]

    yield make
    for fleet in made:
        signals.before_task_publish.disconnect(fleet.submitter.on_publish)


def a_shop(broker: str | None = REDIS, **conf: Any) -> Any:
    """A Celery app that has read its configuration."""
    app = a_new_shop(broker, **conf)
    assert app.conf.timezone is None
    return app


def a_new_shop(broker: str | None = REDIS, **conf: Any) -> Any:
    """A Celery app that reads its configuration when it is first asked for it."""
    app = Celery("shop", broker=broker, set_as_current=False)
    app.conf.update(conf)
    assert not app.configured
    return app


def refusal(app: Any) -> str:
    with pytest.raises(SettingError) as refused:
        Fleet(app)
    return str(refused.value)


# --- what is set -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task_acks_late", True),
        ("worker_disable_prefetch", True),
        ("worker_prefetch_multiplier", 1),
        ("beat_scheduler", BEAT_SCHEDULER),
        ("broker_transport_options", {"queue_order_strategy": "nxs_tasks.worker.order:OwnFirst"}),
    ],
)
@pytest.mark.parametrize("make_app", [a_shop, a_new_shop], ids=["configured", "not yet configured"])
def test_a_fleet_sets(
    fleet_of: MakeFleet, make_app: Callable[[], Any], key: str, value: Any
) -> None:
    app = make_app()
    fleet_of(app)
    assert app.conf[key] == value


def test_a_fleet_adds_its_router_jobs_tasks_and_bootstep(fleet_of: MakeFleet) -> None:
    app = a_shop()
    fleet = fleet_of(app)
    assert app.conf.task_routes == [fleet.fence.route, fleet.submitter.route]
    assert set(app.conf.beat_schedule) == JOBS
    assert {f"nxs.control.{name}" for name in ("lifecycle", "record", "prune")} <= set(app.tasks)
    assert InstanceStep in app.steps["worker"]
    assert runtime_of(app) is fleet.runtime


def test_a_job_expires_with_its_period(fleet_of: MakeFleet) -> None:
    app = a_shop()
    fleet_of(app, lifecycle_period=7)
    assert app.conf.beat_schedule["nxs-lifecycle"] == {
        "task": "nxs.control.lifecycle",
        "schedule": 7.0,
        "options": {"expires": 7.0},
    }


def test_a_fleet_tells_what_it_changed_and_why(fleet_of: MakeFleet) -> None:
    app = a_shop(worker_prefetch_multiplier=4)
    changes = {change.key: change for change in fleet_of(app).runtime.changes}
    late, multiplier = changes["task_acks_late"], changes["worker_prefetch_multiplier"]
    assert (late.before, late.after) == (False, True)
    assert (multiplier.before, multiplier.after) == (4, 4)
    assert multiplier.why == "kept as the app set it"
    assert {"task_routes", "beat_schedule", "beat_scheduler"} <= set(changes)
    assert all(change.why for change in changes.values())


def test_nothing_is_changed_before_the_app_is_configured(fleet_of: MakeFleet) -> None:
    app = a_new_shop()
    fleet = fleet_of(app)
    assert not app.configured
    assert fleet.runtime.changes == ()
    assert app.conf.task_acks_late
    assert fleet.runtime.changes


@pytest.mark.parametrize(
    "source",
    [
        case("a mapping", {"task_default_queue": "orders", "task_track_started": True}),
        case(
            "a class",
            type("Config", (), {"task_default_queue": "orders", "task_track_started": True}),
        ),
    ],
)
def test_an_app_may_be_configured_from_an_object_after_the_fleet(
    fleet_of: MakeFleet, source: Any
) -> None:
    app = a_new_shop()
    fleet = fleet_of(app)
    app.config_from_object(source)
    assert (app.conf.task_default_queue, app.conf.task_track_started) == ("orders", True)
    assert (app.conf.task_acks_late, app.conf.worker_disable_prefetch) == (True, True)
    assert fleet.runtime.shared_queue == "orders"


def test_an_app_may_be_configured_from_an_object_before_the_fleet(fleet_of: MakeFleet) -> None:
    app = a_new_shop()
    app.config_from_object({"task_default_queue": "orders"})
    fleet_of(app)
    assert (app.conf.task_default_queue, app.conf.task_acks_late) == ("orders", True)


def test_a_configured_app_may_read_another_object_after_the_fleet(fleet_of: MakeFleet) -> None:
    app = a_shop()
    fleet_of(app)
    app.config_from_object({"task_default_queue": "orders"})
    assert (app.conf.task_default_queue, app.conf.task_acks_late) == ("orders", True)


def test_two_apps_may_have_a_fleet_each(fleet_of: MakeFleet) -> None:
    one, two = a_shop(), a_shop()
    assert fleet_of(one, fleet="one").settings.fleet == "one"
    assert fleet_of(two, fleet="two").settings.fleet == "two"
    assert runtime_of(one) is not runtime_of(two)


def test_an_app_without_a_fleet_has_none_of_its_tasks(fleet_of: MakeFleet) -> None:
    fleet_of(a_shop())
    plain = a_shop()
    plain.finalize()
    assert [name for name in plain.tasks if name.startswith("nxs.")] == []


def test_an_app_without_a_fleet_has_no_runtime() -> None:
    with pytest.raises(SettingError, match=r"'shop' has no fleet: add `Fleet\(app\)` to it"):
        runtime_of(a_shop())


# --- what is kept ------------------------------------------------------------------------------

THEIR_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"


@pytest.mark.parametrize("make_app", [a_shop, a_new_shop], ids=["configured", "not yet configured"])
def test_the_beat_scheduler_of_the_app_is_kept(
    fleet_of: MakeFleet, make_app: Callable[..., Any]
) -> None:
    app = make_app(beat_scheduler=THEIR_SCHEDULER)
    fleet_of(app)
    assert app.conf.beat_scheduler == THEIR_SCHEDULER


def test_the_beat_scheduler_of_an_app_with_a_namespace_is_kept(fleet_of: MakeFleet) -> None:
    app = a_new_shop()
    app.config_from_object({"CELERY_BEAT_SCHEDULER": THEIR_SCHEDULER}, namespace="CELERY")
    assert app.conf.beat_scheduler == THEIR_SCHEDULER
    fleet_of(app)
    assert app.conf.beat_scheduler == THEIR_SCHEDULER


def test_the_transport_options_of_the_app_are_kept(fleet_of: MakeFleet) -> None:
    app = a_shop(broker_transport_options={"global_keyprefix": "shop:", "socket_timeout": 3})
    fleet_of(app)
    assert app.conf.broker_transport_options == {
        "global_keyprefix": "shop:",
        "socket_timeout": 3,
        "queue_order_strategy": "nxs_tasks.worker.order:OwnFirst",
    }


THEIR_ROUTES = {"shop.*": {"queue": "orders"}}


@pytest.mark.parametrize(
    ("routes", "before"),
    [
        case("a mapping", THEIR_ROUTES, [THEIR_ROUTES]),
        case("a list", [THEIR_ROUTES, "their.router"], [THEIR_ROUTES, "their.router"]),
        case("a tuple", (THEIR_ROUTES,), [THEIR_ROUTES]),
        case("a dotted name", "their.router", ["their.router"]),
        case("nothing", None, []),
    ],
)
def test_the_routes_of_the_app_come_before_placing_and_after_the_fence(
    fleet_of: MakeFleet, routes: Any, before: list[Any]
) -> None:
    app = a_shop(task_routes=routes)
    fleet = fleet_of(app)
    assert app.conf.task_routes == [fleet.fence.route, *before, fleet.submitter.route]


def test_a_task_that_the_app_routes_is_not_placed(fleet_of: MakeFleet) -> None:
    app = a_shop(task_routes=THEIR_ROUTES)
    fleet_of(app)
    assert app.amqp.router.route({}, TASK)["queue"].name == "orders"


def test_the_schedule_of_the_app_stays_and_wins(fleet_of: MakeFleet) -> None:
    theirs = {
        "report": {"task": "shop.report", "schedule": 60.0},
        "nxs-prune": {"task": "shop.prune", "schedule": 5.0},
    }
    app = a_shop(beat_schedule=theirs)
    fleet_of(app)
    assert set(app.conf.beat_schedule) == JOBS | {"report"}
    assert {name: app.conf.beat_schedule[name] for name in theirs} == theirs


def test_an_app_that_sets_what_is_needed_by_itself_is_welcome(fleet_of: MakeFleet) -> None:
    fleet_of(
        a_shop(
            task_acks_late=True,
            worker_disable_prefetch=True,
            task_create_missing_queues=True,
            broker_transport_options={"ack_emulation": True, "visibility_timeout": 99},
        )
    )


# --- what is refused ---------------------------------------------------------------------------

REFUSED = [
    case(
        "early acknowledgement",
        {"task_acks_late": False},
        ["task_acks_late=False", "promise I1", "Remove it, or set it to True."],
    ),
    case(
        "prefetching",
        {"worker_disable_prefetch": False},
        ["worker_disable_prefetch=False", "promise I1 and late binding", "Remove it, or set it"],
    ),
    case(
        "queues that are not created",
        {"task_create_missing_queues": False},
        ["task_create_missing_queues=False", "promise I1", "Remove it."],
    ),
    case(
        "no acknowledgement at all",
        {"broker_transport_options": {"ack_emulation": False}},
        ["broker_transport_options['ack_emulation']=False", "promise I1", "Remove it."],
    ),
    *[
        case(
            f"an own {name}",
            {"broker_transport_options": {name: "mine"}},
            [f"broker_transport_options['{name}']='mine'", "NXS sets this", why, "Remove it."],
        )
        for name, why in (
            ("unacked_key", "every worker holds messages under a key of its own"),
            ("unacked_index_key", "every worker holds messages under a key of its own"),
            ("client_name", "every connection carries the name of its instance"),
        )
    ],
]


@pytest.mark.parametrize(("conf", "words"), REFUSED)
def test_a_fleet_refuses(conf: dict[str, Any], words: list[str]) -> None:
    text = refusal(a_shop(**conf))
    assert [word for word in words if word not in text] == []
    assert SECRET not in text


@pytest.mark.parametrize(("conf", "words"), REFUSED)
def test_a_fleet_refuses_when_the_app_is_configured_later(
    fleet_of: MakeFleet, conf: dict[str, Any], words: list[str]
) -> None:
    app = a_new_shop(**conf)
    with pytest.raises(SettingError) as refused:
        assert fleet_of(app).app.conf.timezone is None
    assert [word for word in words if word not in str(refused.value)] == []


def test_a_fleet_refuses_under_a_namespace() -> None:
    app = a_new_shop()
    app.config_from_object({"CELERY_TASK_ACKS_LATE": False}, namespace="CELERY")
    assert app.conf.task_acks_late is False
    assert "task_acks_late=False" in refusal(app)


def test_a_setting_that_another_layer_puts_right_is_no_contradiction(fleet_of: MakeFleet) -> None:
    app = a_new_shop()
    app.config_from_object({"task_acks_late": False})
    assert app.conf.task_acks_late is False
    app.conf.task_acks_late = True
    fleet_of(app)


def test_a_refused_app_keeps_its_settings() -> None:
    app = a_shop(task_acks_late=False)
    refusal(app)
    assert (app.conf.task_acks_late, app.conf.task_routes) == (False, None)
    assert app.conf.broker_transport_options == {}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        case("rabbitmq", f"amqp://ann:{SECRET}@broker//", "amqp://ann:***@broker//"),
        case("sqs", f"sqs://ann:{SECRET}@", "sqs://ann:***@"),
        case("memory", "memory://", "memory://"),
        case("a database", f"sqla+postgresql://ann:{SECRET}@db/shop", "sqla+postgresql://ann:***"),
    ],
)
def test_a_broker_that_is_not_redis_is_refused(url: str, shown: str) -> None:
    text = refusal(a_shop(url))
    assert text.startswith(f"broker_url={shown!r}"[:-1])
    assert "use one of redis://, rediss://, redis+socket://, sentinel://" in text
    assert SECRET not in text


def test_an_app_without_a_broker_has_celerys_own_and_that_is_refused() -> None:
    assert refusal(a_shop(None)).startswith("broker_url='amqp://")


def test_the_broker_that_counts_is_the_one_that_is_written_to(fleet_of: MakeFleet) -> None:
    other = f"redis://:{SECRET}@writer/1"
    assert fleet_of(a_shop(broker_write_url=other)).runtime.broker_url == other
    assert "amqp" in refusal(a_shop(broker_write_url="amqp://broker"))


def test_several_brokers_are_one_address(fleet_of: MakeFleet) -> None:
    urls = ["sentinel://a:26379", "sentinel://b:26379"]
    assert fleet_of(a_shop(broker_url=urls)).runtime.broker_url == ";".join(urls)


@pytest.mark.parametrize("make_app", [a_shop, a_new_shop], ids=["configured", "not yet configured"])
def test_a_second_fleet_is_refused(fleet_of: MakeFleet, make_app: Callable[[], Any]) -> None:
    app = make_app()
    fleet_of(app)
    assert refusal(app) == "the Celery app 'shop' already has a fleet"


def test_an_unknown_setting_leaves_the_app_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXS_TRESHOLD", "0.5")
    app = a_shop()
    assert "did you mean 'NXS_THRESHOLD'" in refusal(app)
    assert not hasattr(app, "nxs_runtime")
    assert (app.conf.task_acks_late, app.conf.task_routes) == (False, None)


# --- the second look ---------------------------------------------------------------------------


def test_what_is_set_after_the_fleet_is_found_by_the_second_look(fleet_of: MakeFleet) -> None:
    app = a_shop()
    fleet_of(app)
    check(app.conf)
    app.conf.task_acks_late = False
    with pytest.raises(SettingError, match="task_acks_late=False contradicts promise I1"):
        check(app.conf)


def test_a_refusal_at_a_second_configuration_is_heard_at_the_next_use(fleet_of: MakeFleet) -> None:
    app = a_shop()
    fleet = fleet_of(app)
    app.config_from_object({"broker_url": "redis://elsewhere/0", "task_acks_late": False})
    assert app.conf.task_acks_late is False
    with pytest.raises(SettingError, match="task_acks_late=False contradicts promise I1"):
        fleet.submitter.route(TASK, (), {}, {})


def test_an_app_that_sets_nothing_is_not_refused() -> None:
    check(a_shop().conf)
