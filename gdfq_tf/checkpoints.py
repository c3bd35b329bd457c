"""What stages keep of their work, so that a run that was killed goes on where it was.

A stage asks `Checkpoints` for its own `Checkpoint`, naming all that its outcome depends
on besides what is the same for the whole run. Nothing else in the pipeline knows of
files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import time
import warnings
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from gdfq_tf.distribution.replicas import gathered
from gdfq_tf.progress import Advance
from gdfq_tf.system.state_file import Arrays, DamagedError, read_state, write_state

if TYPE_CHECKING:
    import tensorflow as tf

# Work that may be lost, in seconds, and the largest share of the time that saving may
# take besides.
_INTERVAL = 30.0
_LARGEST_SHARE = 0.05
_FACTS = "facts.json"


class Checkpoint(Protocol):
    """One stage's: how far it is, and in the end what came out."""

    def finished(self) -> Arrays | None:
        """What came out in an earlier process; None: it has not ended."""

    def unfinished(self) -> Arrays | None:
        """How far an earlier process came; None: it ended, or was not begun."""

    def is_due(self) -> bool:
        """Whether the last saving was long enough ago."""

    def keep(self, state: Callable[[], Arrays]) -> None:
        """Saves how far the stage is, if that is due."""

    def finish(self, state: Arrays) -> None:
        """Saves what came out, in place of how far it was."""


class Checkpoints(Protocol):
    """Those of all stages of a run."""

    def of(self, stage: str, **facts: object) -> Checkpoint:
        """That of a stage.

        Args:
          stage: its name.
          facts: all that its outcome depends on besides what holds for the whole run:
            dataclasses, and what JSON has.
        """


class NullCheckpoints:
    """Keeps nothing; of every stage too."""

    def of(self, stage: str, **facts: object) -> NullCheckpoints:
        """See `Checkpoints.of`."""
        return self

    def finished(self) -> None:
        """See `Checkpoint.finished`."""

    def unfinished(self) -> None:
        """See `Checkpoint.unfinished`."""

    def is_due(self) -> bool:
        """See `Checkpoint.is_due`."""
        return False

    def keep(self, state: Callable[[], Arrays]) -> None:
        """See `Checkpoint.keep`."""

    def finish(self, state: Arrays) -> None:
        """See `Checkpoint.finish`."""


NO_CHECKPOINTS = NullCheckpoints()


def once(checkpoint: Checkpoint, make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives, or gave in an earlier process."""
    state = checkpoint.finished()
    if state is None:
        state = make()
        checkpoint.finish(state)
    return state


def together(**parts: Arrays) -> dict[str, Any]:
    """Arrays of several parts as those of one state; `part_of` takes them apart."""
    return {
        f"{part}/{name}": array
        for part, arrays in parts.items()
        for name, array in arrays.items()
    }


def part_of(state: Arrays, part: str) -> dict[str, Any]:
    """One part of what `together` gave."""
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): array
        for name, array in state.items()
        if name.startswith(prefix)
    }


def as_array(value: object) -> npt.NDArray[np.uint8]:
    """What JSON has, as an array of a state; `from_array` gives it back."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def from_array(array: npt.NDArray[np.uint8]) -> Any:  # noqa: ANN401 - what JSON has
    """What `as_array` took."""
    return json.loads(array.tobytes())


def values_of(variables: Iterable[tf.Variable]) -> dict[str, Any]:
    """Values of variables, by their places."""
    return {str(i): variable.numpy() for i, variable in enumerate(variables)}


def set_values(variables: Iterable[tf.Variable], values: Arrays) -> None:
    """Gives variables the values that `values_of` took from the same ones."""
    for i, variable in enumerate(variables):
        variable.assign(values[str(i)])


def resumed_steps(
    checkpoint: Checkpoint,
    num_steps: int,
    advance: Advance,
    variables: Sequence[tf.Variable] = (),
    made: MutableMapping[str, Any] | None = None,
) -> Iterator[int]:
    """The numbers of the steps that a stage has still to do, from 0 on.

    What they change is first set to where an earlier process left it, and kept from
    time to time.

    Args:
      checkpoint: of the stage.
      num_steps: of the stage.
      advance: of the stage; told of the steps that were done.
      variables: that steps change.
      made: what steps leave besides, by name: arrays, or tensors, of which each
        replica may have its part; they are kept as arrays.
    """
    made = {} if made is None else made
    first = 0
    kept = checkpoint.unfinished()
    if kept is not None:
        first = int(kept["steps/done"])
        set_values(variables, part_of(kept, "variables"))
        made.update(part_of(kept, "made"))
        advance(first)
    done = first

    def state() -> Arrays:
        return together(
            steps={"done": np.array(done)},
            variables=values_of(variables),
            made={name: gathered(value) for name, value in made.items()},
        )

    for step in range(first, num_steps):
        yield step
        done = step + 1
        checkpoint.keep(state)


class SavedCheckpoints:
    """Checkpoints in a directory, apart for all that holds for a whole run.

    Each run's are in a folder named by the digest of its facts, beside a file that
    tells them: states of other runs, of a changed model or another seed, are never
    read. Whatever is torn or has been altered is named in a warning and left alone. So
    is a file system that refuses, once: work goes on, and is lost if it is killed.

    Attributes:
      path: the folder of this run.
    """

    def __init__(self, directory: Path, facts: Mapping[str, object]) -> None:
        """Opens, or makes, what is kept of a run.

        Args:
          directory: of the states of all runs to one place.
          facts: all that bytes of the whole run depend on, see `Checkpoints.of`.
        """
        self._directory = directory
        self._facts: dict[str, Any] = json.loads(_as_json(facts))
        self.path = directory / facts_digest(self._facts)
        self._saved_at = time.monotonic()
        self._interval = _INTERVAL
        self._has_warned = False
        self._warn_of_others()

    def of(self, stage: str, **facts: object) -> _SavedCheckpoint:
        """See `Checkpoints.of`."""
        name = re.sub(r"\W+", "-", stage)
        return _SavedCheckpoint(self, self.path / f"{name}-{facts_digest(facts)}.state")

    def stages(self) -> list[str]:
        """Names of the stages that have states, finished or not, oldest first."""
        found = sorted(self.path.glob("*.state"), key=lambda path: path.stat().st_mtime)
        return [path.stem.rpartition("-")[0] for path in found]

    def forget(self) -> None:
        """Removes the states of this run."""
        shutil.rmtree(self.path, ignore_errors=True)

    def is_due(self) -> bool:
        """Whether the last saving was long enough ago."""
        return time.monotonic() - self._saved_at >= self._interval

    def save(self, path: Path, arrays: Arrays, *, finished: bool) -> None:
        """Writes one stage's state."""
        started = time.monotonic()
        try:
            self._make_folder()
            facts = {"file": path.name, "of": path.parent.name, "finished": finished}
            write_state(path, facts, arrays)
        except OSError as error:
            self._warn_once(
                f"how far the run is cannot be saved in {self.path} "
                f"({error.strerror or error}): if it is killed, that is lost"
            )
        self._saved_at = time.monotonic()
        taken = self._saved_at - started
        self._interval = max(_INTERVAL, taken / _LARGEST_SHARE)

    def _make_folder(self) -> None:
        facts = self.path / _FACTS
        if not facts.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            partial = facts.with_name(f"{_FACTS}.partial")
            partial.write_text(json.dumps(self._facts, indent=2) + "\n")
            partial.replace(facts)

    def _warn_once(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(message, stacklevel=2)

    def _warn_of_others(self) -> None:
        """Names what lies there and is not used."""
        if not self._directory.is_dir() or self.path.is_dir():
            return
        for path in sorted(self._directory.iterdir()):
            warnings.warn(
                f"{path} is not used: {self._difference(path)}; it is removed when "
                "this run has ended well",
                stacklevel=3,
            )

    def _difference(self, path: Path) -> str:
        try:
            other = json.loads((path / _FACTS).read_text())
            names = sorted(self._facts.keys() | other.keys())
        except (OSError, ValueError, AttributeError):
            return "it is not what an interrupted run leaves"
        found = [x for x in names if self._facts.get(x) != other.get(x)]
        return f"the interrupted run that left it had another {', '.join(found)}"


class _SavedCheckpoint:
    """See `SavedCheckpoints`."""

    def __init__(self, of: SavedCheckpoints, path: Path) -> None:
        self._of, self._path = of, path

    def finished(self) -> Arrays | None:
        """See `Checkpoint.finished`."""
        return self._read(finished=True)

    def unfinished(self) -> Arrays | None:
        """See `Checkpoint.unfinished`."""
        return self._read(finished=False)

    def is_due(self) -> bool:
        """See `Checkpoint.is_due`."""
        return self._of.is_due()

    def keep(self, state: Callable[[], Arrays]) -> None:
        """See `Checkpoint.keep`.

        A state that is not finite, of a stage about to fail, is no place to go on from.
        """
        if not self.is_due():
            return
        arrays = state()
        if all(map(_is_finite, arrays.values())):
            self._of.save(self._path, arrays, finished=False)

    def finish(self, state: Arrays) -> None:
        """See `Checkpoint.finish`."""
        self._of.save(self._path, state, finished=True)

    def _read(self, *, finished: bool) -> Arrays | None:
        try:
            facts, arrays = read_state(self._path)
            if facts["file"] != self._path.name or facts["of"] != self._of.path.name:
                raise DamagedError("it is another stage's or another run's")
        except FileNotFoundError:
            return None
        except (OSError, DamagedError) as error:
            self._path.unlink(missing_ok=True)
            warnings.warn(
                f"{self._path} is not used: {error}; that stage begins anew",
                stacklevel=2,
            )
            return None
        return arrays if facts["finished"] == finished else None


def is_of_checkpoints(path: Path) -> bool:
    """Whether `SavedCheckpoints` have left what lies in their directory."""
    return (path / _FACTS).is_file()


def _is_finite(value: npt.ArrayLike) -> bool:
    array = np.asarray(value)  # of a tensor too
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def facts_digest(facts: Mapping[str, object]) -> str:
    """The same for the same facts, in 16 hexadecimal digits."""
    return hashlib.sha256(_as_json(facts).encode()).hexdigest()[:16]


def _as_json(facts: Mapping[str, object]) -> str:
    return json.dumps(facts, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever facts are
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)
