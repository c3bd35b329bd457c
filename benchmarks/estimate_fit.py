"""The slopes of the estimate without data, and what they say of networks left out.

    python -m benchmarks.estimate_fit --results=docs/results/own_networks.json,...

Reads rows of `benchmarks.accuracy`: the agreement on synthetic images beside the loss
on real ones. Slopes are chosen on all networks, and on all but each one in turn, which
then tells how good they are where they were not chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks import commands
from gdfq_tf.config import DEFAULT_RECIPE
from gdfq_tf.quantization.estimation import UNSEEN, points_lost

Row = Mapping[str, Any]

_SLOPES = np.round(np.arange(0.02, 1.001, 0.01), 2)


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Points of accuracy lost per point of synthetic disagreement.

    Attributes:
      usual: with the least mean absolute error.
      worst: the least one that no run loses more than.
    """

    usual: float
    worst: float


@dataclasses.dataclass(frozen=True, eq=False)
class LeftOut:
    """The estimate of a network that its slopes were not chosen on.

    Attributes:
      network: its name.
      slopes: chosen on all others.
      errors: absolute errors of the estimated loss, points, of each run.
      error_at_8_bits: the median of those at w8a8.
      num_covered: runs that lose no more than the worst that is stated.
    """

    network: str
    slopes: Slopes
    errors: np.ndarray
    error_at_8_bits: float
    num_covered: int


def runs_of_default(rows: Sequence[Row]) -> list[Row]:
    """The rows of the default recipe, which state an estimate."""
    return [row for row in rows if row["recipe"] == DEFAULT_RECIPE]


def estimated(row: Row, slope: float, *, at_worst: bool = False) -> float:
    """Points of top-1 that a run would be said to lose."""
    found = row["estimate"]
    unseen = UNSEEN / found["num_images"] if at_worst else 0.0
    chance = 1 / row["num_classes"]
    return points_lost(1 - found["agreement"] + unseen, slope, chance)


def lost(row: Row) -> float:
    """Points of top-1 that it loses on labelled images."""
    return float(100 * (row["float_top1"] - row["top1"]))


def best_slopes(runs: Sequence[Row]) -> Slopes:
    """Those chosen on some runs."""
    losses = np.array([lost(row) for row in runs])

    def said(slope: float, *, at_worst: bool) -> np.ndarray:
        return np.array([estimated(row, slope, at_worst=at_worst) for row in runs])

    errors = [np.abs(said(slope, at_worst=False) - losses).mean() for slope in _SLOPES]
    covering = [
        slope for slope in _SLOPES if (said(slope, at_worst=True) >= losses).all()
    ]
    usual = float(_SLOPES[int(np.argmin(errors))])
    return Slopes(usual, max(usual, float(covering[0] if covering else _SLOPES[-1])))


def left_out(rows: Sequence[Row]) -> list[LeftOut]:
    """Each network in turn, in the order of the rows."""
    runs = runs_of_default(rows)
    found = []
    for network in dict.fromkeys(row["model"] for row in runs):
        own = [row for row in runs if row["model"] == network]
        slopes = best_slopes([row for row in runs if row["model"] != network])
        errors = np.array([abs(estimated(x, slopes.usual) - lost(x)) for x in own])
        at_8_bits = [row["bits"] == "w8a8" for row in own]
        covered = [estimated(x, slopes.worst, at_worst=True) >= lost(x) for x in own]
        found.append(
            LeftOut(
                network,
                slopes,
                errors,
                float(np.median(errors[at_8_bits])),
                sum(covered),
            )
        )
    return found


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.texts("results", [], "JSON files of benchmarks.accuracy.")
    return defined


def main(values: flags.FlagValues) -> None:
    """Prints the slopes of all networks, and of all but each."""
    rows = [row for path in values.results for row in commands.read_rows(Path(path))]
    print(best_slopes(runs_of_default(rows)))
    for one in left_out(rows):
        print(
            f"{one.network}: {one.slopes}, median error {np.median(one.errors):.2f}, "
            f"at w8a8 {one.error_at_8_bits:.2f}, {one.num_covered} of "
            f"{len(one.errors)} within the worst"
        )


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="results")
