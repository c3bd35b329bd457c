"""Hostile and broken model files through the whole command: what is said, how soon.

    python -m benchmarks.hostile_files --output=docs/results/hostile_files.json

Each is written in every format that it applies to and handed to tools/quantize.py, as
a user would. Right is one line on standard error, exit code 1, nothing written, nothing
called, no byte of another file anywhere.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
from absl import app, flags

from benchmarks import command
from gdfq_tf.keras_compat import KerasLibrary, KerasModel, saved_metadata_pb2
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.argument_values import Json

FLAGS = flags.FLAGS
ROOT = Path(__file__).resolve().parent.parent
SECRET = b"PASSWORD=correct horse battery staple"
LIBRARIES = {"keras3": keras, "tf_keras": tf_keras}


def _with_weights(weights: bytes, member: str, data: bytes) -> bytes:
    """A member of a `.keras` file, for `rewrite_zip`: its weights are others."""
    return weights if member == "model.weights.h5" else data


@dataclasses.dataclass(frozen=True)
class Case:
    """A file to try.

    Attributes:
      name: what is wrong with it.
      kind: format, and the Keras that wrote it.
      path: of the file.
      weights: for architectures only.
      is_fine: whether it is to be quantized all the same.
    """

    name: str
    kind: str
    path: Path
    weights: Path | None = None
    is_fine: bool = False


def network(library: KerasLibrary) -> KerasModel:
    """conv-norm-relu-pool-dense, as trained."""
    lay = library.layers
    image = library.Input((16, 16, 3), name="image")
    x = lay.Conv2D(8, 3, use_bias=False, name="conv")(image)
    x = lay.Activation("relu", name="act")(lay.BatchNormalization(name="norm")(x))
    x = lay.GlobalAveragePooling2D(name="pool")(x)
    scores = lay.Dense(3, activation="softmax", name="last")(x)
    model = library.Model(image, scores, name="net")
    rng = np.random.default_rng(0)
    low_high = ((0.6, 1.5), (-0.3, 0.3), (-0.3, 0.3), (0.5, 2.0))
    model.get_layer("norm").set_weights([rng.uniform(*x, 8) for x in low_high])
    return model


# ---- the network's JSON, edited


def layer_of(config: Json, name: str) -> Json:
    """The JSON of a layer of the model."""
    layers = config["config"]["layers"]
    return next(x for x in layers if x["config"]["name"] == name)


def code_in_activation(canary: Path) -> Callable[[Json], None]:
    """Keras' own deserializer as an activation, with eval as its argument."""

    def edit(config: Json) -> None:
        layer = layer_of(config, "act")
        function = {"module": "builtins", "class_name": "function", "config": "eval"}
        layer["config"]["activation"] = {
            "class_name": "deserialize",
            "config": {
                "name": function | {"registered_name": "x"},
                "custom_objects": {"x": 1},
            },
        }
        command = f"__import__('pathlib').Path({str(canary)!r}).touch()"
        layer["inbound_nodes"] = [[["_CONSTANT_VALUE", -1, command, {}]]]

    return edit


def with_input(*shape: int) -> Callable[[Json], None]:
    """Images of another shape."""

    def edit(config: Json) -> None:
        arguments = layer_of(config, "image")["config"]
        key = "batch_shape" if "batch_shape" in arguments else "batch_input_shape"
        arguments[key] = [None, *shape]

    return edit


def many_layers(config: Json) -> None:
    """More layers than any network has."""
    last = layer_of(config, "last")
    config["config"]["layers"] += [
        last | {"name": f"x{i}", "config": last["config"] | {"name": f"x{i}"}}
        for i in range(20_000)
    ]


def deep_json(config: Json) -> None:
    """Lists inside lists."""
    value: Json = 0
    for _ in range(900):
        value = [value]
    layer_of(config, "last")["config"]["units"] = value


# ---- values of weights


def with_weight(
    layer: str, index: int, value: float, whole: bool = False
) -> Callable[[KerasModel], None]:
    """A layer with one value, or all of one weight, replaced."""

    def edit(model: KerasModel) -> None:
        weights = model.get_layer(layer).get_weights()
        if whole:
            weights[index] = np.full_like(weights[index], value)
        else:
            weights[index].flat[0] = value
        model.get_layer(layer).set_weights(weights)

    return edit


def dead_relus(model: KerasModel) -> None:
    """Betas so low that nothing behind them is on."""
    zero, one = np.zeros(8), np.ones(8)
    model.get_layer("norm").set_weights([zero, -one, zero, 2 * one])


VALUES: dict[str, Callable[[KerasModel], None]] = {
    "weight of 3e38": with_weight("last", 0, 3e38),
    "weight of 1e30": with_weight("last", 0, 1e30),
    "weight of NaN": with_weight("conv", 0, np.nan),
    "bias of infinity": with_weight("last", 1, np.inf),
    "negative variance": with_weight("norm", 3, -1.0),
    "mean of 1e25": with_weight("norm", 2, 1e25),
    "gamma of 1e35": with_weight("norm", 0, 1e35),
    "kernels of zero": with_weight("conv", 0, 0.0, whole=True),
    "last kernel of zero": with_weight("last", 0, 0.0, whole=True),
    "gammas of zero": with_weight("norm", 0, 0.0, whole=True),
    "ReLUs that never are on": dead_relus,
}


# ---- values from other files


def elsewhere(folder: Path) -> dict[str, Callable[[h5py.Group, str], None]]:
    """Ways for an HDF5 file to hold values of another file."""
    secret, other = folder / "secret.txt", folder / "other.h5"
    secret.write_bytes(SECRET)
    with h5py.File(other, "w") as file:
        file["secret"] = np.frombuffer(SECRET[:12], "<f4")

    def virtual(group: h5py.Group, name: str) -> None:
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(other), "secret", (3,))
        group.create_virtual_dataset(name, layout)

    return {
        "external storage": lambda group, name: group.create_dataset(
            name, (3,), "f4", external=[(str(secret), 0, 12)]
        ),
        "external link": lambda group, name: group.__setitem__(
            name, h5py.ExternalLink(str(other), "/secret")
        ),
        "virtual dataset": virtual,
    }


def replace_bias(path: Path, make: Callable[[h5py.Group, str], None]) -> None:
    """Has `make` put something where the bias of the file's last layer is."""
    with h5py.File(path, "a") as file:
        found: list[str] = []
        file.visititems(
            lambda name, item: (
                found.append(name)
                if isinstance(item, h5py.Dataset) and item.shape == (3,)
                else None
            )
        )
        parent, _, name = found[0].rpartition("/")
        del file[found[0]]
        make(file[parent], name)


# ---- files


class Writer:
    """Writes cases into one folder, each under a name of its own."""

    def __init__(self, folder: Path) -> None:
        """Writes into `folder`."""
        self.folder = folder
        self._count = 0

    def _path(self, suffix: str) -> Path:
        self._count += 1
        return self.folder / f"net{self._count}{suffix}"

    def with_json(self, name: str, edit: Callable[[Json], None]) -> Iterator[Case]:
        """In all formats that hold a model's JSON."""
        for library, module in LIBRARIES.items():
            model = network(module)
            for suffix in (".keras", ".h5", ".json"):
                path, weights = self._path(suffix), None
                if suffix == ".json":
                    weights = self._path(".weights.h5")
                    model.save_weights(weights)
                    path.write_text(_edited(model.to_json(), edit))
                else:
                    model.save(path)
                    self._edit_file(path, edit)
                yield Case(name, f"{suffix} of {library}", path, weights)
        path = self._path("")
        network(tf_keras).save(path, save_format="tf")
        metadata_path = path / "keras_metadata.pb"
        metadata = saved_metadata_pb2.SavedMetadata.FromString(
            metadata_path.read_bytes()
        )
        root = next(x for x in metadata.nodes if x.node_path == "root")
        root.metadata = _edited(root.metadata, edit)
        metadata_path.write_bytes(metadata.SerializeToString())
        yield Case(name, "SavedModel", path)

    def _edit_file(self, path: Path, edit: Callable[[Json], None]) -> None:
        if path.suffix == ".h5":
            with h5py.File(path, "a") as file:
                config = _edited(file.attrs["model_config"], edit)
                file.attrs["model_config"] = config
            return
        rewrite_zip(path, lambda name, data: _edited(data, edit).encode()
                    if name == "config.json" else data)  # fmt: skip

    def with_values(self, name: str, edit: Callable[[Json], None]) -> Iterator[Case]:
        """In one format of each Keras."""
        for library, suffix in (("keras3", ".keras"), ("tf_keras", ".h5")):
            model = network(LIBRARIES[library])
            edit(model)
            path = self._path(suffix)
            model.save(path)
            yield Case(name, f"{suffix} of {library}", path)

    def with_elsewhere(self, name: str, make: Callable) -> Iterator[Case]:
        """In whole files, in weights files and inside .keras files."""
        for library, module in LIBRARIES.items():
            model = network(module)
            path = self._path(".h5")
            model.save(path)
            replace_bias(path, make)
            yield Case(name, f".h5 of {library}", path)
            weights, path = self._path(".weights.h5"), self._path(".json")
            model.save_weights(weights)
            replace_bias(weights, make)
            content = weights.read_bytes()
            path.write_text(model.to_json())
            yield Case(name, f".weights.h5 of {library}", path, weights)
            path = self._path(".keras")
            model.save(path)
            rewrite_zip(path, functools.partial(_with_weights, content))
            yield Case(name, f".keras of {library}", path)

    def bombs(self, gibibytes: int) -> Iterator[Case]:
        """Files of a few megabytes that are gibibytes in memory."""
        path = self._path(".keras")
        network(keras).save(path)
        with zipfile.ZipFile(path) as archive:
            held = {x: archive.read(x) for x in archive.namelist()}
        with zipfile.ZipFile(
            path, "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as archive:
            for name, data in held.items():
                if name != "config.json":
                    archive.writestr(name, data)
            with archive.open("config.json", "w", force_zip64=True) as file:
                for _ in range(64 * gibibytes):
                    file.write(b" " * 2**24)
        yield Case(f"{gibibytes} GiB of JSON", ".keras", path)
        path = self._path(".h5")
        network(tf_keras).save(path)
        with h5py.File(path, "a") as file:
            packed = {"chunks": (2**22,), "compression": "gzip", "compression_opts": 1}
            extra = file["model_weights"].create_dataset(
                "extra", (2**28 * gibibytes,), "f4", **packed
            )
            for start in range(0, extra.size, 2**22):
                extra[start : start + 2**22] = 0.0
        yield Case(f"{gibibytes} GiB of zeros", ".h5", path)


def _edited(text: str | bytes, edit: Callable[[Json], None]) -> str:
    config = json.loads(text)
    edit(config)
    return json.dumps(config)


def rewrite_zip(path: Path, replace: Callable[[str, bytes], bytes]) -> None:
    """Passes every member of an archive through `replace(name, content)`."""
    with zipfile.ZipFile(path) as archive:
        held = {x: archive.read(x) for x in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in held.items():
            archive.writestr(name, replace(name, data))


def cases(folder: Path) -> Iterator[Case]:
    """All files, written as they are asked for."""
    writer = Writer(folder)
    yield from writer.with_json("code", code_in_activation(folder / "CANARY"))
    for name, make in elsewhere(folder).items():
        yield from writer.with_elsewhere(name, make)
    yield from writer.bombs(2)
    shapes = {
        "input of 1,000,000 x 1,000,000": (10**6, 10**6, 3),
        "input of no rows": (0, 16, 3),
        "input of 4096 x 4096": (4096, 4096, 3),
    }
    for name, shape in shapes.items():
        yield from writer.with_json(name, with_input(*shape))
    yield from writer.with_json("20,000 layers", many_layers)
    yield from writer.with_json("lists 900 deep", deep_json)
    for name, edit in VALUES.items():
        yield from writer.with_values(name, edit)


# ---- trying them


def tried(case: Case, folder: Path) -> dict:
    """What tools/quantize.py does with a file."""
    output = folder / "run"
    command = [
        sys.executable,
        str(ROOT / "tools" / "quantize.py"),
        f"--model={case.path}",
        "--preprocessing=tf",
        "--recipe=fast",
        "--num_steps=2",
        "--bits=w8a8",
        f"--output_dir={output}",
        *([f"--weights={case.weights}"] if case.weights else []),
    ]
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        lines = log.read().decode().strip().splitlines()
    wrote = output.exists()
    shutil.rmtree(output, ignore_errors=True)
    said = [x.replace(f"{folder}/", "") for x in lines if x.startswith("error: ")]
    return {
        "case": case.name,
        "file": case.kind,
        "exit_code": process.returncode,
        "said": said[-1] if said else " / ".join(lines)[-300:],
        "one_line": len(said) == 1 and said[0] == lines[-1].replace(f"{folder}/", ""),
        "wrote": wrote,
        "leaked": SECRET[:8] in "".join(lines).encode(),
        "canary": (folder / "CANARY").exists(),
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": usage.ru_maxrss // 1024,
    }


def main(_: list[str]) -> None:
    """Tries all files; prints and writes a row each."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in cases(folder):
            if not FLAGS.only or FLAGS.only in f"{case.name} {case.kind}":
                rows.append(tried(case, folder))
                print(json.dumps(rows[-1]), flush=True)
                _write(rows)
            for path in (case.path, case.weights):
                if path is not None and path.is_file():
                    path.unlink()
    wrong = [row for row in rows if row["canary"] or row["leaked"]]
    sys.exit(1 if wrong else 0)


def _write(rows: list[dict]) -> None:
    if FLAGS.output:
        result = {
            "command": command("benchmarks.hostile_files"),
            "keras": keras.__version__,
            "rows": rows,
        }
        Path(FLAGS.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "A JSON file that gets the rows.")
    flags.DEFINE_string("only", None, "Cases whose name or file holds this text.")
    app.run(main)
