"""Python functions that model files hold as bytecode: whether they can run here.

Bytecode is of one Python version, which no file tells, and another version that runs
it may crash or compute something else.
"""

from __future__ import annotations

import builtins
import dis
import marshal
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType

# What may stand before the first instruction of a function's own.
_PROLOGUE = ("COPY_FREE_VARS", "MAKE_CELL", "POP_TOP", "RETURN_GENERATOR")


def is_of_this_python(bytecode: bytes) -> bool:
    """Whether a marshalled function is as this Python would have written it.

    Versions differ in what they write of a function, in the numbers of their
    instructions and, from 3.11 on, in how much space is left empty behind each. What
    3.10 and older wrote tells nothing more.
    """
    try:
        code = marshal.loads(bytecode)
        return isinstance(code, CodeType) and all(
            # Python clears, in what it gives back, the space that it leaves empty.
            inner.co_code in bytecode and _has_instructions_of_this_python(inner)
            for inner in _codes(code)
        )
    except (EOFError, IndexError, KeyError, TypeError, ValueError):
        return False  # of marshal and dis, on what another version wrote


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


def _has_instructions_of_this_python(code: CodeType) -> bool:
    names = [instruction.opname for instruction in dis.get_instructions(code)]
    if any(name == "CACHE" or name.startswith("<") for name in names):
        return False
    first = next((name for name in names if name not in _PROLOGUE), None)
    return first == "RESUME" or sys.version_info < (3, 11)
