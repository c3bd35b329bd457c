r"""How long files of each width take in LiteRT beside int8, and how large they are.

    python -m benchmarks.latency --model=classifier.keras --preprocessing=tf \
        --bits=w8a8,w4a8,w4a8/pointwise --output=latency.json

Recipe `calibrate` makes the students: how fast a file is does not depend on what its
weights are. Each file runs in turn with that of the first width, one thread, least
times; --target=tflm gives every layer the operator that it has for microcontrollers,
1x1 convolutions among them. Rows that --output already holds are not measured again.
"""

from __future__ import annotations

from pathlib import Path

import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks import commands
from benchmarks.commands import Row, key_of
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import RECIPES, parse_bit_widths
from gdfq_tf.job import Job
from gdfq_tf.pipeline import quantize
from gdfq_tf.progress import ConsoleProgress
from gdfq_tf.result import QuantizedModel
from gdfq_tf.system.machine import describe_machine
from tflite_export.benchmark import times_as_long
from tflite_export.convert import convert_network
from tflite_export.operator_forms import in_forms_of
from tflite_export.targets import TARGETS

_RECIPE = RECIPES["calibrate"]
# The others have the operators of one of these.
_TARGETS = ("litert", "tflm")


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    commands.define_classifier_flags(defined)
    defined.group("The benchmark")
    defined.texts("bits", "w8a8,w4a8,w4a8/pointwise", "Widths; the first is 1.")
    defined.string("output", "JSON file, extended row by row.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output = Path(values.output)
    rows = commands.read_rows(output)
    classifier = commands.load_classifier_from_flags(values)
    bits = [parse_bit_widths(text).name for text in values.bits]
    wanted = {
        (classifier.name, target, 0, name) for target in _TARGETS for name in bits
    }
    if wanted - set(map(key_of, rows)):
        rows = [row for row in rows if row["model"] != classifier.name]
        rows += measure(classifier, values.bits)
        commands.write_rows(output, rows)
    rich.console.Console(width=120).print(_table(rows))


def measure(classifier: Classifier, bits: list[str]) -> list[Row]:
    """A row for each width and target."""
    widths = tuple(map(parse_bit_widths, bits))
    models = list(
        quantize(Job(classifier, _RECIPE, widths), progress=ConsoleProgress())
    )
    machine, first = describe_machine(), models[0].tflite
    return [
        {
            "model": classifier.name,
            "recipe": target,  # as other benchmarks name what tells rows apart
            "seed": 0,
            "bits": model.bit_widths.name,
            "times_as_long": times_as_long(file, first),
            "size_bytes": len(file),
            "machine": machine,
        }
        for model in models
        for target, file in _files(model).items()
    ]


def _files(model: QuantizedModel) -> dict[str, bytes]:
    """The same student for each target."""
    return {
        name: convert_network(in_forms_of(TARGETS[name], model.network))
        for name in _TARGETS
    }


def _table(rows: list[Row]) -> rich.table.Table:
    """One line per model, width and target."""
    table = rich.table.Table(box=rich.box.MARKDOWN)
    for title in ("model", "width", "target"):
        table.add_column(title)
    table.add_column("bytes", justify="right")
    table.add_column("time", justify="right")
    for row in rows:
        table.add_row(
            row["model"],
            row["bits"],
            row["recipe"],
            f"{row['size_bytes']:,}",
            f"{row['times_as_long']:.2f}",
        )
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
