r"""What files compute on several runtimes, beside the simulation of their target.

    gdfq quantize classifier.keras --recipe=calibrate --bits=w8a8,w4a8,w4a4/paper \
        --output_dir=runs/x
    python -m benchmarks.parity --run_dir=runs/x --data=test.npz --output=parity.json

Each student of the run is written for LiteRT and for TensorFlow Lite for
Microcontrollers. Both files run on LiteRT with and without XNNPACK and, where
tflite-micro is installed, on TFLM, over random inputs and the first ones of --data; the
firmware in C99, compiled with cc, has the arithmetic of LiteRT. Of outputs: the share
that equals the simulation of the file's target, the largest difference in steps of the
output, and how many inputs get another class. Rows that --output already holds are not
measured again.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from benchmarks import commands
from benchmarks.commands import Row, key_of
from gdfq_tf.cli.labelled_images import read_labelled_images
from gdfq_tf.run_directory import input_format_of, read_summary, student_file
from tflite_export.c99.firmware import Description, make_firmware
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError
from tflite_export.integer_network import IntegerNetwork
from tflite_export.operator_forms import in_forms_of
from tflite_export.student_file import load_network
from tflite_export.target_kernels import infer
from tflite_export.targets import TARGETS
from tflite_export.tflm.runtime import TFLMClassifier, is_installed, version
from tflite_export.verification.verify import compare_outputs

_FILES_FOR = ("litert", "tflm")

Run = Callable[[np.ndarray], np.ndarray]


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.string("run_dir", "Directory of a run.", required=True)
    defined.string("data", "Labelled inputs.", required=True)
    defined.integer("num_images", 1000, "Inputs of each sort.", low=1)
    defined.string("output", "JSON file, extended row by row.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output, run_dir = Path(values.output), Path(values.run_dir)
    rows = commands.read_rows(output)
    summary = read_summary(run_dir)
    input_format = input_format_of(summary)
    data = read_labelled_images(values.data, input_format, values.num_images)
    name = summary["classifier"]["name"]
    for model in summary["models"]:
        student = run_dir / student_file(model["file"])
        if not student.exists():
            continue  # a baseline
        network = load_network(student)
        shape = (values.num_images, *network.input_shape)
        sorts = {
            "random": np.random.default_rng(0).integers(-128, 128, shape, np.int8),
            "real": network.examples(
                input_format.preprocessing.to_integers(data.pixels)
            ),
        }
        bits = model["file"].removeprefix(f"{name}_").removesuffix(".tflite")
        common = {"model": name, "seed": 0, "bits": bits}
        for target, sort in itertools.product(_FILES_FOR, sorts):
            done = set(map(key_of, rows))
            missing = [
                runtime
                for runtime in _RUNTIMES
                if _can_run(target, runtime)
                and (name, _recipe(target, runtime, sort), 0, bits) not in done
            ]
            for row in measure(network, target, missing, sorts[sort], sort):
                rows.append(common | row)
                commands.write_rows(output, rows)
    rich.console.Console(width=140).print(_table(rows))


def measure(
    network: IntegerNetwork,
    target: str,
    runtimes: Sequence[str],
    inputs: np.ndarray,
    sort: str,
) -> Iterator[Row]:
    """What runtimes make of a target's file, beside the simulation of the target.

    Args:
      network: for LiteRT.
      target: one of `_FILES_FOR`.
      runtimes: of `_RUNTIMES`.
      inputs: int8 (N, *input_shape).
      sort: of inputs.
    """
    student = in_forms_of(TARGETS[target], network)
    if not runtimes:
        return
    expected = infer(student, inputs)
    for runtime in runtimes:
        yield {
            "recipe": _recipe(target, runtime, sort),
            "target": target,
            "runtime": runtime,
            "inputs": sort,
            "num_inputs": len(inputs),
            **_figures(_RUNTIMES[runtime], student, inputs, expected),
            "machine": platform.machine(),
            "versions": _versions(),
        }


def _can_run(target: str, runtime: str) -> bool:
    """C99 has the arithmetic of one target, and TFLM has to be installed."""
    if runtime == _C99:
        return target == "litert"
    return runtime != _TFLM or is_installed()


def _figures(
    run: Callable[[IntegerNetwork], Run],
    student: IntegerNetwork,
    inputs: np.ndarray,
    expected: np.ndarray,
) -> dict[str, object]:
    try:
        outputs = run(student)(inputs)
    except ExportError as error:
        return {"refused": str(error)}
    agreement = compare_outputs(expected, outputs)
    changed = outputs.argmax(axis=1) != expected.argmax(axis=1)
    return {
        "exact_outputs": agreement.exact_outputs,
        "max_lsb": agreement.max_lsb,
        "classes_changed": int(changed.sum()),
    }


def _recipe(target: str, runtime: str, sort: str) -> str:
    """As other benchmarks name what tells rows apart."""
    return f"file for {target}, on {runtime}, {sort} inputs"


def _litert(resolver: OpResolverType) -> Callable[[IntegerNetwork], Run]:
    def load(student: IntegerNetwork) -> Run:
        interpreter = Interpreter(
            model_content=convert_network(student),
            experimental_op_resolver_type=resolver,
        )
        interpreter.allocate_tensors()
        (given,) = interpreter.get_input_details()
        (result,) = interpreter.get_output_details()

        def run(inputs: np.ndarray) -> np.ndarray:
            outputs = []
            for image in inputs:
                interpreter.set_tensor(given["index"], image[np.newaxis])
                interpreter.invoke()
                outputs.append(interpreter.get_tensor(result["index"])[0])
            return np.stack(outputs)

        return run

    return load


def _compiled(student: IntegerNetwork) -> Run:
    """The C99 firmware, compiled for this machine."""

    def run(inputs: np.ndarray) -> np.ndarray:
        made = make_firmware(student, Description("parity"), inputs[:1])
        with tempfile.TemporaryDirectory() as path:
            for name in ("model.c", "model.h"):
                Path(path, name).write_text(made.files[name])
            Path(path, "main.c").write_text(_PROGRAM)
            command = ["cc", "-std=c99", "-O2", "main.c", "model.c", "-o", "main"]
            subprocess.run(command, cwd=path, check=True)
            done = subprocess.run(
                [f"{path}/main"],
                input=inputs.tobytes(),
                check=True,
                capture_output=True,
            )
        return np.frombuffer(done.stdout, np.int8).reshape(len(inputs), -1)

    return run


_PROGRAM = """
#include <stdio.h>

#include "model.h"

int main(void) {
  static int8_t input[MODEL_INPUT_SIZE], output[MODEL_OUTPUT_SIZE];
  while (fread(input, sizeof input, 1, stdin)) {
    model_invoke(input, output);
    fwrite(output, sizeof output, 1, stdout);
  }
  return 0;
}
"""
_TFLM, _C99 = "TFLM", "C99"
_RUNTIMES: Mapping[str, Callable[[IntegerNetwork], Run]] = {
    "XNNPACK": _litert(OpResolverType.AUTO),
    "LiteRT without delegates": _litert(
        OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    ),
    _TFLM: lambda student: TFLMClassifier(convert_network(student)).run,
    _C99: _compiled,
}


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
    commands.run(main, define_flags(), __doc__, bare="run_dir")
