"""Charts of a run as SVG that stands in a page and takes its colours from it.

Matplotlib draws them; texts stay texts, and no script is needed to see them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Error of rounding to the nearest step, in steps.
IDEAL_RMSE = 1 / math.sqrt(12)

# Stands in a drawing -> what stands in its place on the page, in light and dark.
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_SERIES = ("#040404", "#050505", "#060606", "#070707")
_COLORS = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    **{color: f"var(--series-{i + 1})" for i, color in enumerate(_SERIES)},
}
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _LINE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 11,
    "axes.linewidth": 1,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.frameon": False,
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",  # comes with Matplotlib; the page has its own
    "font.size": 11,
    "grid.color": _LINE,
    "grid.linewidth": 1,
    "legend.borderaxespad": 0.2,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,  # names may have dollars
    "xtick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.color": _MUTED,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.minor.size": 0,
}
_POINTS_PER_INCH = 72  # a unit of the drawing is then one pixel
_LOGARITHMIC = 8.0  # as many times as the smallest is the largest value
_LONGEST_NAME = 36  # characters
_MOST_MARKED = 90  # more points are a line
_GAP = "bn_gap/"  # begins the names of metrics, which the layer's ends
_NUM_WORST = 3


def curves(stage: Mapping[str, Any]) -> str:
    """Losses of one stage by step; see `recording.StageRecord`."""
    with _drawing(330, 210, f"{stage['name']} by step") as (figure, parts):
        axes = figure.add_subplot()
        steps = [point["step"] for point in stage["points"]]
        names = [name for name in _metric_names(stage) if "/" not in name]
        values = [
            [point["metrics"].get(name, math.nan) for point in stage["points"]]
            for name in names
        ]
        for name, color, of_name in zip(names, _endless(_SERIES), values, strict=False):
            axes.plot(steps, of_name, color=color, label=name.replace("_", " "))
        _scale(axes, np.asarray(values))
        axes.set_xlabel("step")
        axes.set_xlim(0, max(stage["total"], 1))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(names))
    return parts[0]


def gap_curves(stages: Sequence[Mapping[str, Any]]) -> str:
    """Gaps of BatchNormalizations by step, one stage after the other.

    The mean of all, and those that are largest in the end.

    Args:
      stages: those that tell gaps, one or more.
    """
    title = "Gap of BatchNormalizations by step"
    with _drawing(820, 240, title) as (figure, parts):
        axes = figure.add_subplot()
        names = [name for name in _metric_names(stages[0]) if name.startswith(_GAP)]
        last = stages[-1]["points"][-1]["metrics"]
        worst = sorted(names, key=lambda name: -last[name])[:_NUM_WORST]
        begun = 0
        for stage in stages:
            steps = [begun + point["step"] for point in stage["points"]]
            values = np.array(
                [[point["metrics"][x] for x in names] for point in stage["points"]]
            )
            is_first = not begun
            curves_of = {"mean": values.mean(axis=1)}
            curves_of |= {x: values[:, names.index(x)] for x in worst}
            for (name, of_name), color in zip(curves_of.items(), _SERIES, strict=False):
                label = _shortened(name.removeprefix(_GAP)) if is_first else None
                axes.plot(steps, of_name, color=color, label=label)
            axes.axvline(begun, color=_MUTED, linewidth=1)
            axes.annotate(
                stage["name"],
                (begun, 1),
                (4, -4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                fontsize=10,
            )
            begun += stage["total"]
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, max(begun, 1))
        axes.set_xlabel("step")
        axes.set_ylabel("stored deviations")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1 + _NUM_WORST)
    return parts[0]


def tells_gaps(stage: Mapping[str, Any]) -> bool:
    """Whether a stage tells gaps of BatchNormalizations, see `gap_curves`."""
    return any(name.startswith(_GAP) for name in _metric_names(stage))


def _metric_names(stage: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(x for p in stage["points"] for x in p["metrics"]))


def gaps(rows: Sequence[Mapping[str, Any]]) -> str:
    """How far images are from each BatchNormalization, by its place in the network.

    Args:
      rows: `layer` and `gap` of each.
    """
    with _drawing(820, 220, "Gap of each BatchNormalization") as (figure, parts):
        axes = figure.add_subplot()
        values = np.array([row["gap"] for row in rows])
        places = np.arange(1, len(rows) + 1)
        axes.vlines(places, 0, values, color=_SERIES[0], linewidth=1.5, alpha=0.5)
        axes.plot(places, values, "o", color=_SERIES[0], markersize=4)
        worst = int(values.argmax())
        _name(axes, rows[worst]["layer"], (worst + 1, values[worst]), len(rows))
        axes.set_xlabel("BatchNormalization, in the order of the network")
        axes.set_ylabel("stored deviations")
        axes.set_ylim(0, 1.2 * max(float(values.max()), 1e-9))
        axes.set_xlim(0.4, len(rows) + 0.6)
    return parts[0]


def layers(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Signal to noise, own error and clipping, layer by layer.

    Args:
      tables: rows of layers, by title of the width.
    """
    with _drawing(820, 520, "Quantization error layer by layer") as (figure, parts):
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.6))
        count = max(len(rows) for rows in tables.values())
        colors = dict(zip(tables, _endless(_SERIES), strict=False))
        for title, rows in tables.items():
            places = np.arange(1, len(rows) + 1)
            marker = "o" if len(rows) <= _MOST_MARKED else ""
            for axes, values in zip(panels, _columns(rows), strict=True):
                axes.plot(
                    places,
                    values,
                    marker=marker,
                    markersize=3,
                    color=colors[title],
                    label=_shortened(title),
                )
        signal, error, clipped = panels
        signal.set_ylabel("SQNR, dB")
        signal.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(tables))
        _name_lowest(signal, tables, count)
        error.set_ylabel("RMSE / scale")
        error.axhline(IDEAL_RMSE, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        error.text(
            count + 0.5,
            IDEAL_RMSE,
            "0.289",
            va="center",
            ha="left",
            fontsize=10,
            color=_INK,
        )
        error.set_ylim(bottom=0)
        clipped.set_ylabel("clipped, %")
        clipped.set_ylim(bottom=0)
        clipped.set_xlabel("layer, in the order of the network")
        clipped.set_xlim(0.4, count + 0.6)
        figure.align_ylabels(panels)
    return parts[0]


def losses(rows: Sequence[Mapping[str, Any]]) -> str:
    """Points of accuracy lost: measured with its interval, estimated with its worst.

    Args:
      rows: as `summary.json` holds models, float first; those with neither are left
        out.
    """
    reference, *others = rows
    shown = [
        x for x in others if "top1" in x or "accuracy_loss" in x.get("estimate", {})
    ]
    with _drawing(820, 46 + 44 * len(shown), "Points below float") as (figure, parts):
        axes = figure.add_subplot()
        for place, row in enumerate(shown):
            if "top1" in row:
                lost = 100 * (reference["top1"] - row["top1"])
                low, high = (
                    100 * (reference["top1"] - x) for x in row["top1_interval_95"][::-1]
                )
                _interval(axes, place + 0.14, (low, lost, high), _SERIES[0], "measured")
            estimate = row.get("estimate", {})
            if "accuracy_loss" in estimate:
                lost, worst = (
                    estimate[x] for x in ("accuracy_loss", "largest_accuracy_loss")
                )
                _interval(axes, place - 0.14, (0, lost, worst), _SERIES[1], "estimated")
        axes.axvline(0, color=_INK, linewidth=1)
        titles = [_shortened(row["title"]) for row in shown]
        axes.set_yticks(range(len(shown)), titles)
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.set_ylim(len(shown) - 0.5, -0.6)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("points of top-1 below float")
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axes.legend(
            unique.values(),
            unique.keys(),
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=2,
        )
    return parts[0]


def features(examples: npt.NDArray[np.floating]) -> str:
    """A few examples that are no pictures: maps, or lines.

    Args:
      examples: (N, H, W, C), real values.
    """
    with _drawing(820, 260, "Synthetic examples") as (figure, parts):
        panels = figure.subplots(2, 4, sharex=True, sharey=True).ravel()
        _, height, width, channels = examples.shape
        for axes in panels[len(examples) :]:
            axes.set_axis_off()
        for axes, example in zip(panels, examples, strict=False):
            # What lies along time, and what is beside each other at each of it.
            rows = height if height > 1 else width
            values = (
                example.reshape(rows, -1) if rows > 1 else example.reshape(channels, 1)
            )
            if values.shape[1] > 3:
                axes.imshow(values.T, aspect="auto", origin="lower", cmap="viridis")
                axes.grid(visible=False)
            else:
                for of_value, color in zip(values.T, _SERIES, strict=False):
                    axes.plot(of_value, color=color, linewidth=1.2)
    return parts[0]


def _interval(
    axes: Axes, place: float, values: tuple[float, float, float], color: str, label: str
) -> None:
    low, middle, high = values
    axes.plot(
        [low, high],
        [place, place],
        color=color,
        linewidth=5,
        alpha=0.3,
        solid_capstyle="round",
    )
    axes.plot([middle], [place], "o", color=color, markersize=7, label=label)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[npt.NDArray[np.float64]]:
    keys = ("signal_to_noise_db", "rmse_over_scale", "clipped")
    found = [np.array([row[key] for row in rows], np.float64) for key in keys]
    found[0] = np.clip(found[0], None, 60.0)  # exact layers would hide all others
    found[2] = 100 * found[2]
    return found


def _name_lowest(
    axes: Axes, tables: Mapping[str, Sequence[Mapping[str, Any]]], count: int
) -> None:
    rows = min(tables.values(), key=lambda x: min(r["signal_to_noise_db"] for r in x))
    place = min(range(len(rows)), key=lambda i: rows[i]["signal_to_noise_db"])
    low = rows[place]["signal_to_noise_db"]
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - 0.12 * (top - bottom), top)
    _name(axes, rows[place]["name"], (place + 1, low), count, above=False)


def _name(
    axes: Axes, text: str, place: tuple[float, float], count: int, *, above: bool = True
) -> None:
    """Writes a layer's name beside its point, within the axes."""
    right = place[0] > count / 2
    note = axes.annotate(
        _shortened(text),
        place,
        (-6 if right else 6, 5 if above else -5),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom" if above else "top",
        fontsize=10,
    )
    note.set_in_layout(False)


def _scale(axes: Axes, values: npt.NDArray[np.float64]) -> None:
    """Steps are whole; values logarithmic where they differ by much."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > _LOGARITHMIC * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=min(0.0, float(finite.min())) if finite.size else 0.0)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _endless(colors: Sequence[str]) -> Iterator[str]:
    while True:
        yield from colors


@contextlib.contextmanager
def _drawing(width: int, height: int, title: str) -> Iterator[tuple[Figure, list[str]]]:
    """A figure to draw into, so many pixels large, and where its SVG will be."""
    # Its first use on a machine looks for fonts and says so.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    parts: list[str] = []
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):
        size = width / _POINTS_PER_INCH, height / _POINTS_PER_INCH
        figure = Figure(size, dpi=_POINTS_PER_INCH, layout="constrained")
        yield figure, parts
        stream = io.StringIO()
        with warnings.catch_warnings():
            # Of letters that its font lacks; the page's will have them.
            warnings.simplefilter("ignore")
            figure.savefig(
                stream, format="svg", metadata={"Date": None}, transparent=True
            )
    parts.append(_for_page(stream.getvalue(), title))


@functools.cache
def _rewritings() -> tuple[tuple[re.Pattern[str], str], ...]:
    found = [
        (r"\A.*?<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 role="img">'),
        (r"<metadata>.*?</metadata>", ""),
        (r"<!--.*?-->", ""),
        (r"<style.*?</style>", ""),  # the page's own says the same
        (r'<g id="[^"]*"', "<g"),  # several drawings share a page
        (r"\n\s*", "\n"),
        *((re.escape(color), variable) for color, variable in _COLORS.items()),
    ]
    return tuple((re.compile(pattern, re.DOTALL), new) for pattern, new in found)


def _for_page(svg: str, title: str) -> str:
    """A drawing as part of a page: without a head, in the page's colours."""
    for pattern, new in _rewritings():
        svg = pattern.sub(new, svg)
    return svg.replace('role="img">', f'role="img" aria-label="{title}">', 1)
