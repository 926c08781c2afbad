"""The settings: where a value comes from, what is refused, and how the refusal reads."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks import Fleet
from nxs_tasks.errors import SettingError
from nxs_tasks.settings import Settings, Weights, load
from tests.unit.builders import case, examples

FIELDS = fields(Settings)
SPEC_WEIGHTS = "cpu=.25,memory=.30,queue=.20,latency=.15,reliability=.10"


def refusal(**call: Any) -> str:
    with pytest.raises(SettingError) as refused:
        load(call, env={})
    return str(refused.value)


def refusal_of(env: dict[str, str]) -> str:
    with pytest.raises(SettingError) as refused:
        load(env=env)
    return str(refused.value)


# --- defaults ----------------------------------------------------------------------------------


def test_the_defaults_are_valid_and_say_so() -> None:
    sourced = load(env={})
    assert sourced.settings == Settings()
    assert set(sourced.sources) == {f.name for f in FIELDS}
    assert set(sourced.sources.values()) == {"default"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 0.5),
        ("max_latency_ms", 1000.0),
        ("heartbeat_period", 5.0),
        ("join_beats", 3),
        ("outcome_days", 7),
        ("saturation", 1.0),
        ("silent_after", 15.0),
        ("gone_after", 10.0),
        ("zombie_after", 30.0),
        ("evict_after", 60.0),
        ("lost_holders", 3),
        ("weights", Weights(cpu=0.25, memory=0.3, queue=0.2, latency=0.15, reliability=0.1)),
    ],
)
def test_a_default_of_the_spec_or_the_design(name: str, value: Any) -> None:
    assert getattr(Settings(), name) == value


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_every_setting_has_a_unit_and_a_reason(field: Any) -> None:
    assert field.metadata["unit"].strip()
    assert len(field.metadata["why"].split()) >= 3


def test_the_shortest_ways_to_the_end_are_valid() -> None:
    ways = {"zombie_after": 15.0, "evict_after": 15.1, "lost_holders": 1}
    assert load(ways, env={}).settings == Settings(**ways)  # type: ignore[arg-type]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().fleet = "other"  # type: ignore[misc]


# --- where a value comes from ------------------------------------------------------------------


def test_the_environment_goes_before_the_default_and_the_call_before_the_environment() -> None:
    env = {"NXS_FLEET": "from-env", "NXS_THRESHOLD": "0.6", "NXS_MAX_QUEUE": "7"}
    sourced = load({"fleet": "from-call", "join_beats": 4}, env)
    settings, sources = sourced.settings, sourced.sources
    assert (settings.fleet, sources["fleet"]) == ("from-call", "Fleet(fleet=…)")
    assert (settings.join_beats, sources["join_beats"]) == (4, "Fleet(join_beats=…)")
    assert (settings.threshold, sources["threshold"]) == (0.6, "NXS_THRESHOLD")
    assert (settings.max_queue, sources["max_queue"]) == (7, "NXS_MAX_QUEUE")
    assert sources["history_days"] == "default"


def test_the_process_environment_is_read_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NXS_FLEET", "from-env")
    assert load().settings.fleet == "from-env"


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_every_setting_can_come_from_the_environment(field: Any) -> None:
    text = SPEC_WEIGHTS if field.name == "weights" else str(field.default)
    key = f"NXS_{field.name.upper()}"
    sourced = load(env={key: text})
    found = getattr(sourced.settings, field.name)
    assert found == field.default
    assert type(found) is type(field.default)
    assert sourced.sources[field.name] == key


@pytest.mark.parametrize("name", ["NXS_APP", "NXS_BROKER_URL", "NXS_RESULT_BACKEND"])
def test_a_reserved_name_in_the_environment_is_no_setting(name: str) -> None:
    assert load(env={name: "anything"}).settings == Settings()


def test_other_names_in_the_environment_are_nobodys_business() -> None:
    assert load(env={"PATH": "x", "nxs_fleet": "x", "CELERY_FLEET": "x"}).settings == Settings()


# --- unknown names -----------------------------------------------------------------------------


def test_a_misspelt_name_in_the_environment_gets_the_near_one_in_the_same_form() -> None:
    text = refusal_of({"NXS_TRESHOLD": "0.5"})
    assert text == "unknown setting 'NXS_TRESHOLD', did you mean 'NXS_THRESHOLD'?"


def test_a_misspelt_name_in_the_call_gets_the_near_one_in_the_same_form() -> None:
    assert refusal(treshold=0.5) == "unknown setting 'treshold', did you mean 'threshold'?"


def test_a_misspelt_name_is_refused_by_the_fleet_itself() -> None:
    app: Any = object()  # refused before the app is looked at
    with pytest.raises(SettingError, match="did you mean 'heartbeat_period'"):
        Fleet(app, heartbeat_periode=3)


def test_a_name_in_the_environment_that_resembles_none_is_ignored_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A container platform sets such names for a service called nxs-redis."""
    found = load({}, {"NXS_REDIS_SERVICE_HOST": "10.0.0.1"})
    assert found.settings == Settings()
    assert "NXS_REDIS_SERVICE_HOST is no setting of NXS" in caplog.text


def test_tags_may_be_a_list() -> None:
    assert load({"tags": ["ssd", "gpu"]}, {}).settings.tag_set == ("gpu", "ssd")


def test_a_name_in_the_call_that_resembles_none_points_to_the_list() -> None:
    assert refusal(qqqq=1) == "unknown setting 'qqqq'; `nxs settings` lists them"


# --- bad values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        case("a word for a number", {"threshold": "high"}, "threshold='high': expected float"),
        case("nothing for a number", {"max_queue": None}, "max_queue=None: expected int"),
        case("a list for a number", {"gone_after": [1]}, "gone_after=[1]: expected float"),
        case("a fraction as text for a count", {"join_beats": "2.5"}, "expected int"),
        case("a threshold of 1", {"threshold": 1}, "setting threshold=1.0: must be in 0..1"),
        case("a threshold below 0", {"threshold": -0.1}, "threshold=-0.1"),
        case(
            "a threshold that is no number", {"threshold": "nan"}, "threshold='nan': expected float"
        ),
        case("a share above 1", {"placement_sample": 1.1}, "placement_sample=1.1: 0..1"),
        case("a share below 0", {"placement_sample": -0.1}, "placement_sample=-0.1: 0..1"),
        case("less than one task per slot", {"saturation": 0.9}, "must be at least 1"),
        case("a period of 0", {"record_period": 0}, "record_period=0.0: must be above 0"),
        case(
            "a time that is no number",
            {"silent_after": "nan"},
            "silent_after='nan': expected float",
        ),
        case("a negative time", {"gone_kept": -1}, "gone_kept=-1.0: must be above 0"),
        case("a queue of no tasks", {"max_queue": 0}, "max_queue=0: must be above 0"),
        case("no heartbeats to join", {"join_beats": 0}, "join_beats=0: must be above 0"),
        case("no latency", {"max_latency_ms": 0}, "max_latency_ms=0.0: must be above 0"),
        case("no history at all", {"history_days": 0}, "history_days=0: must be above 0"),
        case(
            "gone before the next heartbeat",
            {"gone_after": 3},
            "gone_after=3.0: must be above heartbeat_period (5.0 s)",
        ),
        case("gone with the next heartbeat", {"gone_after": 5}, "must be above heartbeat_period"),
        case(
            "a zombie that gets work",
            {"zombie_after": 14.9},
            "setting zombie_after=14.9: must not be below silent_after (15.0 s)",
        ),
        case(
            "gone as soon as a zombie",
            {"evict_after": 30},
            "setting evict_after=30.0: must be above zombie_after (30.0 s)",
        ),
        case("a task that no holder may lose", {"lost_holders": 0}, "must be at least 1"),
        case(
            "heartbeats rarer than death",
            {"heartbeat_period": 60},
            "must be above heartbeat_period (60.0 s), or a living instance would be given up",
        ),
    ],
)
def test_a_bad_value_is_refused_by_name_with_the_rule(call: dict[str, Any], words: str) -> None:
    assert words in refusal(**call)


@pytest.mark.parametrize(
    "call",
    [
        case("a queue without end", {"max_queue": float("inf")}),
        case("nothing for a name", {"fleet": None}),
        case("nothing for an address", {"history_url": None}),
        case("a fraction for a count", {"join_beats": 2.7}),
        case("a negative weight", {"weights": {"cpu": 0.65, "memory": -0.1}}),
    ],
)
def test_a_bad_value_is_refused_by_name_as_well(call: dict[str, Any]) -> None:
    assert next(iter(call)) in refusal(**call)


def test_a_bad_value_in_the_environment_is_named_as_it_stands_there() -> None:
    assert refusal_of({"NXS_MAX_QUEUE": "many"}) == "NXS_MAX_QUEUE='many': expected int"


@pytest.mark.parametrize(
    "field", [f for f in FIELDS if f.metadata["unit"] == "s"], ids=attrgetter("name")
)
def test_every_time_must_be_above_0(field: Any) -> None:
    assert "must be above 0" in refusal(**dict.fromkeys([field.name], 0))


@pytest.mark.parametrize("threshold", [0.0, 0.999])
def test_a_threshold_may_be(threshold: float) -> None:
    assert load({"threshold": threshold}, {}).settings.threshold == threshold


@pytest.mark.parametrize("share", [0, 1])
def test_a_share_may_be(share: float) -> None:
    assert load({"placement_sample": share}, {}).settings.placement_sample == share


# --- weights -----------------------------------------------------------------------------------

FLAT = {"cpu": 0.2, "memory": 0.2, "queue": 0.2, "latency": 0.2, "reliability": 0.2}


@pytest.mark.parametrize(
    "value",
    [
        case("as a mapping", FLAT),
        case("as a mapping of texts", {name: str(share) for name, share in FLAT.items()}),
        case("as text", ",".join(f"{name}={share}" for name, share in FLAT.items())),
        case("as weights", Weights(**FLAT)),
    ],
)
def test_weights_are_understood(value: Any) -> None:
    assert load({"weights": value}, {}).settings.weights == Weights(**FLAT)


def test_weights_that_are_not_named_keep_their_default() -> None:
    weights = load({"weights": {"cpu": 0.30, "memory": 0.25}}, {}).settings.weights
    assert weights == Weights(cpu=0.30, memory=0.25)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        case("they add up to less", {"cpu": 0.2}, "weights=0.95: must add up to 1"),
        case("they add up to more", "cpu=0.5", "must add up to 1"),
        case("one is no number", {"cpu": "nan"}, "weights.cpu=nan: must be in 0..1"),
        case(
            "one has a name of its own", {"disk": 1}, "weights: unknown weight 'disk'; known: cpu"
        ),
        case("one is misspelt in the text", "cpus=1", "unknown weight 'cpus'"),
        case("a value is a word", "cpu=much", "weights='cpu=much': expected cpu=…,memory=…"),
        case("there is no sign between", "cpu,memory", "that add up to 1"),
        case("there are two signs", "cpu=1=2", "that add up to 1"),
        case("it is a number", 5, "weights=5: expected cpu=…"),
        case("it is nothing", None, "weights=None: expected cpu=…"),
        case("it is an empty text", "", "that add up to 1"),
    ],
)
def test_weights_are_refused_when(value: Any, words: str) -> None:
    assert words in refusal(weights=value)


def test_weights_in_the_environment_are_named_as_they_stand_there() -> None:
    assert refusal_of({"NXS_WEIGHTS": "cpu=much"}).startswith("NXS_WEIGHTS='cpu=much': expected")


# --- names and lists ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "shop", "shop-2", "shop_eu", "shop.eu", "7"])
def test_a_fleet_may_be_called(name: str) -> None:
    assert load({"fleet": name}, {}).settings.fleet == name


@pytest.mark.parametrize(
    "name", ["", "two words", "a:b", "{a}", "a*", "a/b", "a\n"], ids=lambda name: repr(name)
)
def test_a_fleet_may_not_be_called(name: str) -> None:
    assert "may hold letters, digits, '-', '_' and '.'" in refusal(fleet=name)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        case("none", "", ()),
        case("one", "gpu", ("gpu",)),
        case("sorted, without blanks and repeats", " ssd, gpu,gpu ,, ", ("gpu", "ssd")),
    ],
)
def test_tags(text: str, tags: tuple[str, ...]) -> None:
    assert load({"tags": text}, {}).settings.tag_set == tags


def test_the_state_directory_is_the_one_that_was_set(tmp_path: Path) -> None:
    assert load({"state_dir": tmp_path}, {}).settings.state_path == tmp_path


def test_a_state_directory_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/of-ann")
    assert load({"state_dir": "~/nxs"}, {}).settings.state_path == Path("/of-ann/nxs")


def test_without_one_it_is_the_users_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/of-ann")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert Settings().state_path == Path("/of-ann/.local/state/nxs")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert Settings().state_path == Path("/state/nxs")


# --- properties --------------------------------------------------------------------------------

junk = st.none() | st.booleans() | st.text(max_size=9) | st.lists(st.integers(), max_size=2)
numbers = st.integers(-10, 10**6) | st.floats(-10, 1e6)


@examples(100)
@given(st.dictionaries(st.sampled_from([f.name for f in FIELDS]), junk | numbers, max_size=4))
def test_whatever_is_set_gives_settings_or_a_setting_error(call: dict[str, Any]) -> None:
    try:
        sourced = load(call, env={})
    except SettingError:
        with pytest.raises(SettingError, match="|".join([*call, "gone_after"])):
            load(call, env={})
    else:
        assert {n for n, s in sourced.sources.items() if s != "default"} == set(call)


@examples(60)
@given(st.text(max_size=12))
def test_an_unknown_name_is_a_setting_error_that_shows_it(name: str) -> None:
    if name in {f.name for f in FIELDS}:
        return
    assert repr(name) in refusal(**dict.fromkeys([name], 1))
