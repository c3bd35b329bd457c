"""Locks, and renames that lose nothing; the standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# linux/fs.h
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# Of kernels and file systems that do not know a flag.
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


class LockedError(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """A file that no other process can lock meanwhile; yields its descriptor.

    It is empty or left over, and open to read and write.
    The lock ends with the process, however that ends. The file is removed at the end of
    the block, unless it was renamed; that of a killed process is taken over.

    Raises:
      LockedError: another process holds it.
      OSError: the file system refused; not all of them have locks.
    """
    descriptor = _open_locked(path, os.O_RDWR | os.O_CREAT)
    try:
        yield descriptor
    finally:
        if _is_at(descriptor, path):
            path.unlink()
        os.close(descriptor)


def lock_directory(path: Path) -> int:
    """Locks a directory that exists, itself and not through a link; it stays.

    Returns a descriptor: the lock ends when it is closed here and in every process
    forked meanwhile.

    Raises:
      LockedError: another process holds it.
      OSError: the file system refused, or there is no directory.
    """
    return _open_locked(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _open_locked(path: Path, flags: int) -> int:
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LockedError from None
        except BaseException:
            os.close(descriptor)
            raise
        # Its last holder may have removed or renamed it before it could be locked.
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def rename_to_free_name(source: Path, target: Path) -> None:
    """Renames a file or directory, replacing nothing.

    Where RENAME_NOREPLACE is unknown, files are linked and unlinked, and a directory
    may take the place of an empty one.

    Raises:
      FileExistsError: something is at `target`.
      OSError: the file system refused.
    """
    try:
        _renameat2(source, target, _RENAME_NOREPLACE)
    except NotImplementedError:
        if source.is_dir():
            try:
                source.rename(target)
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.ENOTDIR}:
                    raise FileExistsError(
                        errno.EEXIST, os.strerror(errno.EEXIST), str(target)
                    ) from error
                raise
        else:
            os.link(source, target)
            source.unlink()


def exchange(first: Path, second: Path) -> None:
    """Swaps what two names stand for; at no moment is either missing.

    Raises:
      NotImplementedError: this system or file system cannot.
      OSError: it refused.
    """
    _renameat2(first, second, _RENAME_EXCHANGE)


def next_free_name(path: Path) -> Iterator[Path]:
    """`path`-1, `path`-2 and so on, those left out at which something is."""
    count = 0
    while True:
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")
        if not os.path.lexists(candidate):
            yield candidate


def move_aside(source: Path, path: Path) -> Path:
    """Renames `source` to the first free name behind `path`, and returns that.

    Raises:
      OSError: the file system refused.
    """
    for candidate in next_free_name(path):
        with contextlib.suppress(FileExistsError):
            rename_to_free_name(source, candidate)
            return candidate
    raise AssertionError("names do not end")


def _renameat2(source: Path, target: Path, flag: int) -> None:
    rename = _libc_renameat2()
    if rename is None:
        raise NotImplementedError
    at_fdcwd = -100
    if rename(at_fdcwd, os.fsencode(source), at_fdcwd, os.fsencode(target), flag):
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            raise NotImplementedError
        raise OSError(number, os.strerror(number), str(source), None, str(target))


@functools.cache
def _libc_renameat2() -> Callable[..., int] | None:
    """Of Linux, from glibc 2.28 on; elsewhere None."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        path, number = ctypes.c_char_p, ctypes.c_int
        rename.argtypes = (number, path, number, path, ctypes.c_uint)
    return rename
