"""`gdfq quantize`: a classifier in, a run directory and a verdict out.

Labelled images, if given, are used for the closing table alone, after everything has
been quantized.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import rich.console
from absl import flags

from gdfq_tf import embedded
from gdfq_tf.checkpoints import SavedCheckpoints, facts_digest
from gdfq_tf.classifier import Classifier
from gdfq_tf.cli import session
from gdfq_tf.cli.class_names import numbering, read_class_names
from gdfq_tf.cli.classifier_flags import (
    given_preprocessing,
    load_classifier_from_flags,
    require_classes,
)
from gdfq_tf.cli.distributing import strategy_of, take_part
from gdfq_tf.cli.flags import manifest_options
from gdfq_tf.cli.float_doubts import float_doubts
from gdfq_tf.cli.labelled_images import LabelledImages, read_labelled_images
from gdfq_tf.cli.reporting import results_table, trade_off_table
from gdfq_tf.cli.resuming import open_checkpoints
from gdfq_tf.cli.runner import CommandProgress
from gdfq_tf.config import BitWidths, Limits, get_recipe, parse_bit_widths
from gdfq_tf.disk_needs import disk_need, require_room
from gdfq_tf.distribution.cluster import writes
from gdfq_tf.distribution.strategies import Strategy, num_processes, wait_for_all
from gdfq_tf.errors import UserError
from gdfq_tf.job import Job
from gdfq_tf.manifest import Manifest, read_manifest
from gdfq_tf.pipeline import quantize
from gdfq_tf.progress import Progress, whole_stage
from gdfq_tf.provenance import (
    image_facts,
    make_manifest,
    require_same_classifier,
    run_facts,
)
from gdfq_tf.result import Result
from gdfq_tf.run_directory import (
    SYNTHETIC_IMAGES,
    claim_run_directory,
    read_images,
    write_images,
    write_student,
)
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system.machine import fix_num_threads
from gdfq_tf.system.output_directory import OutputDirectory
from gdfq_tf.verdict import complaints, verdict
from tflite_export.integer_network import IntegerNetwork
from tflite_export.target_rules import warnings_of


def main(values: flags.FlagValues) -> None:
    """The whole run, from flags to summary.json and the closing words."""
    if values.num_threads is not None:
        fix_num_threads(values.num_threads)
    if values.from_manifest is not None:
        manifest = read_manifest(Path(values.from_manifest))
        manifest.require_files(manifest_options(values))
    if not writes(values.distribution):
        take_part(values, functools.partial(_train, values))
        return
    path = Path(values.output_dir).expanduser()
    with claim_run_directory(path, overwrite=values.overwrite) as output:
        session.holds(output.lock, output.partial, output.removed)
        _run(output, values)


def _train(
    values: flags.FlagValues,
    classifier: Classifier,
    strategy: Strategy,
    progress: CommandProgress,
) -> None:
    pool = _given_images(values, progress)
    quantize(_job(values, classifier, strategy), pool=pool, progress=progress)


def _job(
    values: flags.FlagValues,
    classifier: Classifier,
    strategy: Strategy,
    names: tuple[str, ...] = (),
) -> Job:
    return Job(
        classifier,
        get_recipe(values.recipe, values.num_steps),
        tuple(parse_bit_widths(text) for text in values.bits),
        tuple(values.keep_layers),
        Limits(values.max_accuracy_loss, values.max_bytes, values.max_latency_ratio),
        values.seed,
        values.target,
        values.input_type,
        values.output_type,
        names,
        strategy,
    )


def _run(output: OutputDirectory, values: flags.FlagValues) -> None:
    progress = CommandProgress(values)
    strategy = strategy_of(values, progress)
    with whole_stage(progress, "loading"):
        classifier = load_classifier_from_flags(values)
        # Read now to refuse wrong data early; used after quantization only.
        names = read_class_names(values.labels)
        data = _read_data(classifier, values, names)
    if data is not None and data.class_names is not None:
        names = data.class_names
    job = _job(values, classifier, strategy, names)
    need = disk_need(classifier.model, job.recipe, job.bit_widths)
    require_room(need, classifier.name, output.path.parent, output.state)
    manifest = _manifest_of(values, job)
    pool, earlier = _given_images(values, progress), None
    # Other processes would make images that this one has.
    reuses = values.overwrite and not values.fresh and num_processes(strategy) == 1
    if pool is None and reuses and not job.alternates:
        earlier = _earlier_images(output, job, progress)
    started = time.monotonic()
    result = quantize(
        job,
        pool=pool,
        earlier=earlier,
        on_student=functools.partial(_save_student, output, classifier.name),
        progress=progress,
        checkpoints=open_checkpoints(
            SavedCheckpoints(output.state, run_facts(job, pool)),
            progress,
            fresh=values.fresh,
        ),
    )
    result = dataclasses.replace(result, manifest=manifest)
    images = (None, None) if data is None else (data.pixels, data.labels)
    rows = result.compare(*images, progress=progress)
    doubts = []
    if data is not None:
        given = given_preprocessing(values, classifier)
        doubts = float_doubts(classifier, given, data, rows[0])
    summary = _summary(result, rows, values, progress)
    taken = time.monotonic() - started
    summary["seconds"]["total"] = taken + result.earlier_seconds
    session.stage("writing")
    output.publish(
        lambda directory: result.write(directory, summary),
        session.fallback_directories(),
    )
    wait_for_all(strategy)
    _close(result, summary, values.output_dir, doubts)


def _given_images(
    values: flags.FlagValues, progress: CommandProgress
) -> ImagePool | None:
    """Images that the flags name in place of synthetic ones."""
    if values.images is None:
        return None
    images = read_images(Path(values.images))
    progress.note(f"works with the {len(images)} images of {values.images}")
    return images


def _earlier_images(
    output: OutputDirectory, job: Job, progress: CommandProgress
) -> ImagePool | None:
    """Those of the run that is to be replaced, if they depend on the same."""
    try:
        if read_manifest(output.path).images != facts_digest(image_facts(job)):
            return None
        images = read_images(output.path)
    except UserError:  # there is no run, or one of an earlier version
        return None
    progress.note(f"takes the {len(images)} images of the earlier run in {output.path}")
    return images


def _manifest_of(values: flags.FlagValues, job: Job) -> Manifest:
    """What the run is made from; what it was to be made from is held against it."""
    options = {**manifest_options(values), "labels": list(job.labels)}
    made = make_manifest(job, options)
    if values.from_manifest is not None:
        earlier = read_manifest(Path(values.from_manifest))
        require_same_classifier(earlier, job.classifier)
        if found := earlier.differences(made.versions, made.machine):
            warnings.warn(
                f"bytes may differ from the earlier run's: {'; '.join(found)}",
                stacklevel=2,
            )
    return made


def _read_data(
    classifier: Classifier, values: flags.FlagValues, class_names: tuple[str, ...]
) -> LabelledImages | None:
    spec = values.data
    if spec is None and values.model == embedded.NAME:
        spec = str(embedded.TEST_IMAGES_PATH)
    if spec is None:
        return None
    require_classes(classifier.name, classifier.head)
    return read_labelled_images(
        spec,
        classifier.input_format,
        values.num_images,
        num_classes=classifier.num_classes,
        class_names=class_names,
    )


def _save_student(
    output: OutputDirectory,
    name: str,
    bit_widths: BitWidths,
    network: IntegerNetwork,
    images: ImagePool,
) -> None:
    """Saves what took long before native code, which may crash, is called on it."""

    def write(directory: Path) -> None:
        write_student(directory, name, bit_widths, network)
        if not (directory / SYNTHETIC_IMAGES).exists():
            write_images(directory, images)

    output.save_early(write)
    unfinished = output.path.with_name(f"{output.path.name}-unfinished")
    session.worth_keeping(output.partial, unfinished)


def _summary(
    result: Result,
    rows: list[dict[str, Any]],
    values: flags.FlagValues,
    progress: Progress,
) -> dict[str, Any]:
    labelled = "top1" in rows[0]
    summary = result.summary(
        rows,
        progress=progress,
        command=sys.argv,
        evaluated_on=values.data or ("embedded" if labelled else None),
    )
    summary["classifier"]["source"] = values.model
    return summary


def _input_formulas(summary: dict[str, Any]) -> list[str]:
    """What is computed for the input of the files, a line for each of its types."""
    classifier = summary["classifier"]
    own = [row for row in summary["models"] if "widths" in row]
    wide = [row for row in own if "int16_input" in row]
    end, formulas = classifier["input_type"], {}
    if len(wide) < len(own):
        formulas[end] = classifier[f"{end}_input"]
    if wide:
        formulas["int16"] = wide[0]["int16_input"]
    return [
        f"{end} input: {formula}, for {classifier['input']}"
        for end, formula in formulas.items()
    ]


def _close(
    result: Result, summary: dict[str, Any], output_dir: str, doubts: list[str]
) -> None:
    """The table, what is proven and estimated, and what to ship."""
    rows, name = summary["models"], result.job.classifier.name
    images = "labelled test" if "top1" in rows[0] else "synthetic"
    console = rich.console.Console()
    title = f"{name}, {rows[0]['num_images']} {images} images"
    names = summary["class_names"]
    foot = numbering(names) if names else None
    console.print(results_table(title, rows, complaints(summary), foot))
    for row in rows:
        if "trade_off" in row:
            console.print(trade_off_table(row["title"], row["trade_off"]))
    seconds = summary["seconds"]["total"]
    lines = [
        *_input_formulas(summary),
        "verified against the student: "
        + ", ".join(
            f"{model.bit_widths.name} {100 * model.agreement.exact_outputs:.2f} % of "
            f"outputs exact, at most {model.agreement.max_lsb} LSB off"
            for model in result.models
        )
        + ", by "
        + " and ".join(dict.fromkeys(x.agreement.runtime for x in result.models)),
        *(
            f"kernels at 8 bits in {model.bit_widths.name} "
            + ", ".join(sorted(model.layers_at_8_bits))
            for model in result.models
            if model.bit_widths.weight_bits < 8 and model.layers_at_8_bits
        ),
        "estimated without data: "
        + ", ".join(
            f"{model.bit_widths.name} {model.estimate.in_words()}"
            for model in result.models
        ),
    ]
    if result.job.fits_noise:
        lines.append(
            "recipe calibrate has no images but noise, so its estimates may be off by "
            "tens of points; --recipe=fast makes some in a minute or a few"
        )
    if not result.job.classifier.has_bn_statistics:
        lines.append("no BatchNormalization statistics were used: the model has none")
    lines.append(f"written to {output_dir} in {seconds:.0f} s")
    for model in result.models:
        lines += [f"! {model.bit_widths.name}: {x}" for x in warnings_of(model.network)]
    if result.job.could_train:
        lines.append(
            "a longer --recipe trains students of few bits besides, which as a rule "
            "brings them nearer to float; at 8 bits it buys nothing"
        )
    lines += [*doubts, *verdict(summary)]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
