"""What tasks declare of their instance: read from the code, told by workers, bound for one call."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.errors import SettingError
from nxs_tasks.model.demand import PLAIN, Demand, Traits
from nxs_tasks.traits import LONGEST_KEY, Declared, Demands, declared
from tests.unit.builders import case, examples

GB = 10**9


@pytest.fixture
def app() -> Iterator[Any]:
    app = Celery("shop", set_as_current=False)
    yield app
    app.close()


def nothing() -> None:
    """A task without arguments."""


def render(model: str, prompt: str = "", *, size: int = 512) -> None:
    """A task with arguments of every kind that can be named."""


def a_task(app: Any, run: Callable[..., Any] = nothing, **options: Any) -> Any:
    return app.task(name="shop.run", shared=False, **options)(run)


def traits_of(app: Any, run: Callable[..., Any] = nothing, **options: Any) -> Traits:
    return declared(a_task(app, run, **options)).traits


def key_of(found: Declared, *args: Any, **kwargs: Any) -> str:
    return found.demand(args, kwargs).key


# --- what is declared ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "traits"),
    [
        case("nothing", {}, PLAIN),
        case("a tag", {"needs": "gpu"}, Traits(needs=("gpu",))),
        case("tags, in whatever order", {"needs": {"ssd", "gpu"}}, Traits(needs=("gpu", "ssd"))),
        case("a tag twice", {"needs": ["gpu", "gpu"]}, Traits(needs=("gpu",))),
        case("no tag", {"needs": None}, PLAIN),
        case("it waits for others", {"io": True}, Traits(io=True)),
        case("several slots", {"slots": 3}, Traits(slots=3)),
        case("bytes", {"memory": 12}, Traits(memory=12)),
        case("no bytes", {"memory": 0}, PLAIN),
        case("a text", {"memory": "6 GB"}, Traits(memory=6 * GB)),
        case("a part of one", {"memory": " 1.5gb "}, Traits(memory=1_500_000_000)),
        case("megabytes", {"memory": "250MB"}, Traits(memory=250_000_000)),
        case("bytes as a text", {"memory": "7 B"}, Traits(memory=7)),
    ],
)
def test_what_a_task_declares(app: Any, options: dict[str, Any], traits: Traits) -> None:
    assert traits_of(app, **options) == traits


def test_a_function_is_no_part_of_what_is_told(app: Any) -> None:
    found = declared(a_task(app, render, affinity=lambda model, *_, **__: model))
    assert found.traits == PLAIN
    assert found.has_keys


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        case("a number of tags", "needs", 5, "tags such as"),
        case("a tag that is no text", "needs", ["gpu", 1], "tags such as"),
        case("an empty tag", "needs", ["gpu", ""], "tags such as"),
        case("a tag with its value", "needs", {"gpu": 2}, "tags such as"),
        case("two tags in one", "needs", "gpu,ssd", "tags without commas"),
        case("a tag that no environment has", "needs", {"gpu "}, "tags without commas"),
        case("a text for a flag", "io", "yes", "True or False"),
        case("a number for a flag", "io", 1, "True or False"),
        case("no slot", "slots", 0, "at least 1"),
        case("a part of a slot", "slots", 1.5, "a whole number"),
        case("a flag for slots", "slots", True, "a whole number"),
        case("less than no memory", "memory", -1, "bytes, or a text"),
        case("a flag for memory", "memory", True, "bytes, or a text"),
        case("an unknown unit", "memory", "6 GiB", "bytes, or a text"),
        case("no unit", "memory", "6", "bytes, or a text"),
        case("an empty template", "affinity", "", "a template"),
        case("a number for a template", "affinity", 7, "a template"),
        case("a template that never ends", "affinity", "model:{model", "a template (expected"),
        case("a template without an argument", "affinity", "model", "(model, prompt, size)"),
        case("one over another argument", "affinity", "{modle}", "(model, prompt, size)"),
        case("one over an argument without a name", "affinity", "{}", "(model, prompt, size)"),
        case("one by number", "affinity", "{0}", "(model, prompt, size)"),
    ],
)
def test_nonsense_is_refused_with_task_and_option(
    app: Any, option: str, value: Any, expected: str
) -> None:
    with pytest.raises(SettingError) as caught:
        traits_of(app, render, **{option: value})
    assert str(caught.value).startswith(f"task shop.run: {option}={value!r}: expected ")
    assert expected in str(caught.value)


def test_a_template_over_what_has_no_single_value_is_refused(app: Any) -> None:
    def several(*models: str, **more: str) -> None: ...

    for name in ("models", "more"):
        with pytest.raises(SettingError, match=r"its arguments \(none\)"):
            traits_of(app, several, affinity=f"{{{name}}}")


# --- the key of one call -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "key"),
    [
        case("by position", ("llama",), {}, "llama//512"),
        case("by name", (), {"model": "llama"}, "llama//512"),
        case("both", ("llama",), {"prompt": "hi", "size": 7}, "llama/hi/7"),
        case("what is no text", (3, None), {}, "3/None/512"),
        case(
            "a third one by position is not the one that must be named",
            ("a", "b", 9),
            {},
            "a/b/512",
        ),
    ],
)
def test_a_template_over_arguments(
    app: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: str
) -> None:
    found = declared(a_task(app, render, affinity="{model}/{prompt}/{size}"))
    told = Declared("shop.run", Traits.from_dict(json.loads(json.dumps(found.traits.as_dict()))))
    assert key_of(found, *args, **kwargs) == key
    assert key_of(told, *args, **kwargs) == key, "who has not the code has the same key"


def test_only_the_defaults_that_a_template_uses_are_told(app: Any) -> None:
    found = traits_of(app, render, affinity="{model}:{size:04d}:{size}")
    assert found.arguments == ("model", "prompt")
    assert found.defaults == (("size", 512),)
    assert key_of(Declared("shop.run", found), "a") == "a:0512:512"


def test_a_default_that_cannot_be_told_gives_no_key_anywhere(app: Any) -> None:
    def load(model: Any = object()) -> None: ...  # noqa: B008

    found = declared(a_task(app, load, affinity="{model}"))
    assert found.traits.defaults == ()
    assert key_of(found) == ""
    assert key_of(found, "a") == "a"


def test_a_bound_task_has_no_argument_self(app: Any) -> None:
    def load(self: Any, model: str) -> None: ...

    found = declared(a_task(app, load, bind=True, affinity="model:{model}"))
    assert found.traits.arguments == ("model",)
    assert key_of(found, "llama") == "model:llama"


def test_a_task_that_retries_by_itself_keeps_its_arguments(app: Any) -> None:
    options = {"autoretry_for": (OSError,), "affinity": "model:{model}"}
    assert key_of(declared(a_task(app, render, **options)), "llama") == "model:llama"


def test_a_class_of_tasks_declares_as_an_option_does(app: Any) -> None:
    class Render(app.Task):
        name = "shop.render"
        needs = ("gpu",)
        affinity = "{model}"

        def run(self, model: str) -> None: ...

    found = declared(app.register_task(Render()))
    assert found.traits == Traits(needs=("gpu",), affinity="{model}", arguments=("model",))


@pytest.mark.parametrize(
    ("function", "key"),
    [
        case("of the same arguments", lambda model, prompt: model, "llama"),
        case("what is no text becomes one", lambda *_: 7, "7"),
        case("zero is a key", lambda *_: 0, "0"),
        case("none is none", lambda *_: None, ""),
        case("an empty text is none", lambda *_: "", ""),
    ],
)
def test_a_function_of_the_arguments(app: Any, function: Any, key: str) -> None:
    assert key_of(declared(a_task(app, render, affinity=function)), "llama", "hi") == key


def test_a_method_of_something_else_stays_its_method(app: Any) -> None:
    class Shards:
        def of(self, model: str, *_: str) -> str:
            return f"shard-{len(model)}"

    assert key_of(declared(a_task(app, render, affinity=Shards().of)), "llama") == "shard-5"


def test_a_function_that_raises_costs_the_key_and_not_the_task(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(model: str) -> str:
        raise KeyError(model)

    found = declared(a_task(app, render, affinity=fails, slots=2))
    with caplog.at_level(logging.WARNING):
        first, second = found.demand(("secret",), {}), found.demand(("secret",), {})
    assert first == second == Demand("shop.run", slots=2)
    assert [r.getMessage() for r in caplog.records] == ["shop.run has no affinity key: KeyError"]


def test_an_argument_that_is_missing_costs_the_key_and_not_the_task(app: Any) -> None:
    found = declared(a_task(app, render, affinity="{model}"))
    assert key_of(found) == ""
    assert key_of(found, prompt="hi") == ""


def test_arguments_may_be_none_at_all(app: Any) -> None:
    assert Declared("shop.run", PLAIN).demand(None, None) == Demand("shop.run")
    found = declared(a_task(app, render, affinity="{prompt}{size}"))
    assert found.demand(None, None).key == "512"


def test_a_long_key_goes_by_its_digest(app: Any) -> None:
    found = declared(a_task(app, render, affinity="{model}"))
    longest, too_long = "x" * LONGEST_KEY, "x" * (LONGEST_KEY + 1)
    assert key_of(found, longest) == longest
    digest = key_of(found, too_long)
    assert (len(digest), digest == too_long) == (40, False)
    assert key_of(found, too_long) == digest != key_of(found, too_long + "x")
    assert len(key_of(found, "\ud800" * 99)) == 40, "half a character is a key too"


# --- as workers tell it --------------------------------------------------------------------------

some_traits = st.builds(
    Traits,
    needs=st.lists(st.text(min_size=1), max_size=3).map(tuple),
    io=st.booleans(),
    slots=st.integers(1, 99),
    memory=st.integers(0, 10**15),
    affinity=st.text(),
    arguments=st.lists(st.text(), max_size=3).map(tuple),
    defaults=st.lists(
        st.tuples(st.text(), st.text() | st.integers() | st.booleans() | st.none()), max_size=3
    ).map(tuple),
)


@examples(100)
@given(some_traits)
def test_what_is_told_is_what_was_declared(traits: Traits) -> None:
    assert Traits.from_dict(json.loads(json.dumps(traits.as_dict()))) == traits
    assert hash(traits) == hash(Traits.from_dict(json.loads(json.dumps(traits.as_dict()))))


def test_what_is_as_usual_is_not_told() -> None:
    assert PLAIN.as_dict() == {}
    assert Traits(slots=2).as_dict() == {"slots": 2}
    assert Traits.from_dict({}) == PLAIN


def test_what_a_later_version_tells_is_passed_over_and_nonsense_is_harmless() -> None:
    told = {"slots": 0, "memory": -5, "colour": "red", "defaults": [["a", {"b": 1}], ["c", 1]]}
    assert Traits.from_dict(told) == Traits(defaults=(("c", 1),))


def nobody_tells(name: str) -> Traits:
    raise AssertionError(f"{name} has code here")


def test_who_has_the_code_asks_it(app: Any) -> None:
    a_task(app, render, affinity="{model}", memory=5)
    app.finalize()
    found = Demands(app).of("shop.run", nobody_tells)
    assert found.demand(("llama",), None) == Demand("shop.run", "llama", memory=5)


def test_who_has_not_the_code_asks_what_the_workers_tell(app: Any) -> None:
    demands, told = Demands(app), Traits(affinity="{model}", arguments=("model",), io=True)
    found = demands.of("shop.far", lambda name: told)
    assert found.demand(("llama",), None) == Demand("shop.far", "llama", io=True)
    assert demands.of("shop.far", lambda name: told) is found, "made once"
    later = demands.of("shop.far", lambda name: PLAIN)
    assert later.demand(("llama",), None) == Demand("shop.far")


def test_a_template_that_another_version_tells_and_nobody_understands(app: Any) -> None:
    found = Demands(app).of("shop.far", lambda name: Traits(affinity="{", slots=2))
    assert found.demand(("llama",), None) == Demand("shop.far", slots=2)


def test_a_submission_does_not_fail_for_what_its_worker_will_refuse(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    a_task(app, render, slots=0)
    app.finalize()
    demands = Demands(app)
    assert demands.of("shop.run", nobody_tells).demand((), {}) == Demand("shop.run")
    demands.of("shop.run", nobody_tells)
    assert [r.levelname for r in caplog.records] == ["ERROR"], "said once"
    assert "slots=0" in caplog.text


def test_a_task_that_is_registered_anew_is_read_anew(app: Any) -> None:
    demands = Demands(app)
    a_task(app, render, slots=2)
    app.finalize()
    assert demands.of("shop.run", nobody_tells).traits.slots == 2
    app.tasks.unregister("shop.run")
    a_task(app, render, slots=3)
    assert demands.of("shop.run", nobody_tells).traits.slots == 3
