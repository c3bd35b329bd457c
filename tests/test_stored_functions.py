from __future__ import annotations

import sys
from types import FunctionType

import pytest

from gdfq_tf.stored_functions import is_of_this_python, missing_names


def outer(x):
    y = x

    def inner(z):
        return [y + z + i for i in range(3)]

    return inner(x), {a: b for a, b in zip(x, x, strict=True)}, (a for a in x)


def branches(x, *, y=3):
    for _ in range(1000):
        if (x and y in (1, 2)) or x is None:
            raise ValueError(f"{x!r}")
        with open(x) as file:
            x.y = file[1:2]
    return not x


def with_cell(value):
    return lambda x: x * value


# lambda x: keras.ops.relu(x), as each version writes it; {n} stands for n empty units.
RELU = {
    (3, 10): "74 00 6a 01 a0 02 7c 00 a1 01 53 00",
    (3, 11): "97 00 74 00 {5} 6a 01 {4} a0 02 {10} 7c 00 a6 01 {1} ab 01 {4} 53 00",
    (3, 12): "97 00 74 00 {4} 6a 02 {9} 6a 05 {9} 7c 00 ab 01 {3} 53 00",
}
TWICE_3_13 = "95 00 55 00 53 01 2d 05 {1} 24 00"  # lambda x: x * 2


def written(units, function):
    """A function with other bytecode."""
    for n in range(1, 11):
        units = units.replace(f"{{{n}}}", "00 00 " * n)
    return FunctionType(function.__code__.replace(co_code=bytes.fromhex(units)), {})


@pytest.mark.parametrize("function", [outer, branches, with_cell(2), lambda: None])
def test_functions_of_this_python(function):
    assert is_of_this_python(function)


@pytest.mark.parametrize("version", RELU)
def test_a_call_is_laid_out_anew_in_each_version(version):
    function = written(RELU[version], lambda x: keras.ops.relu(x))  # noqa: F821
    assert is_of_this_python(function) == (version == sys.version_info[:2])


def test_a_version_that_numbers_anew():
    assert not is_of_this_python(written(TWICE_3_13, lambda x: x * 2))


def test_functions_inside_are_looked_at():
    def function(x):
        return (lambda y: y * 2)(x)

    assert is_of_this_python(function)
    other = written(TWICE_3_13, lambda y: y * 2).__code__
    code = function.__code__
    constants = [other if hasattr(c, "co_code") else c for c in code.co_consts]
    assert not is_of_this_python(
        FunctionType(code.replace(co_consts=tuple(constants)), {})
    )


def test_missing_names():
    def function(x):
        import math

        scales = [scale(v) for v in x]  # noqa: F821
        return tf.relu(x), len(x), math.pi, y, scales  # noqa: F821

    restored = FunctionType(function.__code__, {"tf": None})
    assert missing_names(restored) == ["scale", "y"]
    assert missing_names(with_cell(2)) == []
