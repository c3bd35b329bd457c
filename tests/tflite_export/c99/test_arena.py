"""Plans of memory, by hand and for any buffers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_export.c99.arena import ALIGNMENT, Buffer, plan_arena


@pytest.mark.parametrize(
    ("buffers", "size"),
    [
        ([], 0),
        ([Buffer("a", 5, 0, 3)], 8),
        # One after the other.
        ([Buffer("a", 8, 0, 1), Buffer("b", 8, 2, 3)], 8),
        # Step 1 reads a and writes b.
        ([Buffer("a", 8, 0, 1), Buffer("b", 8, 1, 2)], 16),
        # c takes the place of a, below b.
        ([Buffer("a", 8, 0, 1), Buffer("b", 4, 1, 2), Buffer("c", 8, 2, 3)], 12),
    ],
)
def test_plans_by_hand(buffers, size):
    plan = plan_arena(buffers)
    assert plan.size == plan.lower_bound == size


@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.integers(0, 9), st.integers(0, 5)),
        max_size=12,
    )
)
def test_no_two_buffers_of_one_time_meet(entries):
    buffers = [
        Buffer(f"b{i}", size, first, first + length)
        for i, (size, first, length) in enumerate(entries)
    ]
    plan = plan_arena(buffers)
    assert plan.size >= plan.lower_bound
    for buffer in buffers:
        assert plan.offsets[buffer.name] % ALIGNMENT == 0
        assert 0 <= plan.offsets[buffer.name] <= plan.size - buffer.size
    for a, b in itertools.combinations(buffers, 2):
        apart = (
            plan.offsets[a.name] + a.size <= plan.offsets[b.name]
            or plan.offsets[b.name] + b.size <= plan.offsets[a.name]
        )
        in_turn = a.last < b.first or b.last < a.first
        assert apart or in_turn
