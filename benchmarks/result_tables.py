"""Tables of docs/results.md, from the JSON files in docs/results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation import VARIANTS
from benchmarks.estimate_fit import left_out
from benchmarks.reference_tables import markdown_table
from gdfq_tf.config import DEFAULT_RECIPE, PREPROCESSINGS

_FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"
# Recipes of the rows, as tables name them, in their order.
_RECIPES = {
    "ptq_on_noise": "converter's PTQ, 100 images of noise",
    f"ptq_on_{DEFAULT_RECIPE}": "converter's PTQ, 100 of our images",
    "ptq_on_real": "converter's PTQ, 100 real images",
    "calibrate": "`calibrate`",
    "gdfq": "`gdfq`, 1,000 + 1,000 steps",
    "fast": "`fast`",
    "balanced": "`balanced`",
    "best": "`best`",
    "real": f"`{DEFAULT_RECIPE}`, real images instead",
}
# They saw images of the second half, so that only the first half counts.
_WITH_REAL_IMAGES = ("real", "ptq_on_real")
_WIDTHS = ("w8a8", "w4a8", "w4a4", "w4a4_paper", "w3a3_paper", "w2a4")

Row = Mapping[str, Any]


def accuracy(name: str) -> str:
    """One classifier's table: widths and recipes, means over seeds."""
    titles = (
        *("width", "recipe", "seeds", "top-1", "drop", "drop on first half"),
        *("agrees with float", "bytes", "minutes"),
    )
    rows = _read(name)
    cells = [
        _accuracy_cells(width, recipe, group) for width, recipe, group in _groups(rows)
    ]
    found = rows[0]
    return (
        f"{found['num_images']:,} test images; float {100 * found['float_top1']:.2f}, "
        f"on the first half {100 * found['float_top1_first_half']:.2f}.\n\n"
        f"{markdown_table(titles, cells, 'llrrrrrrr')}"
    )


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """(width, recipe, rows of all seeds), in the order of the tables."""
    for width in _WIDTHS:
        for recipe in _RECIPES:
            key = (width, recipe)
            group = [row for row in rows if (row["bits"], row["recipe"]) == key]
            if group:
                yield width, recipe, group


def _accuracy_cells(width: str, recipe: str, group: Sequence[Row]) -> Sequence[str]:
    on_first_half = recipe in _WITH_REAL_IMAGES
    top1 = 100 * np.array([row["top1"] for row in group])
    spread = f" ± {top1.std():.2f}" if len(group) > 1 else ""
    (size,) = {row["size_bytes"] for row in group}
    return (
        _width(width),
        _RECIPES[recipe],
        str(len(group)),
        "" if on_first_half else f"{top1.mean():.2f}{spread}",
        "" if on_first_half else f"{_mean(group, _drop):.2f}",
        f"{_mean(group, _drop_on_first_half):.2f}",
        f"{_mean(group, _agreement):.2f}",
        f"{size:,}",
        f"{_mean(group, _minutes):.1f}" if "student_seconds" in group[0] else "",
    )


def ablation(*names: str) -> str:
    """Drop and agreement without one ingredient, one column for each file."""
    files = [{row["recipe"]: row for row in _read(name)} for name in names]
    cells = [
        (variant.name, *(_worth(rows.get(variant.name)) for rows in files))
        for variant in VARIANTS
        if any(variant.name in rows for rows in files)
    ]
    titles = ("without", *(rows[VARIANTS[0].name]["model"] for rows in files))
    return markdown_table(titles, cells, "l" + "r" * len(files))


def _worth(row: Row | None) -> str:
    return "-" if row is None else f"{_drop(row):.2f} ({_agreement(row):.2f})"


def estimates(*names: str) -> str:
    """What the default recipe's estimate says, beside what real images say."""
    titles = (
        *("classifier", "width", "agreement, synthetic", "real"),
        *("loss estimated", "real"),
    )
    cells = [
        (
            name,
            _width(width),
            f"{_mean(group, _estimated_agreement):.1f}",
            f"{_mean(group, _agreement):.1f}",
            f"{_mean(group, _estimated_loss):.1f}",
            f"{_mean(group, _drop):.1f}",
        )
        for name in names
        for width, recipe, group in _groups(_read(name))
        if recipe == DEFAULT_RECIPE
    ]
    return markdown_table(titles, cells, "llrrrr")


def estimate_errors(*names: str) -> str:
    """The least and the largest error of each recipe's estimate, over single runs."""
    rows = [row for name in names for row in _read(name) if "estimate" in row]
    titles = ("recipe", "runs", "error of the agreement", "error of the loss")
    cells = []
    for recipe, title in _RECIPES.items():
        group = [row for row in rows if row["recipe"] == recipe]
        if group and recipe not in _WITH_REAL_IMAGES:
            agreement = _span(group, _error_of_agreement)
            cells.append((title, str(len(group)), agreement, _span(group, _error)))
    return markdown_table(titles, cells, "lrrr")


def own_networks() -> str:
    """Small networks trained for the purpose, one line for each and one width."""
    titles = (
        *("network", "float", "width", "drop", "agrees with float"),
        *("loss estimated", "at worst", "converter's PTQ on noise"),
    )
    rows = _read("own_networks")
    noise = {row["model"]: row for row in rows if row["recipe"] == "ptq_on_noise"}
    cells = [
        (
            row["model"],
            f"{100 * row['float_top1']:.2f}",
            _width(row["bits"]),
            f"{_drop(row):.2f}",
            f"{_agreement(row):.2f}",
            f"{_estimated_loss(row):.1f}",
            f"{row['estimate']['largest_accuracy_loss']:.1f}",
            f"{_drop(noise[row['model']]):.2f}" if row["bits"] == "w8a8" else "",
        )
        for row in rows
        if row["recipe"] == DEFAULT_RECIPE
    ]
    return markdown_table(titles, cells, "lrlrrrrr")


def left_out_estimates(*names: str) -> str:
    """The estimate of each network, its slopes chosen on all others."""
    found = left_out([row for name in names for row in _read(name)])
    titles = (
        *("network left out", "slope", "at worst", "runs", "median error at w8a8"),
        *("at all widths", "largest error", "within the worst"),
    )
    cells = [
        (
            one.network,
            f"{one.slopes.usual:.2f}",
            f"{one.slopes.worst:.2f}",
            str(len(one.errors)),
            f"{one.error_at_8_bits:.2f}",
            f"{np.median(one.errors):.2f}",
            f"{one.errors.max():.1f}",
            f"{one.num_covered} of {len(one.errors)}",
        )
        for one in found
    ]
    return markdown_table(titles, cells, "lrrrrrrr")


def preprocessing_fits() -> str:
    """Misfit of every candidate, one line for each network; the right one is bold."""
    names = [name for name in PREPROCESSINGS if name != "custom"]
    titles = ("network", "images", *names, "own", "taken if none is given", "refused")
    cells = [
        (
            row["network"].replace("_", " "),
            row["images"],
            *(_misfit(row, name) for name in (*names, "custom")),
            row["chosen"] or "asks",
            ", ".join(row["refused"]),
        )
        for row in _read("preprocessing_fit")
    ]
    return markdown_table(titles, cells, "ll" + "r" * (len(names) + 1) + "ll")


def keyword_spotting() -> str:
    """A classifier of features, quantized in every way."""
    titles = ("model", "recipe, seed", "top-1", "agrees with float", "bytes", "exact")
    cells = [
        (
            row["title"],
            f"{row['recipe']}, {row['seed']}" if row["recipe"] else "",
            f"{100 * row['top1']:.2f} %",
            f"{100 * row['agreement_with_float']:.2f} %",
            f"{row['size_bytes']:,}",
            f"{100 * row['exact_outputs']:.2f} %" if row.get("exact_outputs") else "",
        )
        for row in _read("keyword_spotting")
    ]
    return markdown_table(titles, cells, "llrrrr")


def latency() -> str:
    """Bytes and time in LiteRT of each width, beside those of the first one."""
    titles = ("classifier", "width", "bytes", "time, of w8a8's", "with 1x1 as CONV_2D")
    rows = _read("latency")
    time_of = {
        (row["model"], row["bits"], row["recipe"]): f"{row['times_as_long']:.2f}"
        for row in rows
    }
    cells = [
        (
            row["model"],
            _width(row["bits"]),
            f"{row['size_bytes']:,}",
            time_of[row["model"], row["bits"], "litert"],
            time_of[row["model"], row["bits"], "tflm"],
        )
        for row in rows
        if row["recipe"] == "litert"
    ]
    return markdown_table(titles, cells, "llrrr")


def parity() -> str:
    """How far runtimes are from the simulation of a file's target, one line each."""
    titles = (
        *("classifier", "width", "file for", "runtime"),
        *("random: exact %", "LSB", "other class"),
        *("real: exact %", "LSB", "other class"),
    )
    found: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in _read("parity"):
        names = (row["model"], _width(row["bits"]), row["target"], row["runtime"])
        found.setdefault(names, {})[row["inputs"]] = row
    cells = [
        (*names, *_parity_cells(rows["random"]), *_parity_cells(rows["real"]))
        for names, rows in found.items()
    ]
    return markdown_table(titles, cells, "llllrrrrrr")


def _parity_cells(row: Row) -> tuple[str, str, str]:
    if "refused" in row:
        return ("refused", "", "")
    return (
        f"{100 * row['exact_outputs']:.2f}",
        str(row["max_lsb"]),
        f"{row['classes_changed']} of {row['num_inputs']:,}",
    )


def runtimes() -> str:
    """What runtimes make of files: those of single operators, and of each width."""
    rows = _read("runtimes")
    networks = [row for row in rows if row["is_network"]]
    names = [row["file"].rpartition("_w")[2] for row in networks]
    counts = ("exact", "1 LSB off", "further off", "refused")
    titles = ("runtime", *counts, *(_width(f"w{name}") for name in names))
    labels = dict.fromkeys(label for row in rows for label in row["runtimes"])
    cells = []
    for label in labels:
        found = [row["runtimes"][label] for row in rows if not row["is_network"]]
        steps = [answer.get("lsb", -1) for answer in found]
        of_networks = [row["runtimes"][label].get("lsb") for row in networks]
        package, _, version = label.rpartition("-")
        cells.append(
            (
                f"{package} {version}",
                *(str(steps.count(lsb)) for lsb in (0, 1)),
                str(sum(lsb > 1 for lsb in steps)),
                str(steps.count(-1)),
                *("refused" if lsb is None else f"{lsb} LSB" for lsb in of_networks),
            )
        )
    return markdown_table(titles, cells, "l" + "r" * (len(titles) - 1))


def frontier() -> str:
    """What more work buys, one line for each budget."""
    titles = (
        *("classifier", "width", "budget", "image passes"),
        *("divergence", "agrees with float", "drop"),
    )
    rows = sorted(
        _read("frontier"),
        key=lambda row: (row["model"], row["bits"], row["image_passes"], row["recipe"]),
    )
    cells = [
        (
            row["model"],
            _width(row["bits"]),
            row["recipe"],
            f"{row['image_passes']:,}",
            f"{row['divergence']:.4f}",
            f"{100 * row['agreement']:.1f}",
            f"{_drop(row):.1f}",
        )
        for row in rows
    ]
    return markdown_table(titles, cells, "lllrrrr")


def firmware() -> str:
    """What firmware takes on each processor."""
    titles = (
        *("classifier", "width", "processor", "flash", "memory", "least possible"),
        *("instructions", "of a multiply-add", "in convolutions", "in depthwise ones"),
    )
    cells = [
        (
            row["model"],
            _width(row["bits"]),
            row["recipe"],
            f"{row['flash_bytes']:,}",
            f"{row['arena_bytes']:,}",
            f"{row['arena_lower_bound']:,}",
            f"{row['instructions'] / 1e6:.1f} M",
            f"{row['instructions'] / row['multiply_adds']:.2f}",
            _instructions_of(row, "conv", "pointwise"),
            _instructions_of(row, "depthwise"),
        )
        for row in _read("firmware")
    ]
    return markdown_table(titles, cells, "lllrrrrrrr")


def peak_memory() -> str:
    """What quantizing takes of keras.applications, one line for each family."""
    titles = (
        *("family", "parameters", "input", "widths"),
        *("peak, MiB", "beside what loading leaves"),
        *("estimated", "most at", "estimated for"),
    )
    rows = sorted(_read("peak_memory"), key=lambda row: row["parameters"])
    cells = [
        (
            row["model"],
            f"{row['parameters']:,}",
            f"{row['size']}x{row['size']}",
            row["bits"],
            f"{row['peak_mib']:,}",
            f"{row['peak_mib'] - row['loaded_mib']:,}",
            f"{row['estimated_mib']:,}",
            row["peak_stage"],
            row["estimated_stage"],
        )
        for row in rows
        if "peak_mib" in row
    ]
    return markdown_table(titles, cells, "lrrlrrrll")


def _instructions_of(row: Row, *kinds: str) -> str:
    """For each multiply-add in these kinds of layers."""
    figures = [row["kinds"][kind] for kind in kinds if kind in row["kinds"]]
    if not figures:
        return ""
    instructions, multiply_adds = map(sum, zip(*figures, strict=True))
    return f"{instructions / multiply_adds:.2f}"


def arm64() -> str:
    """Outputs on an emulated arm64 processor, beside x86-64 and the simulation."""
    titles = (
        *("classifier", "width", "images", "number", "equal to x86-64", "largest LSB"),
        *("classes changed", "equal to simulation", "largest LSB"),
        "first layer unlike",
    )
    cells = [
        (
            row["model"],
            _width(row["bits"]),
            row["recipe"],
            f"{row['num_images']:,}",
            f"{100 * row['x86_64_exact_outputs']:.2f} %",
            str(row["x86_64_max_lsb"]),
            f"{row['classes_changed']}",
            f"{100 * row['simulated_exact_outputs']:.2f} %",
            str(row["simulated_max_lsb"]),
            _first_unlike(row),
        )
        for row in _read("arm64")
    ]
    return markdown_table(titles, cells, "lllrrrrrrl")


def _first_unlike(row: Row) -> str:
    found = row["first_unlike"]
    if found is None:
        return ""
    return (
        f"`{found['layer']}`, {found['kind']}: {100 * found['share']:.2f} % of values, "
        f"{found['max_lsb']} LSB"
    )


def _misfit(row: Row, name: str) -> str:
    if name not in row["misfits"]:
        return ""
    text = f"{row['misfits'][name]:.2f}"
    return f"**{text}**" if name == row["right"] else text


def speed() -> str:
    """Images per second of each kind of step."""
    content = json.loads((_FOLDER / "speed.json").read_text())
    networks = content["images_per_second"]
    titles = ["step"]
    for network in networks:
        titles += [network, "of the float step"]
    steps = next(iter(networks.values()))
    cells = []
    for step in steps:
        row = [step]
        for rates in networks.values():
            share = 100 * rates[step] / rates["float training step"]
            row += [f"{rates[step]:,}", f"{share:.0f} %"]
        cells.append(row)
    return markdown_table(titles, cells, "l" + "rr" * len(networks))


def _read(name: str) -> list[Row]:
    return json.loads((_FOLDER / f"{name}.json").read_text())


def _width(name: str) -> str:
    return name.replace("_", "/")


def _mean(group: Sequence[Row], figure: Callable[[Row], float]) -> float:
    return float(np.mean([figure(row) for row in group]))


def _span(group: Sequence[Row], figure: Callable[[Row], float]) -> str:
    found = [figure(row) for row in group]
    return f"{min(found):+.1f} to {max(found):+.1f}"


def _drop(row: Row) -> float:
    return 100 * (row["float_top1"] - row["top1"])


def _drop_on_first_half(row: Row) -> float:
    return 100 * (row["float_top1_first_half"] - row["top1_first_half"])


def _agreement(row: Row) -> float:
    key = "agreement"
    if row["recipe"] in _WITH_REAL_IMAGES:
        key = "agreement_first_half"
    return 100 * row[key]


def _estimated_agreement(row: Row) -> float:
    return 100 * row["estimate"]["agreement"]


def _estimated_loss(row: Row) -> float:
    return row["estimate"]["accuracy_loss"]


def _error_of_agreement(row: Row) -> float:
    return _estimated_agreement(row) - _agreement(row)


def _error(row: Row) -> float:
    return _estimated_loss(row) - _drop(row)


def _minutes(row: Row) -> float:
    return (row["synthesis_seconds"] + row["student_seconds"]) / 60
