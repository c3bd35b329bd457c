r"""Flash, memory and instructions of firmware on Cortex-M processors, in QEMU.

    python -m benchmarks.firmware --students=runs/x/x_w8a8_student.npz,... \
        --output=firmware.json

It needs Debian's gcc-arm-none-eabi, picolibc-arm-none-eabi and qemu-system-arm.
Instructions are those of one inference: QEMU counts one for each nanosecond of its
clock, and SysTick, which is read after each step of the network, has one tick in 40,
or 31.25 on the machine with a Cortex-M55, whose memory is too small for large networks.
Flash is code and constants of model.c alone. Rows that --output already holds are not
measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks import commands
from benchmarks.commands import Row, key_of
from tflite_export.c99.emulation import PROCESSORS, measure_firmware
from tflite_export.integer_network import IntegerNetwork
from tflite_export.student_file import load_network

_WITH_LAYERS = "cortex-m4"  # of this processor, rows have each layer


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.texts("students", [], "*_student.npz files of runs.")
    defined.texts("processors", list(PROCESSORS), "Which.")
    defined.string("output", "JSON file, extended row by row.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output = Path(values.output)
    rows = commands.read_rows(output)
    for student in map(Path, values.students):
        name, _, bits = student.name.removesuffix("_student.npz").rpartition("_w")
        network = load_network(student)
        for processor in values.processors:
            if (name, processor, 0, f"w{bits}") not in set(map(key_of, rows)):
                rows.append(measure(network, name, f"w{bits}", processor))
                commands.write_rows(output, rows)
    console = rich.console.Console(width=140)
    console.print(_table(rows))
    for row in rows:
        if "layers" in row:
            console.print(_layers_table(row))


def measure(network: IntegerNetwork, name: str, bits: str, processor: str) -> Row:
    """The row of a network that has these widths."""
    figures = measure_firmware(network, name, processor).to_dict()
    steps = figures.pop("steps")
    return {
        "model": name,
        "recipe": figures.pop("processor"),  # what tells rows of benchmarks apart
        "seed": 0,
        "bits": bits,
        **figures,
        "kinds": _of_kinds(steps),
        # Of one processor, as they differ in much the same way on all.
        **(
            {"layers": [step for step in steps if step["multiply_adds"]]}
            if processor == _WITH_LAYERS
            else {}
        ),
    }


def _of_kinds(layers: Sequence[Row]) -> dict[str, list[int]]:
    """Kind of operation -> instructions and multiply-adds of all of its layers."""
    found: dict[str, list[int]] = {}
    for layer in layers:
        figures = found.setdefault(layer["kind"], [0, 0])
        figures[0] += layer["instructions"]
        figures[1] += layer["multiply_adds"]
    return found


def _table(rows: list[Row]) -> rich.table.Table:
    """One line per network, width and processor."""
    table = rich.table.Table(box=rich.box.MARKDOWN)
    for title in ("network", "width", "processor"):
        table.add_column(title)
    for title in ("flash", "arena", "bound", "instructions", "of a MAC", "equal"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row["model"],
            row["bits"],
            row["recipe"],
            f"{row['flash_bytes']:,}",
            f"{row['arena_bytes']:,}",
            f"{row['arena_lower_bound']:,}",
            f"{row['instructions']:,}",
            f"{row['instructions'] / row['multiply_adds']:.2f}",
            f"{row['num_inputs'] - row['num_wrong']} of {row['num_inputs']}",
        )
    return table


def _layers_table(row: Row) -> rich.table.Table:
    """One line per layer with multiply-adds."""
    title = f"{row['model']}, {row['bits']}, {row['recipe']}"
    table = rich.table.Table(title=title, box=rich.box.MARKDOWN)
    for column in ("layer", "kind"):
        table.add_column(column)
    for column in ("instructions", "multiply-adds", "of each"):
        table.add_column(column, justify="right")
    for layer in row["layers"]:
        instructions, count = layer["instructions"], layer["multiply_adds"]
        table.add_row(
            layer["name"],
            layer["kind"],
            f"{instructions:,}",
            f"{count:,}",
            f"{instructions / count:.2f}",
        )
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="students")
