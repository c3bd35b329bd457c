"""The report: all of a run on one page that needs nothing but itself."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib.resources
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gdfq_tf.classifier import Head
from gdfq_tf.report import charts
from gdfq_tf.report.advice import advise
from gdfq_tf.report.pictures import strips
from gdfq_tf.report.snippets import end_types, less, snippets
from gdfq_tf.run_directory import input_format_of
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.verdict import choose, complaints, verdict

if TYPE_CHECKING:
    import jinja2

_NUM_FEATURES = 8
_GOOD_SIGNAL, _BAD_SIGNAL = 40.0, 5.0  # ends of the bars, dB
# Head -> what the outputs are, in words.
_OUTPUTS = {
    Head.LOGITS: "one logit per class; the largest is the class",
    Head.LOGIT: "two logits; the larger is the class",
    Head.SOFTMAX: "one probability per class",
    Head.SIGMOID: "two probabilities",
    Head.MULTI_LABEL: "one probability per label; any number of labels may be on",
    Head.FEATURES: "features",
}


@dataclasses.dataclass(frozen=True)
class Tile:
    """A figure of the headline.

    Attributes:
      label: what it is.
      value: large.
      note: small, below.
    """

    label: str
    value: str
    note: str


def make_page(summary: dict[str, Any], images: ImagePool) -> str:
    """The report as HTML.

    Texts of model files (names of layers and classes) are escaped, and a content
    security policy lets the page load nothing and run no script but its own.

    Args:
      summary: as `summary.json` holds it.
      images: of the run.
    """
    script = _resource("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    reference, _, *own = summary["models"]
    bad = complaints(summary)
    good = [row for row in own if row["title"] not in bad]
    shipped = choose(good) if good else None
    subject = shipped or choose(own)
    form = input_format_of(summary)
    names = summary["class_names"] or ()
    classifier = summary["classifier"]
    input_type, output_type = end_types(summary, subject)
    stages = [stage for stage in summary["stages"] if len(stage["points"]) > 1]
    of_gaps = [stage for stage in stages if charts.tells_gaps(stage)]
    return _template().render(
        script=script,
        script_hash=f"sha256-{digest}",
        style=_resource("report.css"),
        name=classifier["name"],
        shipped=shipped,
        subject=subject,
        tiles=_tiles(subject, reference, summary),
        proofs=_proofs(own),
        lines=verdict(summary),
        bad=bad,
        rows=summary["models"],
        losses_chart=_losses(summary["models"]),
        input_formula={**classifier, **subject}[f"{input_type}_input"],
        input_words=classifier["input"],
        input_type=input_type,
        output_type=output_type,
        output=subject[f"{output_type}_output"],
        output_words=_OUTPUTS[Head(classifier["head"])],
        class_names=names,
        snippets=snippets(summary, subject),
        strips=strips(images, names) if form.picture_shape is not None else (),
        features_chart=None
        if form.picture_shape is not None
        else _features(summary, images),
        num_images=len(images),
        times_resumed=summary["times_resumed"],
        stages=[(stage, charts.curves(stage)) for stage in stages],
        gap_curves=charts.gap_curves(of_gaps) if of_gaps else None,
        gaps_chart=charts.gaps(summary["bn_gaps"]) if summary["bn_gaps"] else None,
        layers_chart=charts.layers({row["title"]: row["layers"] for row in own}),
        own=[(row, advise(row["layers"], summary["keep_layers"])) for row in own],
        ideal=charts.IDEAL_RMSE,
        commands=_commands(summary),
        recipe=summary["recipe"]["name"],
        seed=summary["seed"],
        target=summary["target"],
        machine=summary["machine"],
        versions=summary["versions"],
        seconds=summary["seconds"],
        fits_noise=bool(np.all(images.labels < 0)),
    )


def _tiles(
    row: Mapping[str, Any], reference: Mapping[str, Any], summary: Mapping[str, Any]
) -> list[Tile]:
    smaller = reference["size_bytes"] / row["size_bytes"]
    faster = reference["latency_ms"] / row["latency_ms"]
    agreement = row["verification"]["student_agreement"]
    return [
        _accuracy(row, reference),
        Tile(
            "Size",
            _bytes(row["size_bytes"]),
            f"{smaller:.1f} times less than float, {_bytes(reference['size_bytes'])}",
        ),
        Tile(
            "Latency, one thread",
            f"{row['latency_ms']:.3g} ms",
            f"float {reference['latency_ms']:.3g} ms, {faster:.1f} times as long; "
            f"LiteRT on {summary['machine']['processor']}",
        ),
        Tile(
            "Proven",
            "bit for bit"
            if not agreement["max_lsb"]
            else f"within {agreement['max_lsb']} LSB",
            f"{agreement['num_images']} images, by {agreement['runtime']}",
        ),
    ]


def _accuracy(row: Mapping[str, Any], reference: Mapping[str, Any]) -> Tile:
    """Measured where there are labels, else estimated."""
    if "top1" in row:
        low, high = row["top1_interval_95"]
        return Tile(
            "Top-1, measured",
            f"{100 * row['top1']:.2f} %",
            f"{100 * low:.1f} to {100 * high:.1f} % at 95 % confidence on "
            f"{row['num_images']:,} images; float {100 * reference['top1']:.2f} %",
        )
    estimate = row["estimate"]
    if "accuracy_loss" in estimate:
        return Tile(
            "Accuracy lost, estimated",
            f"{estimate['accuracy_loss']:.1f} points",
            f"{estimate['largest_accuracy_loss']:.1f} at worst, as far as is known; no "
            "labelled images were given",
        )
    if "label_agreement" in estimate:
        share = 100 * estimate["label_agreement"]
        return Tile(
            "Labels as in float", f"{share:.1f} %", "on held-out synthetic images"
        )
    return Tile(
        "Signal above error",
        f"{estimate['signal_to_noise_db']:.1f} dB",
        "of the outputs, on held-out synthetic images",
    )


def _proofs(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    for row in rows:
        verification = row["verification"]
        agreement = verification["student_agreement"]
        found.append(
            f"{row['title']}: {len(verification['rules'])} rules hold; "
            f"{100 * agreement['exact_outputs']:.2f} % of outputs exact, at most "
            f"{agreement['max_lsb']} LSB off, by {agreement['runtime']}"
        )
    return found


def _losses(rows: Sequence[Mapping[str, Any]]) -> str | None:
    known = any(
        "top1" in row or "accuracy_loss" in row.get("estimate", {}) for row in rows[1:]
    )
    return charts.losses(rows) if known else None


def _features(summary: dict[str, Any], images: ImagePool) -> str:
    """A chart of examples that are no pictures, in units of their own."""
    preprocessing = input_format_of(summary).preprocessing
    values = images.pixels[:_NUM_FEATURES].astype(np.float64)
    if preprocessing.input_range is not None:
        low, high = np.transpose(preprocessing.input_range)
        values = low + values * (high - low) / 255
    return charts.features(values)


def _commands(summary: Mapping[str, Any]) -> list[str]:
    """What makes the run again: as it was made, and from the manifest beside it."""
    return [_as_made(summary), *_from_manifest(summary)]


def _from_manifest(summary: Mapping[str, Any]) -> list[str]:
    manifest = summary["manifest"]
    if manifest is None:
        return []
    if manifest["from_program"]:
        objects = ", ".join(f"{name}={name}" for name in manifest["from_program"])
        return [f"gdfq_tf.quantize_from_manifest('.', {objects})  # in this folder"]
    return ["gdfq quantize --from_manifest=. --output_dir=again  # in this folder"]


def _as_made(summary: Mapping[str, Any]) -> str:
    given = summary.get("command")
    if not given:
        bits = ",".join(
            row["title"].split()[-1] for row in summary["models"] if "widths" in row
        )
        return (
            f"gdfq_tf.quantize(model, bits={bits!r}, "
            f"recipe={summary['recipe']['name']!r}, seed={summary['seed']}, "
            f"target={summary['target']!r})"
        )
    program, *arguments = given
    program = "gdfq" if program.endswith("gdfq") else f"python {shlex.quote(program)}"
    return f"{program} {shlex.join(arguments)}"


def _bytes(count: int) -> str:
    """For people."""
    if count < 10_000:
        return f"{count:,} bytes"
    return f"{count / 1000:,.0f} kB" if count < 10**7 else f"{count / 10**6:,.1f} MB"


def _share_of_bar(decibels: float) -> float:
    """How much of a bar a signal-to-noise ratio fills, percent."""
    share = (decibels - _BAD_SIGNAL) / (_GOOD_SIGNAL - _BAD_SIGNAL)
    return round(100 * min(1.0, max(0.02, share)))


def _resource(name: str) -> str:
    path = importlib.resources.files("gdfq_tf.report") / "files" / name
    return path.read_text(encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gdfq_tf.report", "files"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": _bytes, "bar": _share_of_bar, "less": less}
    return environment.get_template("report.html.jinja")
