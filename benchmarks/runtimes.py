r"""Which runtimes load files, and compute what was trained.

    python -m benchmarks.runtimes --pythons=python3.9,python3.11 \
        --students=runs/x/x_w8a8_student.npz,... --output=docs/results/runtimes.json

Each runtime is installed from PyPI into an environment of its own, with one of
`--pythons` that it has a wheel for. It runs a small file for each kind of operator,
with INT8 and INT4 kernels, and the files of the students. A row is a file with its
operators and what each runtime made of it: the largest difference from the simulation,
or why it was refused. `tflite_export/runtimes.py` holds what follows for each operator;
the rows are compared with it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks import commands
from gdfq_tf.errors import UserError
from gdfq_tf.system.output_files import write_whole
from tests.tflite_export.verification.test_student_rules import NETWORKS, network_of
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork
from tflite_export.litert.simulator import infer
from tflite_export.presentation import presented
from tflite_export.runtimes import first_runtime
from tflite_export.student_file import load_network

_TRIAL = Path(__file__).with_name("runtimes_trial.py")
_NUM_INPUTS = 4
_UINT8 = "uint8"
_LITERT = "ai-edge-litert"  # which has version numbers of its own


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A package that runs files.

    Attributes:
      package: on PyPI.
      version: of it.
      module: that has the class Interpreter.
      python: a minor version that it has wheels for.
      requirements: what else it needs, for pip.
    """

    package: str
    version: str
    module: str
    python: str
    requirements: Sequence[str] = ()

    @property
    def label(self) -> str:
        """What rows call it."""
        return f"{self.package}-{self.version}"


def _tflite_runtime(version: str) -> Runtime:
    module = "tflite_runtime.interpreter"
    return Runtime("tflite-runtime", version, module, "3.9", ["numpy<2"])


def _tensorflow(version: str, python: str, *requirements: str) -> Runtime:
    module = "tensorflow.lite.python.interpreter"
    return Runtime("tensorflow-cpu", version, module, python, requirements)


def _litert(version: str, *requirements: str) -> Runtime:
    module = "ai_edge_litert.interpreter"
    return Runtime(_LITERT, version, module, "3.11", requirements)


RUNTIMES = (
    _tensorflow("2.5.3", "3.9", "protobuf<3.21"),
    _tflite_runtime("2.7.0"),
    _tflite_runtime("2.8.0"),
    _tflite_runtime("2.9.1"),
    _tflite_runtime("2.10.0"),
    _tflite_runtime("2.11.0"),
    _tflite_runtime("2.12.0"),
    _tflite_runtime("2.13.0"),
    _tflite_runtime("2.14.0"),
    _tensorflow("2.15.1", "3.11"),
    _tensorflow("2.16.2", "3.11"),
    _tensorflow("2.17.1", "3.11"),
    _tensorflow("2.18.1", "3.11"),
    _tensorflow("2.19.0", "3.11"),
    _litert("1.0.1", "numpy<2"),
    _litert("1.2.0"),
    _litert("1.4.0"),
    _litert("2.3.0"),
)


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.texts("pythons", ["python3.9", "python3.11"], "Interpreters.")
    defined.texts("students", [], "*_student.npz files of runs, tried besides.")
    names = [runtime.label for runtime in RUNTIMES]
    defined.texts("runtimes", names, "Which ones, as PACKAGE-VERSION.")
    defined.string("output", "JSON file, extended by each runtime.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Tries each runtime, one at a time; fails where rows contradict the table."""
    interpreters = {_minor_version(path): path for path in values.pythons}
    output = Path(values.output)
    with tempfile.TemporaryDirectory(prefix="runtimes-") as name:
        files, environment = Path(name, "files"), Path(name, "environment")
        files.mkdir()
        rows = list(_written(files, values.students))
        _add_known(rows, output)
        for runtime in RUNTIMES:
            if runtime.label not in values.runtimes:
                continue
            _install(runtime, interpreters[runtime.python], environment)
            answers = _answers(runtime, environment, files, rows)
            for row, answer in zip(rows, answers, strict=True):
                row["runtimes"][runtime.label] = answer
            shutil.rmtree(environment)
            write_whole(output, (json.dumps(rows, indent=1) + "\n").encode())
    console = rich.console.Console(width=140)
    console.print(_table(rows))
    wrong = list(_contradictions(rows))
    if wrong:
        raise UserError(f"tflite_export/runtimes.py says otherwise: {'; '.join(wrong)}")


def _add_known(rows: Sequence[dict], output: Path) -> None:
    """What an earlier call found out, of runtimes that are not tried now."""
    if not output.exists():
        return
    known = {row["file"]: row["runtimes"] for row in json.loads(output.read_text())}
    for row in rows:
        row["runtimes"] |= known.get(row["file"], {})


def _contradictions(rows: Sequence[dict]) -> Iterator[str]:
    """Files of one operator that another runtime is the first to compute rightly.

    In files of whole networks differences of 1 LSB add up.
    """
    for row in rows:
        if row["is_network"]:
            continue
        right = [
            runtime.version
            for runtime in RUNTIMES
            if runtime.package != _LITERT
            and row["runtimes"].get(runtime.label, {}).get("lsb", 2) <= 1
        ]
        if right[:1] != [row["expected"]]:
            found = right[0] if right else "none"
            yield f"{row['file']}: {found} instead of {row['expected']}"


def _written(folder: Path, students: Sequence[str]) -> Iterator[dict]:
    """Writes the files that are tried, and the outputs expected; a row for each."""
    for name, network in _networks(students):
        tflite = convert_network(network)
        (folder / f"{name}.tflite").write_bytes(tflite)
        inputs = np.random.default_rng(0).integers(
            -128, 128, (_NUM_INPUTS, *network.input_shape), np.int8
        )
        outputs = infer(network, inputs)
        if network.interface.input_type == "uint8":
            inputs = (inputs.astype(np.int16) + 128).astype(np.uint8)
        np.savez(folder / f"{name}.npz", inputs=inputs, outputs=outputs)
        model = read_model(tflite)
        yield {
            "file": name,
            "expected": first_runtime(model),
            "is_network": name not in NETWORKS and name != _UINT8,
            "operators": sorted({f"{o.name} {o.version}" for o in model.operators}),
            "runtimes": {},
        }


def _networks(students: Sequence[str]) -> Iterator[tuple[str, IntegerNetwork]]:
    for name, build in NETWORKS.items():
        yield name, network_of(build)
    conv = network_of(NETWORKS["conv"])
    yield (
        _UINT8,
        presented(conv, input_type="uint8", output_type="int8", labels=()),
    )
    for student in students:
        name = Path(student).name.removesuffix("_student.npz")
        yield name, load_network(Path(student))


def _install(runtime: Runtime, python: str, environment: Path) -> None:
    subprocess.run([python, "-m", "venv", environment], check=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "-q"]
    package = f"{runtime.package}=={runtime.version}"
    subprocess.run([*pip, package, *runtime.requirements], check=True)


def _answers(
    runtime: Runtime, environment: Path, folder: Path, rows: Sequence[dict]
) -> list[dict]:
    """What a runtime makes of each file; a crash costs the file alone."""
    answers: list[dict] = []
    while len(answers) < len(rows):
        paths = [folder / f"{row['file']}.tflite" for row in rows[len(answers) :]]
        done = subprocess.run(
            [environment / "bin" / "python", _TRIAL, runtime.module],
            input="".join(f"{path}\n" for path in paths),
            capture_output=True,
            text=True,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        answers += map(json.loads, lines)
        if len(lines) < len(paths):
            answers.append({"crashed": done.returncode})
        if not lines and done.returncode > 0:
            sys.exit(f"{runtime.package} {runtime.version}: {done.stderr[-500:]}")
    return answers


def _minor_version(python: str) -> str:
    """Such as 3.11, of an interpreter's path."""
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def _table(rows: Sequence[dict]) -> rich.table.Table:
    labels = list(dict.fromkeys(label for row in rows for label in row["runtimes"]))
    table = rich.table.Table("file", "expected", box=rich.box.SIMPLE_HEAVY)
    for label in labels:
        table.add_column(label.replace("-", " "))
    for row in rows:
        answers = [row["runtimes"].get(label, {}) for label in labels]
        table.add_row(
            row["file"], row["expected"], *(str(a.get("lsb", "-")) for a in answers)
        )
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, "students")
