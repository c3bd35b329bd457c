"""Checkpoints that keep the record of a stage beside what it made.

Losses and seconds of what was done before a run was killed are thus those of the very
steps that it goes on from.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np

from gdfq_tf.checkpoints import Arrays, Checkpoint, Checkpoints, part_of, together
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
        stages = map(dataclasses.asdict, self.progress.since(self.mark))
        text = json.dumps(list(stages)).encode()
        return together(state=state, record={"stages": np.frombuffer(text, np.uint8)})

    def _taken_up(self, kept: Arrays | None, *, finished: bool) -> Arrays | None:
        if kept is None:
            return None
        text = part_of(kept, "record")["stages"].tobytes()
        stages = [StageRecord.of_dict(fields) for fields in json.loads(text)]
        self.progress.take_up(stages, finished=finished)
        return part_of(kept, "state")
