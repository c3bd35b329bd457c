from __future__ import annotations

import marshal
import struct
import sys
from types import FunctionType

import pytest

from gdfq_tf.model_files.stored_functions import is_of_this_python, missing_names


def outer(x):
    y = x

    def inner(z):
        return [y + z + i for i in range(3)]

    return inner(x), {a: b for a, b in zip(x, x, strict=True)}, (a for a in x)


def branches(x, *, y=3):
    for _ in range(1000):
        if (x and y in (1, 2)) or x is None:
            raise ValueError(f"{x!r}")
        with open(x) as file:  # noqa: PTH123 - the bytecode of `with`, never run
            x.y = file[1:2]
    return not x


def with_cell(value):
    return lambda x: x * value


# As each version writes it; {n} stands for n empty units.
RELU = {
    (3, 10): "74 00 6a 01 a0 02 7c 00 a1 01 53 00",
    (3, 11): "97 00 74 00 {5} 6a 01 {4} a0 02 {10} 7c 00 a6 01 {1} ab 01 {4} 53 00",
    (3, 12): "97 00 74 00 {4} 6a 02 {9} 6a 05 {9} 7c 00 ab 01 {3} 53 00",
}
ITEM = {
    (3, 10): "7c 00 7c 01 19 00 53 00",
    (3, 11): "97 00 7c 00 7c 01 19 00 {4} 53 00",
    (3, 12): "97 00 7c 00 7c 01 19 00 {1} 53 00",
}
TWICE_3_13 = "95 00 55 00 53 01 2d 05 {1} 24 00"
SAME_3_13 = "95 00 55 00 24 00"  # each number means something in 3.11


def written(function, units):
    """A marshalled function whose last code, perhaps of one inside, is another."""
    for n in range(1, 11):
        units = units.replace(f"{{{n}}}", "00 00 " * n)
    other = bytes.fromhex(units)
    bytecode = marshal.dumps(function.__code__)
    constants = function.__code__.co_consts
    inner = [c for c in constants if hasattr(c, "co_code")]
    code = (inner or [function.__code__])[-1].co_code
    start = bytecode.rindex(code)
    length = struct.pack("<I", len(other))
    return bytecode[: start - 4] + length + other + bytecode[start + len(code) :]


@pytest.mark.parametrize("function", [outer, branches, with_cell(2), lambda: None])
def test_functions_of_this_python(function):
    assert is_of_this_python(marshal.dumps(function.__code__))


@pytest.mark.parametrize(
    ("function", "versions"),
    [
        (lambda x: keras.ops.relu(x), RELU),  # noqa: F821
        (lambda x, i: x[i], ITEM),
    ],
)
@pytest.mark.parametrize("version", RELU)
def test_the_same_function_is_laid_out_anew_in_each_version(
    function, versions, version
):
    is_ours = version == sys.version_info[:2]
    bytecode = written(function, versions[version])
    assert (bytecode == marshal.dumps(function.__code__)) == is_ours
    assert is_of_this_python(bytecode) == is_ours


def test_a_version_that_numbers_anew():
    assert not is_of_this_python(written(lambda x: x * 2, TWICE_3_13))
    assert not is_of_this_python(written(lambda x: x, SAME_3_13))


def test_functions_inside_are_looked_at():
    def function(x):
        return (lambda y: y * 2)(x)

    assert is_of_this_python(marshal.dumps(function.__code__))
    assert not is_of_this_python(written(function, TWICE_3_13))


def test_instructions_that_there_are_not():
    for units in ("97 00 ff 00 7c 00 53 00", "97 00 {1} 7c 00 53 00"):
        assert not is_of_this_python(written(lambda x: x, units))


@pytest.mark.parametrize("bytecode", [b"", b"nonsense", marshal.dumps("text")])
def test_no_functions(bytecode):
    assert not is_of_this_python(bytecode)


def test_missing_names():
    def function(x):
        import math

        scales = [scale(v) for v in x]  # noqa: F821
        return tf.relu(x), len(x), math.pi, y, scales  # noqa: F821

    restored = FunctionType(function.__code__, {"tf": None})
    assert missing_names(restored) == ["scale", "y"]
    assert missing_names(with_cell(2)) == []
