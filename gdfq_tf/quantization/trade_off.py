"""What 4 bits in each layer save and cost, and the best layers under a limit.

Costs of layers are taken to add up: the divergence that each kernel causes alone, the
bytes that it saves, and the time that LiteRT takes longer for it. Which layers to keep
at 8 bits is then an integer linear program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from gdfq_tf.config import Limits
from tflite_export.benchmark import times_as_long
from tflite_export.convert import convert_network
from tflite_export.integer_network import IntegerNetwork
from tflite_export.operator_forms import at_8_bits

_NUM_POINTS = 9
# Costs only nearly add up: where a limit is missed, they are set right by what was
# measured, and the best is found anew.
_NUM_TRIES = 5


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What fewer bits in one kernel mean.

    Attributes:
      name: of the layer.
      divergence: that they cause, in nats.
      num_bytes: that they save.
      latency: that they add, in units of the whole network's at 8 bits.
    """

    name: str
    divergence: float
    num_bytes: int
    latency: float


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Layers that stay at 8 bits, and what comes of it.

    Attributes:
      layers_at_8_bits: besides those that always stay so.
      num_bytes: of the file.
      latency_ratio: how many times as long LiteRT takes as with 8 bits in all kernels.
      divergence: that the other kernels cause, in nats.
    """

    layers_at_8_bits: frozenset[str]
    num_bytes: int
    latency_ratio: float
    divergence: float

    def within(self, limits: Limits) -> bool:
        """Whether bytes and latency are."""
        max_bytes, ratio = limits.max_bytes, limits.max_latency_ratio
        return (max_bytes is None or self.num_bytes <= max_bytes) and (
            ratio is None or self.latency_ratio <= ratio
        )


@dataclasses.dataclass(frozen=True)
class TradeOff:
    """All that layers at 8 bits can buy.

    Attributes:
      num_bytes, latency_ratio: of the file without any, see `Assignment`.
      costs: of the layers that have fewer bits there.
    """

    num_bytes: int
    latency_ratio: float
    costs: tuple[LayerCost, ...]

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name, for `of_arrays`."""
        return {
            "num_bytes": np.array(self.num_bytes),
            "latency_ratio": np.array(self.latency_ratio),
            "names": np.array([cost.name for cost in self.costs], np.str_),
            "divergences": np.array([cost.divergence for cost in self.costs]),
            "bytes": np.array([cost.num_bytes for cost in self.costs], np.int64),
            "latencies": np.array([cost.latency for cost in self.costs]),
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> TradeOff:
        """What `arrays` gave."""
        columns = ("names", "divergences", "bytes", "latencies")
        rows = zip(*(arrays[name].tolist() for name in columns), strict=True)
        return cls(
            arrays["num_bytes"].item(),
            arrays["latency_ratio"].item(),
            tuple(LayerCost(*row) for row in rows),
        )

    def assignment(self, names: Collection[str]) -> Assignment:
        """What comes of some layers at 8 bits."""
        kept = [cost for cost in self.costs if cost.name in names]
        others = [cost.divergence for cost in self.costs if cost.name not in names]
        return Assignment(
            frozenset(names),
            self.num_bytes + sum(cost.num_bytes for cost in kept),
            self.latency_ratio - sum(cost.latency for cost in kept),
            sum(others),
        )

    def ranked(self) -> list[str]:
        """Layers by the divergence that each of their bytes saves, the most first."""

        def order(cost: LayerCost) -> tuple[float, str]:
            return -cost.divergence / max(1, cost.num_bytes), cost.name

        return [cost.name for cost in sorted(self.costs, key=order)]

    def best(self, limits: Limits) -> Assignment | None:
        """That of least divergence within bytes and latency; None: there is none."""
        count = len(self.costs)
        if not count:
            return self.assignment(())
        num_bytes = np.array([cost.num_bytes for cost in self.costs], np.float64)
        latency = np.array([cost.latency for cost in self.costs])
        rows, most = [], []
        if limits.max_bytes is not None:
            # In units of the largest layer's, as the solver likes numbers near 1.
            unit = max(1.0, num_bytes.max())
            rows.append(num_bytes / unit)
            most.append((limits.max_bytes - self.num_bytes) / unit)
        if limits.max_latency_ratio is not None:
            rows.append(-latency)
            most.append(limits.max_latency_ratio - self.latency_ratio)
        divergence = np.array([cost.divergence for cost in self.costs])
        # Noise may make a divergence negative; the unit is the largest one's.
        gain = np.maximum(divergence, 0) / max(divergence.max(), 1e-30)
        found = milp(
            # Among equals, the fewest layers.
            -gain + 1e-9,
            constraints=LinearConstraint(rows, ub=most) if rows else (),
            bounds=Bounds(0, 1),
            integrality=np.ones(count),
        )
        if found.x is None:
            return None
        chosen = np.round(found.x).astype(bool)
        names = {x.name for x, keep in zip(self.costs, chosen, strict=True) if keep}
        return self.assignment(names)

    def curve(self, num_points: int = _NUM_POINTS) -> tuple[Assignment, ...]:
        """The best assignments under limits of bytes, evenly spaced, smallest first."""
        saved = sum(cost.num_bytes for cost in self.costs)
        limits = np.linspace(self.num_bytes, self.num_bytes + saved, num_points)
        found = (self.best(Limits(max_bytes=int(np.ceil(x)))) for x in limits)
        return tuple(dict.fromkeys(x for x in found if x is not None))

    def rows(self) -> list[dict[str, Any]]:
        """The curve, ready for JSON."""
        return [
            {**dataclasses.asdict(x), "layers_at_8_bits": sorted(x.layers_at_8_bits)}
            for x in self.curve()
        ]


def measure_trade_off(
    network: IntegerNetwork,
    divergences: Mapping[str, float],
    multiply_adds: Mapping[str, int],
    slow: Collection[str],
) -> TradeOff:
    """What fewer bits save and cost, from files that are as large and as fast.

    Args:
      network: with as few bits as were asked for.
      divergences: layers that have them -> see `LayerCost`.
      multiply_adds: of each layer.
      slow: layers whose kernels LiteRT takes longer for when they have 4 bits; what
        the file takes longer is theirs, by multiply-adds.
    """
    small = convert_network(network)
    large = convert_network(at_8_bits(network, divergences))
    ratio = times_as_long(small, large)
    blamed = {name: multiply_adds[name] for name in divergences if name in slow}
    sizes = {op.name: op.kernel.values.size for op in network.ops if op.kernel}
    saved = (len(large) - len(small)) / max(1, sum(sizes[x] for x in divergences))
    costs = tuple(
        LayerCost(
            name,
            divergence,
            round(saved * sizes[name]),
            (ratio - 1) * blamed.get(name, 0) / max(1, sum(blamed.values())),
        )
        for name, divergence in divergences.items()
    )
    return TradeOff(len(small), ratio, costs)


def best_measured(
    trade_off: TradeOff, network: IntegerNetwork, limits: Limits
) -> Assignment:
    """The best assignment whose file, as converted and timed, is within limits.

    Where none is found: no layer at 8 bits if bytes have a limit, else all that cost
    time.

    Args:
      trade_off: of the network.
      network: with as few bits as were asked for.
      limits: of bytes and latency.
    """
    everything = [cost.name for cost in trade_off.costs]
    reference = convert_network(at_8_bits(network, everything))
    corrected = trade_off
    for _ in range(_NUM_TRIES):
        expected = corrected.best(limits)
        if expected is None:
            break
        file = convert_network(at_8_bits(network, expected.layers_at_8_bits))
        found = dataclasses.replace(expected, num_bytes=len(file))
        if limits.max_latency_ratio is not None:
            ratio = times_as_long(file, reference)
            found = dataclasses.replace(found, latency_ratio=ratio)
        if found.within(limits):
            return found
        corrected = dataclasses.replace(
            corrected,
            num_bytes=corrected.num_bytes + found.num_bytes - expected.num_bytes,
            latency_ratio=corrected.latency_ratio
            + found.latency_ratio
            - expected.latency_ratio,
        )
    slow = [cost.name for cost in trade_off.costs if cost.latency > 0]
    return trade_off.assignment(slow if limits.max_bytes is None else ())
