"""Top-1 of float classifiers, students and `.tflite` files on labelled images.

    python tools/evaluate.py --model=runs/demo --data=cifar10_test.npz
    python tools/evaluate.py --model=model.tflite --data=cifar10 --preprocessing=unit

--model is a run directory (everything in it), a `.tflite` file, a `*_student.npz`
or a float classifier. What lies in a run directory knows its preprocessing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rich.console
from absl import flags

from gdfq_tf import embedded
from gdfq_tf.cli import classifier_flags, reporting, session
from gdfq_tf.cli.classifier_flags import (
    EMBEDDED,
    load_classifier_from_flags,
    preprocessing_from_flags,
    require_classes,
)
from gdfq_tf.cli.labelled_images import read_labelled_images
from gdfq_tf.cli.output_files import write_whole
from gdfq_tf.errors import UserError
from gdfq_tf.preprocessing import Preprocessing
from gdfq_tf.run_directory import (
    model_and_student_files,
    preprocessing_of,
    read_summary,
    student_file,
)
from tflite_export.interpreter import TFLiteClassifier, read_tflite
from tflite_export.student_file import load_network

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(classifier_flags)  # so that --help shows them
flags.DEFINE_string(
    "data",
    None,
    "Labelled images: .npz, keras.datasets name, or folder of class folders.",
)
flags.DEFINE_integer("num_images", None, "How many of them at most.", lower_bound=1)
flags.DEFINE_string("result_json", None, "Also write the results to this file.")


def main() -> None:
    """Evaluates every model that --model names on the same images."""
    data = FLAGS.data
    if data is None and FLAGS.model == EMBEDDED:
        data = str(embedded.TEST_IMAGES_PATH)
    if data is None:
        raise UserError(
            "--data is missing; pass an .npz file, a keras.datasets name or a folder "
            "of class folders"
        )
    rows = [_evaluate(path, data) for path in _models(FLAGS.model)]
    if FLAGS.result_json:
        write_whole(Path(FLAGS.result_json), json.dumps(rows, indent=2).encode())
    title = f"{rows[0]['num_images']} images of {data}"
    rich.console.Console().print(reporting.results_table(title, rows))


def _models(model: str) -> Iterator[str]:
    path = Path(model)
    if not path.is_dir():
        yield model
        return
    for row in read_summary(path)["models"]:
        yield str(path / row["file"])
        student = path / student_file(row["file"])
        if student.exists():
            yield str(student)


def _evaluate(model: str, data: str) -> dict:
    path = Path(model)
    session.stage(
        f"{'LiteRT on' if path.suffix == '.tflite' else 'evaluation of'} {path}"
    )
    summary = _summary_of(path)
    if summary is not None:
        require_classes(path.name, summary["classifier"]["head"])
    if path.suffix == ".tflite":
        session.stage(f"LiteRT on {path}")
        tflite = read_tflite(path)
        shape = TFLiteClassifier(tflite).input_shape[1:]
        images = read_labelled_images(data, shape, FLAGS.num_images)
        preprocessing = _preprocessing(path, shape[-1], summary)
        outputs = reporting.tflite_outputs(tflite, preprocessing, images.pixels)
    elif path.suffix == ".npz":
        network = load_network(path)
        shape = network.input_shape
        images = read_labelled_images(data, shape, FLAGS.num_images)
        preprocessing = _preprocessing(path, shape[-1], summary)
        outputs = reporting.student_outputs(network, preprocessing, images.pixels)
    else:
        session.stage("loading")
        classifier = load_classifier_from_flags()
        require_classes(classifier.name, classifier.head)
        images = read_labelled_images(
            data,
            classifier.input_shape,
            FLAGS.num_images,
            num_classes=classifier.num_classes,
        )
        outputs = reporting.float_logits(classifier, images.pixels)
    if images.labels.max() >= outputs.shape[-1]:
        raise UserError(
            f"{data} has labels up to {images.labels.max()}, but {model} knows "
            f"{outputs.shape[-1]} classes; pass the data it was trained for"
        )
    facts = reporting.accuracy_facts(np.asarray(outputs), images.labels, None)
    return {"title": path.name, **facts}


def _summary_of(path: Path) -> dict | None:
    """The summary of the run that wrote a file, if one did."""
    try:
        summary = read_summary(path.parent)
    except UserError:  # none, or some other program's
        return None
    return summary if path.name in model_and_student_files(summary) else None


def _preprocessing(path: Path, channels: int, summary: dict | None) -> Preprocessing:
    """As the flags say, else as the summary of the run says that wrote the file."""
    if FLAGS.preprocessing:
        return preprocessing_from_flags(channels)
    if summary is not None:
        return preprocessing_of(summary)
    raise UserError(
        f"{path} does not tell how its input was scaled and lies in no run directory; "
        "pass --preprocessing"
    )
