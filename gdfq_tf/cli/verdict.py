"""The closing words of a run: which file to ship, why, and what to do about bad ones.

Measured accuracy decides where there are labelled images, the estimate elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Estimated points of top-1, or of labels, from which on a file is called a loss.
_LARGEST_ESTIMATED_LOSS = 3.0
# Of features: an error that no longer hides behind 8-bit rounding.
_SMALLEST_SIGNAL_TO_NOISE_DB = 15.0
# A file must be so much smaller to be worth any loss.
_WORTHWHILE_SAVING = 0.1

Row = Mapping[str, Any]


def complaints(summary: Mapping[str, Any]) -> dict[str, str]:
    """Titles of a run's quantized files that are not good enough -> what is wrong.

    Args:
      summary: as `summary.json` holds it: float and noise-calibrated rows first.
    """
    reference, noise, *own = summary["models"]
    found = {row["title"]: complaint(row, reference, noise) for row in own}
    return {title: text for title, text in found.items() if text is not None}


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
    if not good:
        return [*lines, "ship none of these files as they are"]
    chosen = choose(good)
    return [*lines, f"ship {chosen['file']}: {_reason(chosen, good, reference)}"]


def complaint(row: Row, reference: Row, noise: Row) -> str | None:
    """What is wrong with a file, or None.

    Args:
      row: of a quantized file.
      reference: of the float one.
      noise: of the converter's quantization calibrated on noise.
    """
    if "top1" in row:
        low = reference["top1_interval_95"][0]
        if row["top1"] < low:
            drop = 100 * (reference["top1"] - row["top1"])
            return f"{drop:.1f} points below float, beyond its interval"
        if row["top1"] < noise["top1"]:
            return "no better than calibrating on noise"
        return None
    estimate = row["estimate"]
    if "accuracy_loss" in estimate:
        if estimate["accuracy_loss"] > _LARGEST_ESTIMATED_LOSS:
            return f"about {estimate['accuracy_loss']:.1f} points lost, as estimated"
    elif "label_agreement" in estimate:
        agreement = 100 * estimate["label_agreement"]
        if agreement < 100 - _LARGEST_ESTIMATED_LOSS:
            return f"{100 - agreement:.1f} % of labels are others than float's"
    elif estimate["signal_to_noise_db"] < _SMALLEST_SIGNAL_TO_NOISE_DB:
        return f"its error is {estimate['signal_to_noise_db']:.1f} dB below the signal"
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
