"""A directory for one run at a time, which appears whole or not at all.

Beside a directory NAME lie, while a run works, `.NAME.lock`, locked by its process, and
`.NAME.partial-PID`, as soon as there is something to write. At the end that takes the
place of NAME, which is looked at where the rename is made: whatever has come there
meanwhile and may not be replaced stays, and the run is kept under the next free name.
An earlier run is exchanged for the new one in one step. Where the file system cannot
do that, NAME first becomes `.NAME.replaced-PID`; the next run for NAME renames that
back should it find no NAME. An earlier run is `.NAME.removed-PID` while it is removed.
What killed runs have left is removed by the next, but for `.NAME.state`: what is there
for the next run to go on from is removed when one is in its place.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from gdfq_tf.errors import UserError, option
from gdfq_tf.system.file_system import (
    LockedError,
    exchange,
    locked,
    move_aside,
    rename_to_free_name,
)

# What in or about a path shows that no run wrote it; None if one did.
Foreign = Callable[[Path], str | None]
Write = Callable[[Path], None]


@contextlib.contextmanager
def claim(
    path: Path, *, overwrite: bool, foreign: Foreign
) -> Iterator[OutputDirectory]:
    """A claim on a directory that no other process can have meanwhile.

    What has not been published at the end of the block is removed.

    Args:
      path: of the directory.
      overwrite: whether an earlier run may be replaced.
      foreign: what in or about a path shows that it is none.

    Raises:
      UserError: something is there that may not be replaced, another process has the
        claim, or the directory could not be made.
    """
    output = OutputDirectory(path, overwrite=overwrite, foreign=foreign)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_parents(output.path))
        try:
            descriptor = stack.enter_context(locked(output.lock))
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        except LockedError as error:
            raise UserError(
                f"output directory {path} is being written by process "
                f"{_content(output.lock)}; wait for it or pass another "
                f"{option('output_dir')}"
            ) from error
        except OSError as error:
            raise _not_writable(path, output.path.parent, error) from error
        output.recover()
        output.check()
        stack.callback(output.remove_partial)
        yield output


class OutputDirectory:
    """See `claim`.

    Attributes:
      path: the directory, links followed, as a link itself cannot be replaced.
      lock: the file that is locked meanwhile.
      partial: where its content is written before it appears.
      removed: where an earlier run is while it is removed.
      state: a directory for what a run goes on from if it is killed.
    """

    def __init__(self, path: Path, *, overwrite: bool, foreign: Foreign) -> None:
        """Takes what `claim` does."""
        self.path = path.expanduser().resolve()
        self.lock = self._beside("lock")
        self.partial = self._beside(f"partial-{os.getpid()}")
        self.removed = self._beside(f"removed-{os.getpid()}")
        self.state = self._beside("state")
        self._replaced = self._beside(f"replaced-{os.getpid()}")
        self._overwrite = overwrite
        self._foreign = foreign

    def save_early(self, write: Write) -> None:
        """Has something written that a crash should not take.

        Failure, as on a full disk, is a warning: the work goes on.
        """
        try:
            self.partial.mkdir(exist_ok=True)
            write(self.partial)
        except OSError as error:
            self.remove_partial()
            warnings.warn(
                f"nothing can be saved in {self.partial} before the run ends "
                f"({error.strerror or error}): a crash would take it",
                stacklevel=2,
            )

    def publish(self, write: Write, fallbacks: Sequence[Path] = ()) -> None:
        """Has the directory written and puts it in its place.

        Args:
          write: fills a directory with all that belongs there; what was saved early
            may be there already.
          fallbacks: directories in which a new one is made if that cannot be written;
            the first that can be is taken.

        Raises:
          UserError: something has come to its place that may not be replaced, or the
            file system refused. The message says where the content is instead.
        """
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            write(self.partial)
            _sync(self.partial)
            self._put_in_place()
            shutil.rmtree(self.state, ignore_errors=True)
        except OSError as error:
            self.remove_partial()
            self._fall_back(write, fallbacks, error)

    def remove_partial(self) -> None:
        """Removes what has been written and not been published."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def recover(self) -> None:
        """Puts back or removes what killed runs have left."""
        pattern = re.compile(
            rf"\.{re.escape(self.path.name)}\.(partial|removed|replaced)-\d+"
        )
        left = [p for p in self.path.parent.iterdir() if pattern.fullmatch(p.name)]
        left.sort(key=lambda path: path.lstat().st_mtime)
        replaced = [path for path in left if ".replaced-" in path.name]
        if replaced and not os.path.lexists(self.path):
            newest = replaced.pop()
            left.remove(newest)
            rename_to_free_name(newest, self.path)
            warnings.warn(
                f"{self.path} is back: a run was killed while it replaced it",
                stacklevel=2,
            )
        for path in left:
            if path in replaced and (reason := self._foreign(path)):
                warnings.warn(
                    f"a killed run has left {path}, which is no run's ({reason}): "
                    "move or remove it",
                    stacklevel=2,
                )
            else:
                shutil.rmtree(path, ignore_errors=True)

    def check(self) -> None:
        """Refuses what is in its place and may not be replaced.

        Raises:
          UserError: there is such a thing.
        """
        if not os.path.lexists(self.path):
            return
        if not self._overwrite:
            raise UserError(
                f"output directory {self.path} exists; pass "
                f"{option('overwrite', True)} to replace it or another "
                f"{option('output_dir')}"
            )
        if reason := self._foreign(self.path):
            raise UserError(
                f"{self.path} is not a directory of an earlier run ({reason}), so it "
                f"is not overwritten; pass another {option('output_dir')}"
            )

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{suffix}")

    def _put_in_place(self) -> None:
        try:
            self.check()
            if os.path.lexists(self.path):
                self._replace()
            else:
                rename_to_free_name(self.partial, self.path)
        except (UserError, FileExistsError) as error:
            kept = move_aside(self.partial, self.path)
            raise UserError(
                f"something has come to {self.path} while the run worked, which is not "
                f"replaced; the finished run is kept in {kept}"
            ) from error

    def _replace(self) -> None:
        """Takes the place of an earlier run.

        What it is has been looked at, but something else may have come a moment ago.

        Raises:
          FileExistsError: it has; it is where it was.
        """
        try:
            exchange(self.partial, self.path)
        except NotImplementedError:
            self._replace_in_two_steps()
            return
        if self._foreign(self.partial):
            exchange(self.partial, self.path)
            raise FileExistsError
        self._remove(self.partial)

    def _replace_in_two_steps(self) -> None:
        self.path.rename(self._replaced)
        try:
            if self._foreign(self._replaced):
                raise FileExistsError
            rename_to_free_name(self.partial, self.path)
        except BaseException:
            try:
                rename_to_free_name(self._replaced, self.path)
            except FileExistsError:
                move_aside(self._replaced, self.path)
            raise
        self._remove(self._replaced)

    def _remove(self, earlier: Path) -> None:
        """Removes an earlier run; half of it must look like neither run."""
        with contextlib.suppress(OSError):
            earlier.rename(self.removed)
        shutil.rmtree(self.removed, ignore_errors=True)

    def _fall_back(
        self, write: Write, fallbacks: Sequence[Path], error: OSError
    ) -> NoReturn:
        refused = (
            f"output directory {self.path} cannot be written: {error.strerror or error}"
        )
        for fallback in fallbacks:
            with contextlib.suppress(OSError):
                kept = Path(tempfile.mkdtemp(prefix=f"{self.path.name}-", dir=fallback))
                try:
                    write(kept)
                except OSError:
                    shutil.rmtree(kept, ignore_errors=True)
                    raise
                raise UserError(
                    f"{refused}; the finished run is kept in {kept}: move it to where "
                    "there is room"
                ) from error
        others = "".join(f", nor can {fallback}" for fallback in fallbacks)
        raise UserError(
            f"{refused}{others}; check the disk and the permissions and run again"
        ) from error


@contextlib.contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Makes the directories above a path; removes them if they end empty."""
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, path.parent, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()


def _not_writable(path: Path, parent: Path, error: OSError) -> UserError:
    while not parent.exists():
        parent = parent.parent
    return UserError(
        f"output directory {path} cannot be made: {parent} is not a writable directory "
        f"with file locks ({error.strerror}); pass another {option('output_dir')}"
    )


def _content(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return "?"


def _sync(directory: Path) -> None:
    """Waits until the files of a directory are on the disk.

    Some file systems find only then that they are full.
    """
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
