"""`gdfq evaluate`: top-1 on labelled images.

Of a run directory (everything in it), a `.tflite` file, a `*_student.npz` or a float
classifier. What lies in a run directory knows its preprocessing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rich.console
from absl import flags

from gdfq_tf import embedded, evaluation
from gdfq_tf.classifier import Head
from gdfq_tf.cli import session
from gdfq_tf.cli.class_names import numbering, read_class_names
from gdfq_tf.cli.classifier_flags import (
    given_preprocessing,
    load_classifier_from_flags,
    preprocessing_from_flags,
    require_classes,
)
from gdfq_tf.cli.float_doubts import float_doubts
from gdfq_tf.cli.labelled_images import LabelledImages, read_labelled_images
from gdfq_tf.cli.reporting import results_table
from gdfq_tf.errors import UserError
from gdfq_tf.input_format import InputFormat
from gdfq_tf.run_directory import (
    files_of_models,
    input_format_of,
    read_summary,
    student_file,
)
from gdfq_tf.system.output_files import write_whole
from tflite_export.interpreter import TFLiteClassifier, read_tflite
from tflite_export.presentation import require_labels
from tflite_export.student_file import load_network


def main(values: flags.FlagValues) -> None:
    """Evaluates every model that --model names on the same images."""
    data = values.data or str(embedded.TEST_IMAGES_PATH)
    found = [_evaluate(path, data, values) for path in _models(values.model)]
    rows = [row for row, _ in found]
    if values.result_json:
        write_whole(
            Path(values.result_json),
            json.dumps(rows, indent=2).encode(),
            begin=session.holds,
        )
    title = f"{rows[0]['num_images']} images of {data}"
    names = rows[0].get("class_names")
    foot = numbering(names) if names else None
    console = rich.console.Console()
    console.print(results_table(title, rows, foot=foot))
    for _, doubts in found:
        for line in doubts:
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _models(model: str) -> Iterator[str]:
    path = Path(model).expanduser()
    if not path.is_dir():
        yield model
        return
    for row in read_summary(path)["models"]:
        yield str(path / row["file"])
        student = path / student_file(row["file"])
        if student.exists():
            yield str(student)


def _evaluate(
    model: str, data: str, values: flags.FlagValues
) -> tuple[dict, list[str]]:
    """A model's row, and what `float_doubts` says of a float classifier."""
    path = Path(model).expanduser()
    session.stage(
        f"{'LiteRT on' if path.suffix == '.tflite' else 'evaluation of'} {path}"
    )
    summary = _summary_of(path)
    if summary is not None:
        require_classes(path.name, Head(summary["classifier"]["head"]))
    classifier = None
    if path.suffix == ".tflite":
        session.stage(f"LiteRT on {path}")
        tflite = read_tflite(path)
        shape = TFLiteClassifier(tflite).input_shape[1:]
        taken = _input_format(path, shape, summary, values)
        images = _read(data, taken, values)
        outputs = evaluation.tflite_outputs(
            tflite, taken.preprocessing, taken.images(images.pixels)
        )
    elif path.suffix == ".npz":
        network = load_network(path)
        taken = _input_format(path, network.input_shape, summary, values)
        images = _read(data, taken, values)
        outputs = evaluation.student_outputs(
            network, taken.preprocessing, taken.images(images.pixels)
        )
    else:
        session.stage("loading")
        classifier = load_classifier_from_flags(values)
        require_classes(classifier.name, classifier.head)
        taken = classifier.input_format
        images = _read(data, taken, values, classifier.num_classes)
        outputs = evaluation.float_logits(classifier, taken.images(images.pixels))
    if images.labels.max() >= outputs.shape[-1]:
        raise UserError(
            f"{data} has labels up to {images.labels.max()}, but {model} knows "
            f"{outputs.shape[-1]} classes; pass the data it was trained for"
        )
    if values.labels and images.class_names is not None:
        require_labels(images.class_names, outputs.shape[-1], model)
    facts = evaluation.accuracy_facts(np.asarray(outputs), images.labels, None)
    row = {"title": path.name, **facts}
    if images.class_names is not None:
        row["class_names"] = images.class_names
    if classifier is None:
        return row, []
    given = given_preprocessing(values, classifier)
    return row, float_doubts(classifier, given, images, row)


def _read(
    data: str,
    taken: InputFormat,
    values: flags.FlagValues,
    num_classes: int | None = None,
) -> LabelledImages:
    return read_labelled_images(
        data,
        taken,
        values.num_images,
        num_classes=num_classes,
        class_names=read_class_names(values.labels),
    )


def _summary_of(path: Path) -> dict | None:
    """The summary of the run that wrote a file, if one did."""
    try:
        summary = read_summary(path.parent)
    except UserError:  # none, or some other program's
        return None
    return summary if path.name in files_of_models(summary) else None


def _input_format(
    path: Path,
    shape: tuple[int, ...],
    summary: dict | None,
    values: flags.FlagValues,
) -> InputFormat:
    """As the summary of the run says that wrote a file, but for what flags say."""
    known = None if summary is None else input_format_of(summary)
    if values.preprocessing or values.input_range:
        # Without a run there is nothing but the shape that the file itself tells.
        height, width, channels = (1, 1, *shape)[-3:]
        if known is not None:
            height, width, channels = known.image_shape
        preprocessing = preprocessing_from_flags(values, channels)
        return InputFormat(shape, (height, width, channels), preprocessing)
    if known is not None:
        return known
    raise UserError(
        f"{path} does not tell how its input was scaled and lies in no run directory; "
        "pass --preprocessing, or --input_range for features"
    )
