"""How much memory this process may still take, and refusing what takes more."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from gdfq_tf.errors import UserError

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def require_memory(num_bytes: float, what: str, advice: str) -> None:
    """Refuses work that memory does not hold, before it is begun.

    Args:
      num_bytes: that it takes beside what the process has already.
      what: the work, as the beginning of a sentence: "reading it".
      advice: what to do instead.

    Raises:
      UserError: less is available.
    """
    available = available_memory()
    if num_bytes > available:
        raise UserError(
            f"{what} takes about {gibibytes(num_bytes)} of memory, and "
            f"{gibibytes(available)} are available; {advice}"
        )


def give_back() -> None:
    """Gives memory that nothing uses any more back to the system.

    Graphs of TensorFlow and of the converter, with copies of all weights, refer to
    themselves, so that they stay until Python looks for such circles; and the C library
    keeps what it once had.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):  # a library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def gibibytes(num_bytes: float) -> str:
    """For example "1.5 GiB"."""
    return f"{num_bytes / 2**30:,.1f} GiB"


def available_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Bytes that this process may still take without swapping.

    The least of what the machine, its control groups (containers, batch systems) and
    its own limit leave.

    Args:
      proc: where the kernel shows machine and process; systems that do not are asked
        for their whole memory alone.
      cgroups: where it shows control groups.
    """
    return max(0, min(_left(proc, cgroups)))


def _left(proc: Path, cgroups: Path) -> Iterator[int]:
    machine = _kibibytes(proc / "meminfo", "MemAvailable")
    if machine is None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield machine
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield limit - (_kibibytes(proc / "self/status", "VmSize") or 0)
    for hierarchy, path in _groups(proc / "self/cgroup"):
        v2 = hierarchy == ""
        limit_name = "memory.max" if v2 else "memory.limit_in_bytes"
        usage_name = "memory.current" if v2 else "memory.usage_in_bytes"
        root = cgroups if v2 else cgroups / "memory"
        # A container sees its own group as the root, under whatever path it is told.
        for group in {root, *(root / parent for parent in _upwards(path))}:
            group_limit, usage = (_bytes(group / x) for x in (limit_name, usage_name))
            if group_limit is not None and usage is not None:
                yield group_limit - usage + _reclaimable(group)


def _groups(path: Path) -> Iterator[tuple[str, str]]:
    """("", path) of control groups v2, ("memory", path) of v1."""
    for line in _read(path).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            yield ("memory" if controllers else ""), group.lstrip("/")


def _upwards(path: str) -> Iterator[str]:
    parts = Path(path).parts
    for length in range(1, len(parts) + 1):
        yield str(Path(*parts[:length]))


def _reclaimable(group: Path) -> int:
    """Bytes of cached files, which count as used and make way."""
    found = re.search(
        r"^(?:total_)?inactive_file (\d+)$", _read(group / "memory.stat"), re.MULTILINE
    )
    return int(found[1]) if found else 0


def _bytes(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max": none


def _kibibytes(path: Path, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _read(path), re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
