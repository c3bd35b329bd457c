r"""Outputs of finished files on an emulated 64-bit ARM processor, beside x86-64.

    gdfq quantize embedded --recipe=calibrate --bits=w8a8,w4a8,w4a4/paper \
        --output_dir=runs/x
    python -m benchmarks.arm64 --run_dir=runs/x --machine=build/arm64 \
        --data=gdfq_tf/embedded/fashion_mnist_test.npz --output=arm64.json

QEMU's user mode runs LiteRT's own package for arm64 on random inputs and on labelled
images; its outputs are compared with those of LiteRT here, and with the simulation of
LiteRT on arm64. Simulations of both tell which layer is the first that differs, and how
far, of a few images. --machine is a folder that apt-get and pip fill when it is first
used, without installing anything: the host must be Debian or Ubuntu. LiteRT 2.3.0
crashes in QEMU 7.2, which Debian 12 has, and runs in 10.0, Debian 13's: name that with
--qemu, or LiteRT 2.1.2 or 1.4.0 with --litert. Rows that --output holds are not
measured again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks import commands
from benchmarks.arm64_machine import Machine
from benchmarks.commands import Row, key_of
from gdfq_tf.cli.labelled_images import read_labelled_images
from gdfq_tf.run_directory import input_format_of, read_summary, student_file
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.litert.processors import ARM64, X86_64
from tflite_export.litert.simulator import infer, litert_on
from tflite_export.simulation import compute_tensors
from tflite_export.student_file import load_network
from tflite_export.verification.verify import compare_outputs

_FEW_IMAGES = 16  # all of whose tensors are held


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.string("run_dir", "Directory of a run.", required=True)
    defined.string("data", "Labelled test images.", required=True)
    defined.integer("num_images", 1000, "Of each kind.", low=1)
    defined.string("machine", "Folder of the emulated machine.", required=True)
    defined.string("litert", "LiteRT's version there. Default: as here.")
    defined.string("qemu", "Path of qemu-aarch64. Default: the distribution's.")
    defined.string("output", "JSON file, extended row by row.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output, run_dir = Path(values.output), Path(values.run_dir)
    rows = commands.read_rows(output)
    summary = read_summary(run_dir)
    machine = Machine(Path(values.machine), values.litert, values.qemu)
    input_format = input_format_of(summary)
    labelled = read_labelled_images(values.data, input_format, values.num_images)
    real = input_format.preprocessing.to_integers(labelled.pixels)
    name = summary["classifier"]["name"]
    for model in summary["models"]:
        student = run_dir / student_file(model["file"])
        if not student.exists():
            continue  # a baseline, of which no simulation is known
        network = load_network(student)
        bits = model["file"].removeprefix(f"{name}_").removesuffix(".tflite")
        noise = np.random.default_rng(0).integers(
            -128, 128, (values.num_images, *network.input_shape), np.int8
        )
        for kind, images in (("random", noise), ("real", network.examples(real))):
            # As other benchmarks name what tells rows apart.
            row: Row = {"model": name, "recipe": kind, "seed": 0, "bits": bits}
            if key_of(row) not in set(map(key_of, rows)):
                labels = labelled.labels if kind == "real" else None
                file = run_dir / model["file"]
                rows.append(row | _compare(machine, file, network, images, labels))
                commands.write_rows(output, rows)
    rich.console.Console(width=140).print(_table(rows))


def _compare(
    machine: Machine,
    file: Path,
    network: IntegerNetwork,
    images: np.ndarray,
    labels: np.ndarray | None,
) -> Row:
    """What one file gives on both processors."""
    there = machine.outputs(file, images)
    here = TFLiteClassifier(file).run(images)
    simulated = infer(network, images, ARM64)
    facts: Row = {
        "num_images": len(images),
        "machine": machine.described,
        "classes_changed": int((there.argmax(1) != here.argmax(1)).sum()),
    }
    for name, other in (("x86_64", here), ("simulated", simulated)):
        agreement = compare_outputs(other, there)
        facts[f"{name}_exact_outputs"] = agreement.exact_outputs
        facts[f"{name}_max_lsb"] = agreement.max_lsb
    facts["first_unlike"] = first_unlike(network, images[:_FEW_IMAGES])
    if labels is not None:
        facts["top1"] = float((there.argmax(1) == labels).mean())
        facts["x86_64_top1"] = float((here.argmax(1) == labels).mean())
    return facts


def first_unlike(network: IntegerNetwork, images: np.ndarray) -> Row | None:
    """The first layer whose outputs on arm64 are others than on x86-64, by simulation.

    Returns:
      Its name as `layer`, its `kind`, the `share` of its values that differ and by how
      many steps at most, `max_lsb`; None if there is no such layer.
    """
    names = [op.name for op in network.ops]
    here, there = (
        compute_tensors(litert_on(processor), network, images, names)
        for processor in (X86_64, ARM64)
    )
    for op in network.ops:
        steps = np.abs(here[op.name].astype(int) - there[op.name])
        if steps.any():
            return {
                "layer": op.name,
                "kind": op.kind,
                "share": float((steps > 0).mean()),
                "max_lsb": int(steps.max()),
            }
    return None


def _table(rows: list[Row]) -> rich.table.Table:
    """One line per network, width and kind of images."""
    table = rich.table.Table(box=rich.box.MARKDOWN)
    for title in ("network", "width", "images"):
        table.add_column(title)
    for title in ("equal x86-64", "LSB", "classes changed", "equal simulated", "LSB"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row["model"],
            row["bits"],
            row["recipe"],
            f"{100 * row['x86_64_exact_outputs']:.2f}",
            str(row["x86_64_max_lsb"]),
            f"{row['classes_changed']} of {row['num_images']}",
            f"{100 * row['simulated_exact_outputs']:.2f}",
            str(row["simulated_max_lsb"]),
        )
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="run_dir")
