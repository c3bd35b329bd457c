"""Checkpoints that keep the record of a stage beside what it made.

Losses and seconds of what was done before a run was killed are thus those of the very
steps that it goes on from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from gdfq_tf.checkpoints import (
    Arrays,
    Checkpoint,
    Checkpoints,
    as_array,
    from_array,
    part_of,
    together,
)
from gdfq_tf.recording import RecordingProgress, StageRecord


@dataclasses.dataclass(frozen=True)
class RecordedCheckpoints:
    """Checkpoints of a run that is recorded.

    Attributes:
      own: keep arrays.
      progress: records the run, and takes up what earlier processes have recorded of
        the stages that it goes on from.
    """

    own: Checkpoints
    progress: RecordingProgress

    def of(self, stage: str, **facts: object) -> _RecordedCheckpoint:
        """See `Checkpoints.of`; its record is that of all stages from here on."""
        own = self.own.of(stage, **facts)
        return _RecordedCheckpoint(own, self.progress, self.progress.mark())


@dataclasses.dataclass(frozen=True)
class _RecordedCheckpoint:
    own: Checkpoint
    progress: RecordingProgress
    mark: int

    def finished(self) -> Arrays | None:
        """See `Checkpoint.finished`."""
        return self._taken_up(self.own.finished(), finished=True)

    def unfinished(self) -> Arrays | None:
        """See `Checkpoint.unfinished`."""
        return self._taken_up(self.own.unfinished(), finished=False)

    def is_due(self) -> bool:
        """See `Checkpoint.is_due`."""
        return self.own.is_due()

    def keep(self, state: Callable[[], Arrays]) -> None:
        """See `Checkpoint.keep`."""
        self.own.keep(lambda: self._with_record(state()))

    def finish(self, state: Arrays) -> None:
        """See `Checkpoint.finish`."""
        self.own.finish(self._with_record(state))

    def _with_record(self, state: Arrays) -> Arrays:
        stages = list(map(dataclasses.asdict, self.progress.since(self.mark)))
        return together(state=state, record={"stages": as_array(stages)})

    def _taken_up(self, kept: Arrays | None, *, finished: bool) -> Arrays | None:
        if kept is None:
            return None
        stages = from_array(part_of(kept, "record")["stages"])
        self.progress.take_up(map(StageRecord.of_dict, stages), finished=finished)
        return part_of(kept, "state")
