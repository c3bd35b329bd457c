"""Python functions that model files hold as bytecode: whether they can run here.

Bytecode is of one Python version, which no file tells, and another version that runs
it may crash or compute something else.
"""

from __future__ import annotations

import builtins
import dis
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType

# What may stand before the first instruction of a function's own.
_PROLOGUE = ("COPY_FREE_VARS", "MAKE_CELL", "POP_TOP", "RETURN_GENERATOR")


def is_of_this_python(function: FunctionType) -> bool:
    """Whether bytecode is laid out as this Python lays it out.

    Versions differ in the numbers of their instructions, in the first of them and,
    from 3.11 on, in how much space is left empty behind each.
    """
    try:
        return all(map(_has_this_layout, _codes(function.__code__)))
    except (IndexError, KeyError, TypeError, ValueError):  # of dis, on other bytecode
        return False


def missing_names(function: FunctionType) -> list[str]:
    """Global names that a function uses and that are not where it was restored."""
    used = {
        instruction.argval
        for code in _codes(function.__code__)
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    return sorted(used - function.__globals__.keys() - vars(builtins).keys())


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _has_this_layout(code: CodeType) -> bool:
    instructions = list(dis.get_instructions(code))
    names = [instruction.opname for instruction in instructions]
    if any(name == "CACHE" or name.startswith("<") for name in names):
        return False
    if sys.version_info >= (3, 11):
        first = next((name for name in names if name not in _PROLOGUE), None)
        if first != "RESUME":
            return False
    ends = [instruction.offset for instruction in instructions[1:]]
    ends.append(len(code.co_code))
    return not any(
        any(code.co_code[instruction.offset + 2 : end])
        for instruction, end in zip(instructions, ends, strict=True)
        if instruction.opname != "EXTENDED_ARG"
    )
