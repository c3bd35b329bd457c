"""Model files with a canary at one place of their JSON: is it ever called?

    python -m benchmarks.canaries --num_files=300 --output=docs/results/canaries.json

Networks of both Kerases are saved in every format that can be read. One value of the
JSON at a time, keys that are not there included, is replaced by something that would
call or import the canary if any loader took it for more than data. A file must be read
as if the place were empty, or be refused in one line; the canary must never be called.
"""

from __future__ import annotations

import base64
import copy
import itertools
import json
import marshal
import os
import shutil
import sys
import tempfile
import time
import types
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from google.protobuf.message import Message

from benchmarks import command
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.keras_compat import KerasLibrary, KerasModel, saved_metadata_pb2
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.argument_values import Json
from gdfq_tf.model_files.model_builder import ParameterBudget, build_model
from gdfq_tf.model_files.readers import ReadOptions, SourceModel, read_model
from gdfq_tf.model_files.spec_reader import read_model_spec

FLAGS = flags.FLAGS
LIBRARIES = {"keras3": keras, "tf_keras": tf_keras}
READERS = (
    *(
        (library, suffix)
        for library in LIBRARIES
        for suffix in (".keras", ".h5", ".json")
    ),
    ("tf_keras", ""),  # a SavedModel
)
_UNEXPECTED_KEYS = (
    "activation", "build_config", "class_name", "compile_config", "config",
    "custom_objects", "fn", "function", "layer", "mask", "module", "object_hook",
    "output_shape", "registered_name", "shared_object_id",
)  # fmt: skip


REGISTERED_NAMES = ("Canary", "canary>Canary", "Custom>Canary")


class Canary:
    """Counts how often anything of it is called. Known to every loader by name."""

    calls = 0

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Counts."""
        Canary.calls += 1
        super().__init__()

    def __call__(self, *args: object, **kwargs: object) -> None:
        """Counts."""
        Canary.calls += 1

    @classmethod
    def from_config(cls, *args: object, **kwargs: object) -> None:
        """Counts."""
        Canary.calls += 1

    def get_config(self) -> dict:
        """Nothing, as there is nothing to keep."""
        return {}


def install(folder: Path) -> None:
    """Makes the canary reachable: importable, and registered with both Kerases."""
    module = types.ModuleType("canary")
    module.Canary = module.call = Canary  # type: ignore[attr-defined]
    sys.modules["canary"] = module
    # A module that counts its import.
    (folder / "canary_by_import.py").write_text(
        "import canary\ncanary.Canary.calls += 1\ncall = Canary = canary.Canary\n"
    )
    sys.path.append(str(folder))
    for library in LIBRARIES.values():
        objects = library.utils.get_custom_objects()
        objects |= dict.fromkeys(REGISTERED_NAMES, Canary)


def payloads(folder: Path) -> list[Json]:
    """Values that would call the canary, or write a file, if they were deserialized."""
    touched = str(folder / "touched")
    function = {
        "module": "builtins",
        "class_name": "function",
        "config": "eval",
        "registered_name": "x",
    }
    called = (lambda x: __import__("canary").Canary() and x).__code__
    code = base64.b64encode(marshal.dumps(called)).decode()
    return [
        {"module": "canary", "class_name": "Canary", "config": {}},
        {"module": "canary_by_import", "class_name": "Canary", "config": {}},
        {"module": "canary", "class_name": "function", "config": "call"},
        {"module": None, "class_name": "Canary", "config": {}, "registered_name": None},
        {"class_name": "canary>Canary", "config": {}},
        {"class_name": "Canary", "config": {}, "registered_name": "canary>Canary"},
        {"class_name": "Custom>Canary", "config": {}},
        {"class_name": "Canary", "config": {}},
        {"class_name": "deserialize",
         "config": {"name": function, "custom_objects": {"x": 1}}},
        {"module": "keras.layers", "class_name": "Lambda",
         "config": {"name": "code", "function": code}},
        {"module": "builtins", "class_name": "open", "config": [touched, "w"]},
        {"class_name": "Lambda", "config": {"function": [code, None, None]}},
        {"class_name": "__lambda__", "config": {"code": code, "value": code}},
        {"class_name": "TFOpLambda", "config": {"function": "io.write_file"}},
        {"class_name": "__typespec__", "spec_name": "Canary", "module": "canary",
         "registered_name": "Canary", "config": []},
        {"module": "keras.saving", "class_name": "function", "config": "load_model"},
        {"class_name": "LeakyReLU", "config": {"alpha": {"class_name": "Canary"}}},
        ["_CONSTANT_VALUE", -1, f"open({touched!r}, 'w')", {}],
        f"__import__('pathlib').Path({touched!r}).touch()",
        "canary.Canary",
        "Canary",
        "Lambda",
        "io.write_file",
        float("nan"),
        2**62,
    ]  # fmt: skip


def network(library: KerasLibrary) -> KerasModel:
    """A small network with every way in which files write values."""
    lay, rng = library.layers, np.random.default_rng(0)
    image = library.Input((8, 8, 3), name="image")
    x = lay.RandomFlip()(lay.Rescaling(np.full(3, 0.5, np.float32))(image))
    x = x[:, 1:, ::2, :] * 2.0
    x = lay.Conv2D(4, 3, padding="same", kernel_regularizer="l2")(x)
    x = lay.LeakyReLU()(lay.BatchNormalization()(x, training=False))
    inner_input = library.Input((4,))
    units = lay.Dense(4, activation=lay.ReLU(6.0))(inner_input)
    inner = library.Model(inner_input, units, name="inner")
    x = inner(inner(lay.GlobalAveragePooling2D()(x)))
    branch = library.Sequential([lay.Input((4,)), lay.Dense(4, "gelu")])(x)
    total = lay.Add()([x, lay.Dropout(0.5)(branch)])
    model = library.Model(image, lay.Dense(3, "softmax")(1.0 - total), name="net")
    model.set_weights([rng.uniform(0.2, 1, np.shape(w)) for w in model.get_weights()])
    return model


def places(value: Json) -> Iterator[tuple[Json, Json]]:
    """(container, key) of all that a JSON value holds, and of keys it lacks."""
    if isinstance(value, dict):
        for key in (*value, *(k for k in _UNEXPECTED_KEYS if k not in value)):
            yield value, key
    if isinstance(value, list):
        yield from ((value, index) for index in range(len(value)))
    items = value.values() if isinstance(value, dict) else value
    for item in items if isinstance(value, (dict, list)) else ():
        yield from places(item)


def edited(config: Json, place: int, payload: Json) -> Json:
    """A copy of a JSON value with one place replaced."""
    changed = copy.deepcopy(config)
    container, key = next(itertools.islice(places(changed), place, None))
    container[key] = payload
    return changed


class Files:
    """Writes the network of one reader with another JSON."""

    def __init__(self, folder: Path, library: str, suffix: str) -> None:
        """Of one of `READERS`, in a folder."""
        self._base = folder / f"{library}_base{suffix}"
        self.path = folder / f"{library}_net{suffix}"
        self.weights = None
        model = network(LIBRARIES[library])
        if suffix == ".json":
            self._base.write_text(model.to_json())
            self.weights = str(folder / f"{library}.weights.h5")
            model.save_weights(self.weights)
        else:
            model.save(self._base, **({} if suffix else {"save_format": "tf"}))
        if not suffix:
            shutil.copytree(self._base, self.path)

    @property
    def config(self) -> Json:
        """The JSON of the network as saved."""
        match self._base.suffix:
            case ".keras":
                with zipfile.ZipFile(self._base) as archive:
                    return json.loads(archive.read("config.json"))
            case ".h5":
                with h5py.File(self._base) as file:
                    return json.loads(file.attrs["model_config"])
            case ".json":
                return json.loads(self._base.read_text())
        return json.loads(self._metadata()[1].metadata)

    def _metadata(self) -> tuple[Message, Message]:
        content = (self._base / "keras_metadata.pb").read_bytes()
        metadata = saved_metadata_pb2.SavedMetadata.FromString(content)
        return metadata, next(x for x in metadata.nodes if x.node_path == "root")

    def write(self, config: Json) -> None:
        """Writes `self.path`."""
        text = json.dumps(config)
        match self._base.suffix:
            case ".keras":
                with (
                    zipfile.ZipFile(self._base) as source,
                    zipfile.ZipFile(self.path, "w") as target,
                ):
                    for name in source.namelist():
                        is_config = name == "config.json"
                        target.writestr(name, text if is_config else source.read(name))
            case ".h5":
                shutil.copy(self._base, self.path)
                with h5py.File(self.path, "a") as file:
                    file.attrs["model_config"] = text
            case ".json":
                self.path.write_text(text)
            case _:
                metadata, root = self._metadata()
                root.metadata = text
                (self.path / "keras_metadata.pb").write_bytes(
                    metadata.SerializeToString()
                )


def outcome(read: Callable[[], object]) -> str:
    """Whether it was "read" or "refused"; refusals are one line."""
    try:
        read()
    except UserError as error:
        _require("\n" not in str(error), f"more than a line: {error}")
        return "refused"
    return "read"


def in_memory(library: str, folder: Path, share: float = 1.0) -> Counter:
    """Places and payloads of one JSON, without files: outcomes.

    What leads to the same specification as the JSON as saved builds the same network
    and is not built again.

    Args:
      library: key of `LIBRARIES`.
      folder: where payloads would leave traces.
      share: of all pairs of place and payload, taken at random.
    """
    module, values = LIBRARIES[library], payloads(folder)
    config = json.loads(network(module).to_json())
    as_saved = repr(read_model_spec(config, "net", check_layer))
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are not run
        for place in range(sum(1 for _ in places(config))):
            for payload in values:
                if rng.uniform() < share:
                    tried = edited(config, place, payload)
                    counts[_built(tried, as_saved, module)] += 1
    check_silence(folder)
    return counts


def _built(config: Json, as_saved: str, library: KerasLibrary) -> str:
    try:
        spec = read_model_spec(config, "net", check_layer)
    except (
        UserError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ):
        return "refused"
    if repr(spec) == as_saved:
        return "same"
    try:
        build_model(spec, library, ParameterBudget(10_000), lambda arguments: None)
    except Exception:  # Keras, of arguments that do not fit each other
        return "does not fit"
    return "built"


def check_silence(folder: Path) -> None:
    """Raises AssertionError if any payload did anything."""
    _require(Canary.calls == 0, "the canary was called")
    touched = (folder / "touched", Path("touched"))
    _require(not any(path.exists() for path in touched), "a file was written")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def in_files(library: str, suffix: str, folder: Path, count: int) -> Counter:
    """Outcomes of `count` files of one reader, at places chosen at random."""
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    target = Files(folder, library, suffix)
    config, values = target.config, payloads(folder)
    number = sum(1 for _ in places(config))

    def read() -> SourceModel:
        options = ReadOptions(weights=target.weights)
        return read_model(target.path, options, check_layer=check_layer)

    target.write(config)
    _require(outcome(read) == "read", "the network itself is refused")
    for _ in range(count):
        payload = values[rng.integers(len(values))]
        target.write(edited(config, int(rng.integers(number)), payload))
        counts[outcome(read)] += 1
    check_silence(folder)
    return counts


def main(_: list[str]) -> None:
    """Tries all places in memory and a sample of them in files; writes the counts."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder)
        for library in LIBRARIES:
            started = time.monotonic()
            counts = in_memory(library, folder)
            rows.append(_row(library, "all places, in memory", counts, started))
        for library, suffix in READERS:
            started = time.monotonic()
            # Reading a SavedModel imports TensorFlow.
            count = FLAGS.num_files if suffix else -(-FLAGS.num_files // 5)
            counts = in_files(library, suffix, folder, count)
            rows.append(_row(library, suffix or "SavedModel", counts, started))
    result = {
        "command": command("benchmarks.canaries"),
        "keras": keras.__version__,
        "tf_keras": tf_keras.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "canaries_called": Canary.calls,
        "rows": rows,
    }
    if FLAGS.output:
        path = Path(FLAGS.output)
        earlier = json.loads(path.read_text()) if path.exists() else []
        kept = [x for x in earlier if x["keras"] != result["keras"]]
        path.write_text(json.dumps([*kept, result], indent=1) + "\n")


def _row(library: str, reader: str, counts: Counter, started: float) -> dict:
    row = {"library": library, "reader": reader, "configs": counts.total(), **counts}
    row["seconds"] = round(time.monotonic() - started, 1)
    print(row, flush=True)
    return row


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tf.get_logger().setLevel("ERROR")
    flags.DEFINE_integer(
        "num_files", 300, "Files of each reader; SavedModels a fifth.", lower_bound=1
    )
    flags.DEFINE_string("output", None, "A JSON file that gets the counts.")
    app.run(main)
