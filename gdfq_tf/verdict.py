"""The closing words of a run: which file to ship, why, and what to do about bad ones.

Measured accuracy decides where there are labelled images, the estimate elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gdfq_tf.config import PROTOCOLS


@dataclasses.dataclass(frozen=True)
class _Estimated:
    """How one figure that is estimated without labels is judged.

    Attributes:
      loss: what is lost, of the figure.
      limit: the largest loss of a good file.
      broken: the loss from which on a file is of no use.
      words: what is said of a loss beyond the limit.
    """

    loss: Callable[[float], float]
    limit: float
    broken: float
    words: str


# Points of top-1, or of labels, that no way of quantizing costs which works at all.
_BROKEN_LOSS = 25.0
# Key of a row's estimate -> how it is judged.
_ESTIMATED: Mapping[str, _Estimated] = {
    "accuracy_loss": _Estimated(
        lambda points: points,
        3.0,
        _BROKEN_LOSS,
        "about {:.1f} points lost, as estimated",
    ),
    "label_agreement": _Estimated(
        lambda share: 100 - 100 * share,
        3.0,
        _BROKEN_LOSS,
        "{:.1f} % of labels are others than float's",
    ),
    # An error no longer hides behind 8-bit rounding; or is as large as the signal.
    "signal_to_noise_db": _Estimated(
        lambda decibels: -decibels,
        -15.0,
        0.0,
        "its error is {:+.1f} dB beside the signal",
    ),
}
_BROKEN = ": broken, do not ship it"
# A file must be so much smaller to be worth any loss.
_WORTHWHILE_SAVING = 0.1
# Two measurements of one latency ratio may differ so much.
_CLOCK = 1.1
# What takes so many times as long is worth a word; less is as the clock has it.
_SLOW = 1.3

Row = Mapping[str, Any]


def complaints(summary: Mapping[str, Any]) -> dict[str, str]:
    """Titles of a run's quantized files that are not good enough -> what is wrong.

    Args:
      summary: as `summary.json` holds it: float and noise-calibrated rows first.
    """
    reference, noise, *own = summary["models"]
    found = {}
    for row in own:
        beyond = _beyond_limits(row, summary)
        text = complaint(row, reference, noise) or (beyond and beyond[0])
        if text is not None:
            found[row["title"]] = text
    return found


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """Lines for the end of a run.

    Args:
      summary: see `complaints`.
    """
    reference, _, *own = summary["models"]
    bad = complaints(summary)
    good = [row for row in own if row["title"] not in bad]
    lines = [
        f"! {row['title']}: {bad[row['title']]}; {_advice(row, summary)}"
        for row in own
        if row["title"] in bad
    ]
    lines += [line for row in own if (line := _slowness(row, summary)) is not None]
    if not good:
        return [*lines, "ship none of these files as they are"]
    chosen = choose(good)
    return [*lines, f"ship {chosen['file']}: {_reason(chosen, good, reference)}"]


def _slowness(row: Row, summary: Mapping[str, Any]) -> str | None:
    """What is said of a file that LiteRT computes slowly, if it is to run there."""
    times, widths = row.get("times_as_long_as_int8"), row["widths"]
    if times is None or times <= _SLOW or summary["target"] != "litert":
        return None
    if PROTOCOLS[widths["protocol"]].keeps_windows and widths["activation_bits"] < 16:
        return None  # it has no INT4 convolutions
    _, noise, *_ = summary["models"]
    saved = 100 * (1 - row["size_bytes"] / noise["size_bytes"])
    size = f"{abs(saved):.0f} % {'fewer' if saved > 0 else 'more'} bytes"
    if widths["activation_bits"] == 16:
        return (
            f"{row['title']} takes {times:.0f} times as long as int8 in LiteRT here, "
            f"for {size}: XNNPACK has no int16 kernels; take w8a8 where speed counts"
        )
    instead = f"w{widths['weight_bits']}a{widths['activation_bits']}/pointwise"
    return (
        f"{row['title']} takes {times:.1f} times as long as int8 in LiteRT here, for "
        f"{size}: its INT4 convolutions are slow; take {instead} or w8a8 where speed "
        "counts"
    )


def complaint(row: Row, reference: Row, noise: Row) -> str | None:
    """What is wrong with a file, or None.

    Args:
      row: of a quantized file.
      reference: of the float one.
      noise: of the converter's quantization calibrated on noise.
    """
    if "top1" in row:
        return _measured_complaint(row, reference, noise)
    ((figure, judged),) = (
        (row["estimate"][key], judged)
        for key, judged in _ESTIMATED.items()
        if key in row["estimate"]
    )
    loss = judged.loss(figure)
    if loss <= judged.limit:
        return None
    return judged.words.format(loss) + (_BROKEN if loss >= judged.broken else "")


def _beyond_limits(row: Row, summary: Mapping[str, Any]) -> tuple[str, str] | None:
    """Which limit of the run a file does not hold, and what to do; or None."""
    limits = summary["limits"]
    max_bytes, ratio = limits["max_bytes"], limits["max_latency_ratio"]
    if max_bytes is not None and row["size_bytes"] > max_bytes:
        return (
            f"{row['size_bytes']:,} bytes, more than --max_bytes={max_bytes}",
            "no choice of layers at 8 bits makes it smaller; take a smaller network",
        )
    times = row.get("times_as_long_as_int8", 1.0)
    if ratio is not None and times > _CLOCK * ratio:
        return (
            f"takes {times:.2f} times as long as int8, above --max_latency_ratio",
            "run again when nothing else does on this machine, or raise it",
        )
    most = limits["max_accuracy_loss"]
    lost = row["estimate"]["accuracy_loss"] if most is not None else 0.0
    if most is not None and lost > most:
        return (
            f"about {lost:.1f} points lost, as estimated, above --max_accuracy_loss",
            "take a longer --recipe, or raise --max_bytes or --max_latency_ratio",
        )
    return None


def _measured_complaint(row: Row, reference: Row, noise: Row) -> str | None:
    drop = 100 * (reference["top1"] - row["top1"])
    if row["top1"] < reference["top1_interval_95"][0]:
        text = f"{drop:.1f} points below float, beyond its interval"
        return text + (_BROKEN if drop >= _BROKEN_LOSS else "")
    # Float's own mistakes fall either way by chance: a file that shares more of its
    # answers is the better one, whatever few images say of top-1.
    figures = ("top1", "agreement_with_float")
    if all(row[figure] < noise[figure] for figure in figures if figure in row):
        return "no better than calibrating on noise"
    return None


def choose(rows: Sequence[Row]) -> Row:
    """The smallest file, unless a faster one is hardly larger."""
    smallest = min(rows, key=lambda row: row["size_bytes"])
    limit = smallest["size_bytes"] / (1 - _WORTHWHILE_SAVING)
    near = [row for row in rows if row["size_bytes"] <= limit]
    return min(near, key=lambda row: row["latency_ms"])


def _reason(chosen: Row, good: Sequence[Row], reference: Row) -> str:
    smaller = reference["size_bytes"] / chosen["size_bytes"]
    reasons = [f"{chosen['size_bytes']:,} bytes, {smaller:.1f} times less than float"]
    if "top1" in chosen:
        drop = 100 * (reference["top1"] - chosen["top1"])
        reasons.append(f"top-1 {_points(drop)}, within float's interval")
    else:
        reasons.append("no loss that the estimate would call one")
    faster = min(good, key=lambda row: row["latency_ms"])
    if faster is not chosen:
        ratio = chosen["latency_ms"] / faster["latency_ms"]
        larger = 100 * (faster["size_bytes"] / chosen["size_bytes"] - 1)
        reasons.append(
            f"where speed counts more, {faster['file']} is {larger:.0f} % larger and "
            f"runs {ratio:.1f} times as fast here"
        )
    return "; ".join(reasons)


def _points(drop: float) -> str:
    if abs(drop) < 0.005:
        return "as float"
    return f"{abs(drop):.2f} points {'below' if drop > 0 else 'above'} float"


def _advice(row: Row, summary: Mapping[str, Any]) -> str:
    """What to try with a file that is not good enough."""
    beyond = _beyond_limits(row, summary)
    if beyond is not None:
        return beyond[1]
    recipe = summary["recipe"]["name"]
    bits = row["widths"]
    if bits["weight_bits"] == bits["activation_bits"] == 8:
        if recipe in ("calibrate", "fast"):
            return "take --recipe=balanced, and check --preprocessing"
        return "check --preprocessing: the float row should have the accuracy you know"
    if recipe in ("calibrate", "fast"):
        return "take a longer --recipe, or --keep_layers for the layers that lose most"
    if bits["activation_bits"] < 8:
        return f"take w{bits['weight_bits']}a8, or --keep_layers"
    return "take w8a8, or --max_accuracy_loss to keep sensitive layers at 8 bits"
