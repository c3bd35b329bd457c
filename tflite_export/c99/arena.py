"""Where tensors lie in memory: as little of it as a plan made ahead can do with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

ALIGNMENT = 4  # bytes


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Memory that is needed for a while.

    Attributes:
      name: of the tensor, or what else it is for.
      size: bytes.
      first: the step of the program that writes it.
      last: the last step that reads it.
    """

    name: str
    size: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether both are needed at one time."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class Plan:
    """Places of all buffers.

    Attributes:
      offsets: name -> bytes from the beginning, a multiple of `ALIGNMENT`.
      size: bytes of all.
      lower_bound: what no plan can go below: the most that is needed at one time.
    """

    offsets: Mapping[str, int]
    size: int
    lower_bound: int


def plan_arena(buffers: Sequence[Buffer]) -> Plan:
    """The smallest of some plans that place one buffer after the other.

    Each goes to the lowest place that no buffer of its time has. Orders tried: by size,
    by how long buffers are needed, by both, by time.
    """
    rounded = [
        dataclasses.replace(x, size=-(-x.size // ALIGNMENT) * ALIGNMENT)
        for x in buffers
    ]
    orders = (
        lambda x: (-x.size, x.first),
        lambda x: (x.first - x.last, -x.size),
        lambda x: (-x.size * (x.last - x.first + 1), x.first),
        lambda x: (x.first, -x.size),
        lambda x: (-x.last, -x.size),
    )
    plans = [_placed(sorted(rounded, key=order)) for order in orders]
    size, offsets = min(plans, key=lambda plan: plan[0])
    steps = {x.first for x in rounded}
    bound = max(
        (sum(x.size for x in rounded if x.first <= i <= x.last) for i in steps),
        default=0,
    )
    return Plan(offsets, size, bound)


def _placed(buffers: Sequence[Buffer]) -> tuple[int, dict[str, int]]:
    offsets: dict[str, int] = {}
    for position, buffer in enumerate(buffers):
        taken = sorted(
            (offsets[x.name], offsets[x.name] + x.size)
            for x in buffers[:position]
            if x.meets(buffer)
        )
        place = 0
        for start, end in taken:
            if start - place >= buffer.size:
                break
            place = max(place, end)
        offsets[buffer.name] = place
    size = max((offsets[x.name] + x.size for x in buffers), default=0)
    return size, offsets
