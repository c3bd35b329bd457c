r"""What files compute on several runtimes, beside the simulation of their target.

    python -m benchmarks.parity --model=classifier.keras --preprocessing=torch \
        --data=test.npz --bits=w8a8,w4a8,w4a4/paper --output=parity.json

Recipe `calibrate` makes the students; each is written for LiteRT and for TensorFlow
Lite for Microcontrollers. Both files run on LiteRT with and without XNNPACK and, where
tflite-micro is installed, on TFLM, over random inputs and the first ones of --data. Of
outputs: the share that equals the simulation of the file's target, the largest
difference in steps of the output, and how many inputs get another class. Rows that
--output already holds are not measured again.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from benchmarks import commands
from benchmarks.commands import Row, key_of
from gdfq_tf.classifier import Classifier
from gdfq_tf.cli.labelled_images import read_labelled_images
from gdfq_tf.config import RECIPES, parse_bit_widths
from gdfq_tf.embedded import TEST_IMAGES_PATH
from gdfq_tf.job import Job
from gdfq_tf.pipeline import quantize
from gdfq_tf.progress import ConsoleProgress
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError
from tflite_export.integer_network import IntegerNetwork
from tflite_export.operator_forms import in_forms_of
from tflite_export.target_kernels import infer
from tflite_export.targets import TARGETS
from tflite_export.tflm.runtime import TFLMClassifier, is_installed, version
from tflite_export.verification.verify import compare_outputs

_RECIPE = RECIPES["calibrate"]
_FILES_FOR = ("litert", "tflm")

Run = Callable[[bytes, np.ndarray], np.ndarray]


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    commands.define_classifier_flags(defined)
    defined.group("The benchmark")
    defined.string("data", "Labelled images; of the embedded classifier its own.")
    defined.texts("bits", "w8a8,w4a8,w4a4/paper", "Widths, as of gdfq quantize.")
    defined.integer("num_images", 1000, "Inputs of each sort.", low=1)
    defined.string("output", "JSON file, extended row by row.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output = Path(values.output)
    rows = commands.read_rows(output)
    classifier = commands.load_classifier_from_flags(values)
    sorts = _inputs(classifier, values)
    for width in map(parse_bit_widths, values.bits):
        done = set(map(key_of, rows))
        keys = {
            (classifier.name, _recipe(target, runtime, sort), 0, width.name)
            for target in _FILES_FOR
            for runtime in _runtimes()
            for sort in sorts
        }
        if keys <= done:
            continue
        (model,) = quantize(
            Job(classifier, _RECIPE, (width,)), progress=ConsoleProgress()
        )
        common = {"model": classifier.name, "seed": 0, "bits": width.name}
        rows = [row for row in rows if key_of(row) not in keys]
        rows += [common | row for row in measure(model.network, sorts)]
        commands.write_rows(output, rows)
    rich.console.Console(width=140).print(_table(rows))


def measure(network: IntegerNetwork, sorts: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """A row for each target, runtime and sort of int8 inputs (N, *input_shape)."""
    for target in _FILES_FOR:
        student = in_forms_of(TARGETS[target], network)
        tflite = convert_network(student)
        for sort, inputs in sorts.items():
            expected = infer(student, inputs)
            for runtime, run in _runtimes().items():
                yield {
                    "recipe": _recipe(target, runtime, sort),
                    "target": target,
                    "runtime": runtime,
                    "inputs": sort,
                    "num_inputs": len(inputs),
                    **_figures(run, tflite, inputs, expected),
                    "machine": platform.machine(),
                    "versions": _versions(),
                }


def _figures(
    run: Run, tflite: bytes, inputs: np.ndarray, expected: np.ndarray
) -> dict[str, object]:
    try:
        outputs = run(tflite, inputs)
    except ExportError as error:
        return {"refused": str(error)}
    agreement = compare_outputs(expected, outputs)
    changed = outputs.argmax(axis=1) != expected.argmax(axis=1)
    return {
        "exact_outputs": agreement.exact_outputs,
        "max_lsb": agreement.max_lsb,
        "classes_changed": int(changed.sum()),
    }


def _inputs(classifier: Classifier, values: flags.FlagValues) -> dict[str, np.ndarray]:
    count = values.num_images
    data = read_labelled_images(
        values.data or str(TEST_IMAGES_PATH), classifier.input_format, count
    )
    pixels = classifier.input_format.images(data.pixels)
    shape = (count, *classifier.example_shape)
    real = classifier.preprocessing.to_int8(pixels)
    return {
        "random": np.random.default_rng(0).integers(-128, 128, shape, np.int8),
        "real": real.reshape(-1, *classifier.example_shape),
    }


def _recipe(target: str, runtime: str, sort: str) -> str:
    """As other benchmarks name what tells rows apart."""
    return f"file for {target}, on {runtime}, {sort} inputs"


def _runtimes() -> dict[str, Run]:
    found = {
        "XNNPACK": _litert(OpResolverType.AUTO),
        "LiteRT without delegates": _litert(
            OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        ),
    }
    if is_installed():
        found["TFLM"] = lambda tflite, inputs: TFLMClassifier(tflite).run(inputs)
    return found


def _litert(resolver: OpResolverType) -> Run:
    def run(tflite: bytes, inputs: np.ndarray) -> np.ndarray:
        interpreter = Interpreter(
            model_content=tflite, experimental_op_resolver_type=resolver
        )
        interpreter.allocate_tensors()
        (given,) = interpreter.get_input_details()
        (result,) = interpreter.get_output_details()
        outputs = []
        for image in inputs:
            interpreter.set_tensor(given["index"], image[np.newaxis])
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(result["index"])[0])
        return np.stack(outputs)

    return run


def _versions() -> dict[str, str]:
    versions = {"ai-edge-litert": importlib.metadata.version("ai-edge-litert")}
    return versions | ({"tflite-micro": version()} if is_installed() else {})


def _table(rows: list[Row]) -> rich.table.Table:
    """One line per network, width, target, runtime and sort of inputs."""
    table = rich.table.Table(box=rich.box.MARKDOWN)
    for title in ("network", "width", "file for", "runtime", "inputs"):
        table.add_column(title)
    for title in ("exact", "LSB", "other class"):
        table.add_column(title, justify="right")
    for row in rows:
        figures = ("refused", "", "")
        if "refused" not in row:
            exact = f"{100 * row['exact_outputs']:.2f}"
            figures = (exact, str(row["max_lsb"]), str(row["classes_changed"]))
        names = ("model", "bits", "target", "runtime", "inputs")
        table.add_row(*(row[name] for name in names), *figures)
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
