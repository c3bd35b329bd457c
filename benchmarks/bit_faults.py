"""Single-bit faults in finished `.tflite` files: which are caught, what they would do.

    python -m benchmarks.bit_faults --models=runs/x/x_w8a8.tflite,runs/x/x_w4a8.tflite \
        --output=docs/results/bit_faults.json

Each model lies beside its student. Of every fault two things are found out, each on its
own: what `verify_file` says of the file, and what LiteRT makes of it in a process that
may crash: formats, signatures and the outputs of 1,000 images, compared with the sound
file's. Random faults hit any bit, directed ones a field of each kind in turn.
"""

from __future__ import annotations

import json
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from absl import app, flags
from ai_edge_litert import schema_py_generated as schema

from gdfq_tf.run_directory import student_file
from tflite_export.convert import convert_network
from tflite_export.integer_network import IntegerNetwork
from tflite_export.student_file import load_network
from tflite_export.verification.verify import verify_file

FLAGS = flags.FLAGS
flags.DEFINE_list("models", None, "`.tflite` files of runs.", required=True)
flags.DEFINE_integer("num_random", 1000, "Faults anywhere.", lower_bound=0)
flags.DEFINE_integer("num_directed", 500, "Faults in chosen fields.", lower_bound=0)
flags.DEFINE_integer("num_images", 1000, "To compare outputs on.", lower_bound=1)
flags.DEFINE_string("output", None, "A .json file for the counts.", required=True)

_TIMEOUT_SECONDS = 60
_SECONDS_ALLOWED = 10  # for one verification
_BY_BYTES = "every byte as the converter makes it of the student"

_Table = Any  # of flatbuffers' and of the generated classes, which have no base
_Group = tuple[str, str, str]  # model, random or directed, effect


class Fields:
    """Where the fields of a sound file lie, by kind: ranges of its bytes."""

    def __init__(self, tflite: bytes) -> None:
        """Finds the fields of a `.tflite` file."""
        self._tflite = tflite
        self._model = schema.Model.GetRootAs(tflite)
        self.ranges: dict[str, list[range]] = {}
        graph = self._model.Subgraphs(0)
        ends = [*graph.InputsAsNumpy(), *graph.OutputsAsNumpy()]
        for index in range(self._model.OperatorCodesLength()):
            self._add("operator codes", self._inline(self._model.OperatorCodes(index)))
        for index in range(self._model.SignatureDefsLength()):
            self._signature(self._model.SignatureDefs(index))
        for index in range(graph.TensorsLength()):
            self._tensor(graph.Tensors(index), is_end=index in ends)
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            self._add("operators", self._inline(operator))
            self._vector("operator inputs", operator.InputsAsNumpy())
            self._vector("operator outputs", operator.OutputsAsNumpy())
            if operator.BuiltinOptions() is not None:
                options = operator.BuiltinOptions()
                self._add("options", self._inline_at(options, options.Pos))
        self._vector("inputs and outputs", graph.InputsAsNumpy())
        self._vector("inputs and outputs", graph.OutputsAsNumpy())

    def _tensor(self, tensor: schema.Tensor, *, is_end: bool) -> None:
        data = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
        quantization = tensor.Quantization()
        self._vector("shapes", tensor.ShapeAsNumpy())
        self._add("tensors", self._inline(tensor))
        if isinstance(data, np.ndarray):
            kind = "biases and shapes" if tensor.Type() == 2 else "kernels"
            self._vector(kind, data)
        else:
            kind = "input and output" if is_end else "activation"
        if quantization is not None:
            self._vector(f"{kind}: scales", quantization.ScaleAsNumpy())
            self._vector(f"{kind}: zero points", quantization.ZeroPointAsNumpy())

    def _signature(self, signature: schema.SignatureDef) -> None:
        self._text("signature", signature.SignatureKey())
        maps = [signature.Inputs(i) for i in range(signature.InputsLength())]
        maps += [signature.Outputs(i) for i in range(signature.OutputsLength())]
        for entry in maps:
            self._text("signature", entry.Name())
            self._add("signature", self._inline(entry))

    def _text(self, kind: str, text: bytes) -> None:
        start = self._tflite.index(len(text).to_bytes(4, "little") + text)
        self._add(kind, range(start, start + 4 + len(text)))

    def _vector(self, kind: str, values: np.ndarray | int) -> None:
        if not isinstance(values, np.ndarray):  # there is none
            return
        base = np.frombuffer(self._tflite, np.uint8).ctypes.data
        start = values.ctypes.data - base
        self._add(kind, range(start, start + values.nbytes))

    def _inline(self, table: _Table) -> range:
        return self._inline_at(table._tab, table._tab.Pos)

    @staticmethod
    def _inline_at(table: _Table, position: int) -> range:
        """The values that a table holds itself, behind the way to its vtable."""
        to_vtable = int.from_bytes(
            table.Bytes[position : position + 4], "little", signed=True
        )
        vtable = position - to_vtable
        size = int.from_bytes(table.Bytes[vtable + 2 : vtable + 4], "little")
        return range(position + 4, position + size)

    def _add(self, kind: str, place: range) -> None:
        if len(place):
            self.ranges.setdefault(kind, []).append(place)


def random_faults(num_bytes: int, count: int) -> Iterator[tuple[str, int]]:
    """(kind, bit) of faults anywhere."""
    bits = np.random.default_rng(0).choice(8 * num_bytes, count, replace=False)
    yield from (("random", int(bit)) for bit in bits)


def directed_faults(tflite: bytes, count: int) -> Iterator[tuple[str, int]]:
    """(kind, bit) of faults in a field of each kind in turn, no bit twice."""
    rng = np.random.default_rng(1)
    seen: set[int] = set()
    ranges = Fields(tflite).ranges
    while len(seen) < count:
        for kind, places in ranges.items():
            place = places[rng.integers(len(places))]
            bit = 8 * int(rng.integers(place.start, place.stop)) + int(rng.integers(8))
            if bit not in seen and len(seen) < count:
                seen.add(bit)
                yield kind, bit


class LiteRT:
    """A worker that runs files, started anew whenever one of them ends it."""

    def __init__(self, images: Path) -> None:
        """Takes the `.npy` file of images that each file is to run on."""
        self._images = images
        self._worker: subprocess.Popen[str] | None = None

    def facts(self, path: Path) -> dict:
        """See `litert_worker.facts`."""
        requests, answers = self._pipes()
        requests.write(f"{path}\n")
        requests.flush()
        ready, _, _ = select.select([answers], [], [], _TIMEOUT_SECONDS)
        answer = answers.readline() if ready else ""
        if answer:
            return json.loads(answer)
        self.close()
        return {"refused": "crash" if ready else "hang"}

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        """Where the worker reads paths, and where it answers."""
        if self._worker is None:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.litert_worker", str(self._images)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        requests, answers = self._worker.stdin, self._worker.stdout
        if requests is None or answers is None:
            raise RuntimeError("a worker without pipes")
        return requests, answers

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker = None


def effect(found: dict, sound: dict) -> str:
    """What users of a damaged file would notice."""
    if "refused" in found:
        kinds = {"crash": "crashes LiteRT", "hang": "hangs LiteRT"}
        return kinds.get(found["refused"], "LiteRT refuses it")
    if any(found[key] != sound[key] for key in ("formats", "signatures")):
        return "other metadata"
    outputs = np.array(found["outputs"]), np.array(sound["outputs"])
    if outputs[0].shape != outputs[1].shape:
        return "other metadata"
    largest = np.abs(outputs[0] - outputs[1]).max()
    if largest > 1:
        return "outputs beyond 1 LSB"
    return "outputs within 1 LSB" if largest else "harmless"


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    """int8 images (N, H, W, C), each of a brightness and contrast of its own."""
    rng = np.random.default_rng(2)
    means, spreads = rng.uniform(-128, 127, (2, shape[0], 1, 1, 1))
    noise = rng.uniform(-1, 1, shape)
    return np.clip(np.rint(means + spreads * noise), -128, 127).astype(np.int8)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)


def try_faults(model: Path, network: IntegerNetwork, folder: Path) -> list[dict]:
    """One row per fault of one file."""
    sound = model.read_bytes()
    _require(
        verify_file(sound, network, converted=sound).passed
        and convert_network(network) == sound,
        f"{model} is not sound: make it again",
    )
    shape = (FLAGS.num_images, *network.input_shape)
    images, damaged = folder / "images.npy", folder / "damaged.tflite"
    np.save(images, _noise(shape))
    runtime = LiteRT(images)
    expected = runtime.facts(model.resolve())
    rows = []
    faults = [
        *random_faults(len(sound), FLAGS.num_random),
        *directed_faults(sound, FLAGS.num_directed),
    ]
    for kind, bit in faults:
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(content)
        started = time.monotonic()
        findings = verify_file(bytes(content), network, converted=sound).findings
        seconds = time.monotonic() - started
        _require(seconds < _SECONDS_ALLOWED, f"bit {bit} took {seconds:.0f} s")
        broken = [f.rule for f in findings if not f.passed]
        rows.append(
            {
                "model": model.name,
                "kind": kind,
                "bit": bit,
                "caught": bool(broken),
                "caught_without_bytes": any(rule != _BY_BYTES for rule in broken),
                "effect": effect(runtime.facts(damaged), expected),
            }
        )
        if len(rows) % 100 == 0:
            print(f"{model.name}: {len(rows)} of {len(faults)}", file=sys.stderr)
    runtime.close()
    return rows


def counts(rows: list[dict]) -> list[dict]:
    """By model, random or directed, and effect."""
    groups: Counter[_Group] = Counter()
    caught: Counter[_Group] = Counter()
    without_bytes: Counter[_Group] = Counter()
    for row in rows:
        way = "random" if row["kind"] == "random" else "directed"
        group = row["model"], way, row["effect"]
        groups[group] += 1
        caught[group] += row["caught"]
        without_bytes[group] += row["caught_without_bytes"]
    return [
        {
            "model": group[0],
            "faults": group[1],
            "effect": group[2],
            "count": count,
            "caught": caught[group],
            "caught_without_bytes": without_bytes[group],
            "missed": count - caught[group],
        }
        for group, count in sorted(groups.items())
    ]


def main(_: list[str]) -> None:
    """Tries all faults, writes the counts and prints them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in FLAGS.models:
            model = Path(name)
            network = load_network(model.with_name(student_file(model.name)))
            rows += try_faults(model, network, Path(folder))
    table = counts(rows)
    kinds = Counter(row["kind"] for row in rows)
    Path(FLAGS.output).write_text(
        json.dumps(
            {
                "machine": platform.platform(),
                "num_images": FLAGS.num_images,
                "faults_by_kind": dict(sorted(kinds.items())),
                "counts": table,
                "missed": [row for row in rows if not row["caught"]],
                "missed_without_bytes": [
                    row for row in rows if not row["caught_without_bytes"]
                ],
            },
            indent=1,
        )
        + "\n"
    )
    for row in table:
        print(" | ".join(str(value) for value in row.values()))


if __name__ == "__main__":
    app.run(main)
