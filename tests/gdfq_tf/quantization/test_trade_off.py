"""Choices of layers against brute force, costs against files."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdfq_tf.config import Limits
from gdfq_tf.quantization import trade_off
from gdfq_tf.quantization.trade_off import (
    Assignment,
    LayerCost,
    TradeOff,
    best_measured,
    measure_trade_off,
)
from tests.tiny_network import NetworkBuilder
from tflite_export.convert import convert_network
from tflite_export.operator_forms import at_8_bits

A = LayerCost("a", divergence=0.3, num_bytes=100, latency=0.0)
B = LayerCost("b", divergence=0.4, num_bytes=200, latency=0.5)
C = LayerCost("c", divergence=0.1, num_bytes=10, latency=0.25)
FOUND = TradeOff(num_bytes=1000, latency_ratio=1.75, costs=(A, B, C))


def test_what_comes_of_an_assignment():
    found = FOUND.assignment({"a", "c"})
    assert found == Assignment(frozenset("ac"), 1110, 1.5, pytest.approx(0.4))


def test_layers_are_ranked_by_what_their_bytes_save():
    # .3 / 100, .4 / 200, .1 / 10
    assert FOUND.ranked() == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        (Limits(max_bytes=1000), ""),
        (Limits(max_bytes=1010), "c"),
        (Limits(max_bytes=1109), "a"),
        (Limits(max_bytes=1110), "ac"),
        (Limits(max_bytes=1210), "bc"),
        (Limits(max_bytes=1310), "abc"),
        (Limits(max_latency_ratio=1.0), "abc"),
        (Limits(max_bytes=1205, max_latency_ratio=1.25), "b"),
        (Limits(max_bytes=1109, max_latency_ratio=1.5), "c"),
        (Limits(), "abc"),
    ],
)
def test_the_best_by_hand(limits, names):
    assert FOUND.best(limits).layers_at_8_bits == frozenset(names)


@pytest.mark.parametrize(
    "limits", [Limits(max_bytes=999), Limits(max_bytes=1100, max_latency_ratio=1.2)]
)
def test_there_may_be_none(limits):
    assert FOUND.best(limits) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 5000), st.integers(0, 8)),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 20000),
    st.integers(0, 30),
)
def test_the_best_is_that_of_brute_force(layers, more_bytes, more_latency):
    costs = tuple(
        LayerCost(f"l{i}", divergence / 16, num_bytes, latency / 8)
        for i, (divergence, num_bytes, latency) in enumerate(layers)
    )
    total = sum(cost.latency for cost in costs)
    found = TradeOff(5000, 1 + total, costs)
    limits = Limits(max_bytes=5000 + more_bytes, max_latency_ratio=1 + more_latency / 8)
    names = [cost.name for cost in costs]
    possible = [
        found.assignment(kept)
        for count in range(len(names) + 1)
        for kept in itertools.combinations(names, count)
        if found.assignment(kept).within(limits)
    ]
    best = found.best(limits)
    assert (best is None) == (not possible)
    if best is not None:
        assert best.within(limits)
        least = min(x.divergence for x in possible)
        assert best.divergence == pytest.approx(least, abs=1e-6)


def test_the_curve_goes_from_one_end_to_the_other():
    curve = FOUND.curve(4)
    assert [x.num_bytes for x in curve] == [1000, 1100, 1200, 1310]
    assert [x.divergence for x in curve] == pytest.approx([0.8, 0.5, 0.4, 0.0])
    assert FOUND.rows()[0]["layers_at_8_bits"] == []


def network(bits: int = 4):
    b = NetworkBuilder(seed=3)
    x = b.kernel("one", "conv", "image", bits=bits, outputs=32)
    x = b.kernel("two", "conv", x, bits=bits, outputs=64, size=1)
    b.kernel("three", "dense", b.flatten(x), bits=bits, outputs=10)
    return b.build_ops()


def test_costs_are_those_of_files(monkeypatch):
    made = network()
    monkeypatch.setattr(trade_off, "times_as_long", lambda small, large: 2.0)
    found = measure_trade_off(
        made,
        {"one": 0.5, "three": 0.25},
        {"one": 300, "two": 50, "three": 100},
        slow=["one", "two"],
    )
    assert found.num_bytes == len(convert_network(made))
    # All that takes longer is the 3x3 convolution's.
    assert [cost.latency for cost in found.costs] == [1.0, 0.0]
    for cost in found.costs:
        larger = len(convert_network(at_8_bits(made, [cost.name])))
        assert found.num_bytes + cost.num_bytes == pytest.approx(larger, abs=200)


@pytest.mark.parametrize("missing", [0, 700, 10**6])
def test_limits_of_bytes_are_held_by_files(monkeypatch, missing):
    """Although layers are thought to cost fewer bytes than they do."""
    made = network()
    costs = tuple(LayerCost(name, 1.0, 16, 0.0) for name in ("one", "two", "three"))
    smallest = len(convert_network(made))
    largest = len(convert_network(network(8)))
    limits = Limits(max_bytes=max(smallest, largest - missing))
    found = best_measured(TradeOff(smallest, 1.0, costs), made, limits)
    assert found.num_bytes <= limits.max_bytes
    kept = found.layers_at_8_bits
    assert found.num_bytes == len(convert_network(at_8_bits(made, kept)))
    assert (len(kept) == 3) == (missing == 0)


def test_a_latency_is_held_as_measured(monkeypatch):
    """Layers are thought to cost less time than they do."""

    def measured(file, reference):
        return 1.0 + 0.5 * (len(file) < len(reference))

    monkeypatch.setattr(trade_off, "times_as_long", measured)
    costs = (LayerCost("one", 1.0, 500, 0.2), LayerCost("two", 1.0, 500, 0.0))
    found = best_measured(
        TradeOff(5000, 1.2, costs), network(), Limits(max_latency_ratio=1.1)
    )
    assert found.latency_ratio == 1.0
    assert found.layers_at_8_bits == {"one", "two"}


def test_what_cannot_be_held_keeps_nothing():
    found = best_measured(FOUND, network(), Limits(max_bytes=10))
    assert found.layers_at_8_bits == frozenset()
