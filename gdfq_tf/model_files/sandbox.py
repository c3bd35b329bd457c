"""Takes rights away from the process that reads files of strangers, for good.

What a platform lacks is left out: limits are of POSIX, access to files and the network
is taken by Landlock (Linux 5.13 and later).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_SET_NO_NEW_PRIVS = 38
# Rights over files, and over TCP and other processes, by the version that knew them.
_FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
_NETWORK_RIGHTS, _NETWORK_VERSION = 0x3, 4
_SCOPES, _SCOPES_VERSION = 0x3, 6


def limit_resources(extra_bytes: int, seconds: int) -> None:
    """Bounds what this process may take from here on.

    Args:
      extra_bytes: address space beyond what it has.
      seconds: processor time beyond what it used.
    """
    try:
        import resource
    except ImportError:  # no POSIX
        return
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    limits = {
        resource.RLIMIT_AS: _address_space() + extra_bytes,
        resource.RLIMIT_CPU: int(used) + seconds,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        with contextlib.suppress(OSError, ValueError):  # some systems know no such one
            resource.setrlimit(limit, (value, value))


def _address_space() -> int:
    """Bytes that this process has mapped."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return 2**32  # not on Linux
    return pages * os.sysconf("SC_PAGE_SIZE")


def forbid_files(readable: Path | None = None) -> bool:
    """Lets this process open no file any more; what is open stays open.

    Args:
      readable: a directory whose files may be read all the same.

    Returns:
      Whether the platform could do that.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: object) -> int:
        return libc.syscall(ctypes.c_long(number), *arguments)

    version = call(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < 1:
        return False
    rights = _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]
    attributes = [rights]
    if version >= _NETWORK_VERSION:
        attributes.append(_NETWORK_RIGHTS)
    if version >= _SCOPES_VERSION:
        attributes.append(_SCOPES)
    ruleset_attributes = (ctypes.c_uint64 * len(attributes))(*attributes)
    size = ctypes.c_size_t(ctypes.sizeof(ruleset_attributes))
    ruleset = call(_CREATE_RULESET, ctypes.byref(ruleset_attributes), size, 0)
    if ruleset < 0:
        return False
    try:
        if readable is not None and not _allow_reading(call, ruleset, readable):
            return False
        if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return False
        return call(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def _allow_reading(call: Callable[..., int], ruleset: int, directory: Path) -> bool:
    parent = os.open(directory, os.O_PATH)
    try:
        rule = _PathBeneath(_READ_FILE | _READ_DIR, parent)
        return call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0) == 0
    finally:
        os.close(parent)
