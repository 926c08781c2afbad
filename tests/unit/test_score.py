"""The instance score of spec 1.1, by figures computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxs_tasks.model.instance import Instance
from nxs_tasks.policy.fleet.score import clamp, score, terms, weigh
from nxs_tasks.settings import Settings, Weights
from tests.unit.builders import GIB, UNKNOWN_LOAD, a_load, an_instance, case, examples, knobs

SPEC = knobs()
TERMS = ("cpu", "memory", "queue", "latency", "reliability")


def the_worked_example(**load: Any) -> Instance:
    """CPU 0.75, memory 0.75, queue 0.8, latency 0.9, reliability 0.98."""
    beat = a_load(
        **{
            "load_avg": 1.0,
            "cores": 4,
            "memory_used": 2 * GIB,
            "memory_total": 8 * GIB,
            "latency_ms": 100.0,
            "queued": None,
            **load,
        }
    )
    return an_instance(load=beat, queued=20, succeeded=98, failed=2)


def test_the_weights_and_scales_are_those_of_the_spec() -> None:
    assert SPEC.weights == Weights(
        cpu=0.25, memory=0.30, queue=0.20, latency=0.15, reliability=0.10
    )
    assert (SPEC.max_latency_ms, SPEC.outcome_days, SPEC.threshold) == (1000.0, 7, 0.5)


@pytest.mark.parametrize(
    ("instance", "term", "value"),
    [
        case("an idle machine has all its cpu", an_instance(load=a_load(load_avg=0.0)), "cpu", 1.0),
        case(
            "cpu is what the load leaves of the cores",
            an_instance(load=a_load(load_avg=3.0, cores=8)),
            "cpu",
            0.625,
        ),
        case("load over all cores leaves no cpu", an_instance(load=a_load(load_avg=9.0)), "cpu", 0),
        case(
            "memory is the unused share",
            an_instance(load=a_load(memory_used=3 * GIB, memory_total=4 * GIB)),
            "memory",
            0.25,
        ),
        case(
            "more memory used than there is leaves none",
            an_instance(load=a_load(memory_used=9 * GIB)),
            "memory",
            0,
        ),
        case("an empty queue is all free", an_instance(queued=0), "queue", 1.0),
        case("a queue of 30 is 30 % full", an_instance(queued=30), "queue", 0.7),
        case("a queue over the maximum is full", an_instance(queued=250), "queue", 0),
        case(
            "the depth read live counts before the reported one",
            an_instance(queued=10, load=a_load(queued=90)),
            "queue",
            0.9,
        ),
        case(
            "the reported depth counts where none was read live",
            an_instance(queued=None, load=a_load(queued=90)),
            "queue",
            0.1,
        ),
        case(
            "a round trip of 250 ms costs a quarter",
            an_instance(load=a_load(latency_ms=250.0)),
            "latency",
            0.75,
        ),
        case(
            "a round trip over a second is the worst",
            an_instance(load=a_load(latency_ms=5000.0)),
            "latency",
            0,
        ),
        case(
            "a clock that ran backwards is the best latency, not more",
            an_instance(load=a_load(latency_ms=-5.0)),
            "latency",
            1.0,
        ),
        case(
            "reliability is the success rate of the window",
            an_instance(succeeded=30, failed=10),
            "reliability",
            0.75,
        ),
        case("nothing but failures is 0", an_instance(failed=3), "reliability", 0),
        case("nothing but successes is 1", an_instance(succeeded=3), "reliability", 1.0),
    ],
)
def test_a_term(instance: Instance, term: str, value: float) -> None:
    assert getattr(terms(instance, SPEC), term) == pytest.approx(value)


@pytest.mark.parametrize(
    ("instance", "term"),
    [
        case("no load average", an_instance(load=a_load(load_avg=None)), "cpu"),
        case("no count of cores", an_instance(load=a_load(cores=None)), "cpu"),
        case("zero cores", an_instance(load=a_load(cores=0)), "cpu"),
        case("no used memory", an_instance(load=a_load(memory_used=None)), "memory"),
        case("no total memory", an_instance(load=a_load(memory_total=None)), "memory"),
        case("zero total memory", an_instance(load=a_load(memory_total=0)), "memory"),
        case("no depth at all", an_instance(queued=None, load=a_load(queued=None)), "queue"),
        case("no round trip", an_instance(load=a_load(latency_ms=None)), "latency"),
        case("no task has ended yet", an_instance(), "reliability"),
    ],
)
def test_an_unknown_metric_is_none_and_never_zero(instance: Instance, term: str) -> None:
    assert getattr(terms(instance, SPEC), term) is None


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        # 0.25·0.75 + 0.30·0.75 + 0.20·0.80 + 0.15·0.90 + 0.10·0.98
        case("all five are known", the_worked_example(), 0.8055),
        # (0.8055 − 0.1875) / 0.75 and so on: the part of the unknown term and its weight leave
        case("cpu is unknown", the_worked_example(load_avg=None), 0.824),
        case("memory is unknown", the_worked_example(memory_used=None), 0.829_285_714),
        case("the queue is unknown", replace(the_worked_example(), queued=None), 0.806_875),
        case("latency is unknown", the_worked_example(latency_ms=None), 0.788_823_529),
        case(
            "reliability is unknown",
            replace(the_worked_example(), succeeded=0, failed=0),
            0.786_111_111,
        ),
        case(
            "only reliability is known",
            an_instance(load=UNKNOWN_LOAD, queued=None, succeeded=3, failed=1),
            0.75,
        ),
        case(
            "everything is at its worst",
            an_instance(
                load=a_load(load_avg=99.0, memory_used=99 * GIB, latency_ms=9e9),
                queued=999,
                failed=9,
            ),
            0.0,
        ),
        case(
            "everything is at its best",
            an_instance(load=a_load(load_avg=0.0, memory_used=0, latency_ms=0.0), succeeded=9),
            1.0,
        ),
    ],
)
def test_the_score(instance: Instance, expected: float) -> None:
    assert score(instance, SPEC) == pytest.approx(expected)


def test_an_instance_of_which_nothing_is_known_has_no_score() -> None:
    assert score(an_instance(load=UNKNOWN_LOAD, queued=None), SPEC) is None


def test_an_unknown_metric_with_all_the_weight_leaves_no_score() -> None:
    only_cpu = knobs(weights={"cpu": 1, "memory": 0, "queue": 0, "latency": 0, "reliability": 0})
    assert score(an_instance(load=a_load(load_avg=None)), only_cpu) is None
    assert score(an_instance(load=a_load(load_avg=1.0, cores=4)), only_cpu) == pytest.approx(0.75)


def test_own_placements_count_as_queued() -> None:
    assert terms(the_worked_example(), SPEC, placed=5).queue == pytest.approx(0.75)
    assert score(the_worked_example(), SPEC, placed=5) == pytest.approx(0.8055 - 0.20 * 0.05)


def test_own_placements_do_not_make_an_unknown_depth_known() -> None:
    unknown = replace(the_worked_example(queued=None), queued=None)
    assert terms(unknown, SPEC, placed=5).queue is None


def test_the_scales_come_from_the_settings() -> None:
    settings = knobs(max_queue=40, max_latency_ms=200.0)
    found = terms(the_worked_example(), settings)
    assert [found.queue, found.latency] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("value", "clamped"), [(-0.1, 0), (0, 0), (0.4, 0.4), (1, 1), (1.1, 1)])
def test_clamp(value: float, clamped: float) -> None:
    assert clamp(value) == clamped


# --- properties --------------------------------------------------------------------------------

counts = st.integers(0, 500)
ratios = st.floats(0, 1e6, allow_nan=False)


@st.composite
def weightings(draw: st.DrawFn) -> Settings:
    """Settings with any weights that add up to 1."""
    shares = draw(st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(any))
    total = sum(shares)
    return knobs(weights={n: s / total for n, s in zip(TERMS, shares, strict=True)})


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    """An instance with any metrics, each of them possibly unknown."""

    def maybe(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | strategy)

    beat = a_load(
        load_avg=maybe(ratios),
        cores=maybe(st.integers(0, 256)),
        memory_used=maybe(st.integers(0, 2**45)),
        memory_total=maybe(st.integers(0, 2**45)),
        latency_ms=maybe(st.floats(-10, 1e6)),
        queued=maybe(counts),
    )
    return an_instance(load=beat, queued=maybe(counts), succeeded=draw(counts), failed=draw(counts))


@examples(60)
@given(instances(), weightings(), counts)
def test_a_score_lies_between_0_and_1(instance: Instance, settings: Settings, placed: int) -> None:
    value = score(instance, settings, placed)
    assert value is None or 0.0 <= value <= 1.0


def with_metric(instance: Instance, metric: str, value: float) -> Instance:
    if metric in ("queued", "succeeded", "failed"):
        changed: dict[str, Any] = {metric: int(value)}
        return replace(instance, **changed)
    whole = {"load_avg": {"cores": 8}, "memory_used": {"memory_total": 1000}}
    changes: dict[str, Any] = {metric: value, **whole.get(metric, {})}
    return replace(instance, load=replace(instance.load, **changes))


@examples(120)
@given(
    instances(),
    weightings(),
    st.sampled_from(("load_avg", "memory_used", "queued", "latency_ms", "failed", "succeeded")),
    st.tuples(st.integers(0, 1500), st.integers(0, 1500)).map(sorted),
)
def test_a_worse_metric_never_gives_a_better_score(
    instance: Instance, settings: Settings, metric: str, values: list[int]
) -> None:
    # At least one task has ended each way, so that the term is known on both sides.
    instance = replace(instance, succeeded=instance.succeeded + 1, failed=instance.failed + 1)
    less, more = (score(with_metric(instance, metric, v), settings) for v in values)
    if less is not None and more is not None:
        better, worse = (more, less) if metric == "succeeded" else (less, more)
        assert worse <= better
    else:
        assert less is more


@examples(60)
@given(instances(), weightings(), counts, counts)
def test_a_placement_never_raises_a_score(
    instance: Instance, settings: Settings, placed: int, more: int
) -> None:
    before, after = score(instance, settings, placed), score(instance, settings, placed + more)
    assert (before is None) == (after is None)
    assert before is None or after is None or after <= before


@examples(60)
@given(instances())
def test_the_score_is_the_weighted_sum_over_what_is_known(instance: Instance) -> None:
    found = terms(instance, SPEC)
    weights = SPEC.weights
    known = {n: v for n, v in ((n, getattr(found, n)) for n in TERMS) if v is not None}
    share = sum(getattr(weights, n) for n in known)
    expected = sum(getattr(weights, n) * v for n, v in known.items()) / share if known else None
    assert weigh(found, weights) == (None if expected is None else pytest.approx(expected))
