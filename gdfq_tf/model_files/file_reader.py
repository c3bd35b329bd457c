"""Reads one model file; runs as a process of its own, see `file_cell`.

Libraries that parse files in C may loop for ever, crash or be led astray by a damaged
or hostile one. What this process gives back is text and plain arrays; after opening its
file it can open nothing else.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeAlias

import h5py
import numpy as np

from gdfq_tf.model_files.sandbox import forbid_files, limit_resources
from gdfq_tf.system.processes import die_with_parent

_SECONDS = 60  # of processor time; a gigabyte takes a few
_LARGEST_TEXT = 2**25  # the JSON of the largest keras.applications has a million bytes
# Trained weights compress little, pruned ones perhaps ten times.
_LARGEST_RATIO = 100
_ALWAYS_FITS = 2**24
_MOST_OBJECTS = 100_000
_MOST_MEMBERS = 1_000
_DEEPEST = 64
_ROOM = 2**28  # for the interpreter and its libraries
_FILTERS = {1: "gzip", 2: "shuffle", 3: "checksum"}  # by HDF5's numbers
# Groups that hold the weights of layers, in the layouts of several versions; else all.
_ROOTS = ("model_weights", "layers", "_layer_checkpoint_dependencies")
_OF_TRAINING = "optimizer"
# What the older layout notes of groups: names in order, and who wrote them.
_NAME_LISTS = re.compile(r"(layer|weight)_names\d*")
_WRITER = ("keras_version", "backend")
_MEMBERS = re.compile(r"metadata\.json|config\.json|model\.weights\.h5|assets(/.*)?")
_VARIABLE = "VARIABLE_VALUE"
_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_WITH_WEIGHTS = re.compile(r"layer_with_weights-\d+")


_Arrays: TypeAlias = dict[str, np.ndarray]
_Checkpoint: TypeAlias = Any  # TensorFlow's reader of one


class RefusalError(Exception):
    """What is wrong with the file, behind its name: "holds two ..."."""


def main() -> NoReturn:
    """Answers the request in the last argument and exits.

    The answer is a line of JSON, behind it the bytes of the arrays that it lists.
    """
    die_with_parent(os.getppid())
    request = json.loads(sys.argv[-1])
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    arrays: _Arrays = {}
    try:
        header = _read(request, arrays)
        header["arrays"] = [
            [name, array.dtype.str, list(array.shape)] for name, array in arrays.items()
        ]
    except RefusalError as refusal:
        header, arrays = {"refusal": str(refusal)}, {}
    except Exception as error:  # of every type, in damaged files
        header, arrays = {"damage": f"{type(error).__name__}: {error}"}, {}
    answer.write(json.dumps(header).encode() + b"\n")
    for array in arrays.values():
        answer.write(array.reshape(-1).view(np.uint8).data)
    answer.flush()
    os._exit(0)  # without the clean-up of libraries that may be confused by now


def _read(request: dict, arrays: _Arrays) -> dict[str, Any]:
    """The header; with `arrays` filled if they are asked for."""
    path, room = Path(request["path"]), request["max_bytes"]
    wanted = arrays if request["arrays"] else None
    if path.is_dir():
        import tensorflow  # noqa: F401  (nothing can be imported further down)

        from gdfq_tf.keras_compat import saved_metadata_pb2  # noqa: F401

        _refuse_links(path)
        _enter_cell(room, readable=path)
        return _read_saved_model(path, room, wanted)
    if not stat.S_ISREG(path.stat().st_mode):
        raise RefusalError("is no regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for codec in ("ascii", "cp437", "utf-8"):
            codecs.lookup(codec)  # loads them, which cannot be done further down
        _enter_cell(room + 2 * size)
        if request["format"] == "json":
            return {"config": _text(file.read(_LARGEST_TEXT + 1), "it")}
        if request["format"] == "zip":
            return _read_zip(file, size, room, wanted)
        return _read_hdf5(file, size, room, wanted)


def _enter_cell(room: int, readable: Path | None = None) -> None:
    limit_resources(_ROOM + 2 * room, _SECONDS)
    forbid_files(readable)


def _text(content: bytes, what: str) -> str:
    if len(content) > _LARGEST_TEXT:
        raise RefusalError(
            f"holds more than {_LARGEST_TEXT >> 20} MiB of JSON ({what}); expected a "
            "model's description"
        )
    return content.decode()


def _check_size(stored: int, on_disk: int, room: int) -> None:
    """Refuses files that are small and would be large in memory."""
    if stored > max(_ALWAYS_FITS, _LARGEST_RATIO * on_disk):
        raise RefusalError(
            f"declares {stored:,} bytes in {on_disk:,}, which no trained weights do; "
            f"expected at most {_LARGEST_RATIO} times as many"
        )
    if stored > room:
        raise RefusalError(
            f"holds {stored / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB of this "
            "machine's memory are free for it"
        )


# ---- .keras


def _read_zip(
    file: io.BufferedReader, size: int, room: int, wanted: _Arrays | None
) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_members(members)
        _check_size(sum(member.file_size for member in members), size, room)
        metadata = json.loads(_text(_member(archive, "metadata.json"), "metadata.json"))
        config = _text(_member(archive, "config.json"), "config.json")
        weights = _member(archive, "model.weights.h5")
    header = _read_hdf5(io.BytesIO(weights), len(weights), room, wanted)
    return header | {"config": config, "keras_version": str(metadata["keras_version"])}


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(names) > _MOST_MEMBERS:
        raise RefusalError(
            f"holds {len(names):,} files; expected {_MOST_MEMBERS} at most"
        )
    if len(set(names)) < len(names):
        raise RefusalError("holds two files of one name")
    for member in members:
        name = member.filename
        if not _MEMBERS.fullmatch(name) or ".." in name.split("/"):
            raise RefusalError(
                f"holds a file {name[:60]!r}; expected metadata.json, config.json and "
                "model.weights.h5"
            )
        if member.flag_bits & 1:
            raise RefusalError(f"holds {name!r} encrypted; expected plain files")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise RefusalError(f"holds {name!r} as a link; expected plain files")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file's bytes, as many as are declared."""
    declared = archive.getinfo(name).file_size
    if name.endswith(".json") and declared > _LARGEST_TEXT:
        raise RefusalError(
            f"holds {declared:,} bytes of {name}; expected {_LARGEST_TEXT >> 20} MiB "
            "at most"
        )
    with archive.open(name) as member:
        content = member.read(declared)
        if len(content) != declared or member.read(1):
            raise RefusalError(
                f"holds another number of bytes of {name} than it declares"
            )
    return content


# ---- HDF5


def _read_hdf5(
    stream: BinaryIO, size: int, room: int, wanted: _Arrays | None
) -> dict[str, Any]:
    with h5py.File(stream, "r") as file:
        objects = list(_walk(file))
        stored = sum(x.nbytes for _, x in objects if isinstance(x, h5py.Dataset))
        _check_size(stored, size, room)
        root = next((f"{x}/" for x in _ROOTS if x in file), "")
        datasets, groups = {}, {}
        for name, item in objects:
            if name.startswith(_OF_TRAINING):
                continue
            if isinstance(item, h5py.Group):
                groups[name] = _notes(item)
            elif name.startswith(root) and _kind(item.dtype) in "fiub":
                datasets[name] = item
        if wanted is not None:
            for name, dataset in datasets.items():
                wanted[name] = _numbers(dataset[()])
        return {
            "config": _attribute(file, "model_config"),
            "keras_version": _attribute(file, "keras_version"),
            # Without a version both Kerases write one layout; only 3 notes names in it.
            "notes_names": "vars" in file and "name" in file["vars"].attrs,
            "groups": groups,
            "datasets": [
                [name, _kind(dataset.dtype), list(dataset.shape)]
                for name, dataset in datasets.items()
            ],
        }


def _is_bfloat16(dtype: np.dtype) -> bool:
    """Whether two bytes that neither HDF5 nor NumPy knows: Keras writes one such."""
    return dtype.kind == "V" and dtype.itemsize == 2


def _kind(dtype: np.dtype) -> str:
    """NumPy's letter for a kind of number; "V" for what is none."""
    return "f" if _is_bfloat16(dtype) else dtype.kind


def _numbers(values: Any) -> np.ndarray:  # noqa: ANN401 - array, or a number
    """Stored numbers as NumPy has them: bfloat16 is the upper half of float32."""
    array = np.asarray(values, order="C")
    if _is_bfloat16(array.dtype):
        return (array.view("<u2").astype("<u4") << 16).view("<f4")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _walk(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Every group and data set, by the hard links that lead to it."""
    stack: list[tuple[str, h5py.Group, int]] = [("", file["/"], 0)]
    seen, count = set(), 0
    yield "", file["/"]
    while stack:
        path, group, depth = stack.pop()
        for key in group:
            name = f"{path}/{key}" if path else key
            count += 1
            if count > _MOST_OBJECTS or depth > _DEEPEST:
                raise RefusalError(f"holds more than {_MOST_OBJECTS:,} objects")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise RefusalError(
                    f"holds a link to elsewhere at {name[-60:]!r}; expected all values "
                    "in the file itself: save the model again"
                )
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise RefusalError(f"holds {name[-60:]!r} twice; expected it once")
            seen.add(address)
            if isinstance(item, h5py.Dataset):
                _check_dataset(name, item)
                yield name, item
            elif isinstance(item, h5py.Group):
                yield name, item
                stack.append((name, item, depth + 1))


def _check_dataset(name: str, dataset: h5py.Dataset) -> None:
    """Refuses values from outside the file, and codecs that come as plugins."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    unknown = [number for number in filters if number not in _FILTERS]
    if dataset.is_virtual or properties.get_external_count():
        raise RefusalError(
            f"holds values of another file at {name[-60:]!r}; expected all values in "
            "the file itself: save the model again"
        )
    if unknown:
        raise RefusalError(
            f"holds {name[-60:]!r} with the HDF5 filter {unknown[0]}; expected "
            f"{' and '.join(_FILTERS.values())} only"
        )


def _attribute(item: h5py.Group, name: str) -> str | None:
    """A text, which old versions of h5py wrote as bytes; None if there is none."""
    if name not in item.attrs:
        return None
    if item.attrs.get_id(name).get_storage_size() > _LARGEST_TEXT:
        raise RefusalError(f"holds more than {_LARGEST_TEXT >> 20} MiB of {name}")
    value = item.attrs[name]
    value = value.encode() if isinstance(value, str) else bytes(value)
    return _text(value, name)


def _notes(group: h5py.Group) -> dict[str, str | list[str]]:
    """Which layers and weights a group holds, in which order, and who wrote them."""
    lists: dict[str, Any] = {
        key: _attribute(group, key) for key in _WRITER if key in group.attrs
    }
    for key in group.attrs:
        if _NAME_LISTS.fullmatch(key):
            values = np.ravel(group.attrs[key]).tolist()
            lists[key] = [
                x.decode() if isinstance(x, bytes) else str(x) for x in values
            ]
    return lists


# ---- SavedModel of Keras 2


def _read_saved_model(path: Path, room: int, wanted: _Arrays | None) -> dict[str, Any]:
    """What Keras 2 keeps beside the graph, whose functions are never called.

    Arrays are named by the layers that have weights, counted in each model, and the
    attribute that they are: "layer_with_weights-0/kernel".
    """
    import tensorflow as tf

    from gdfq_tf.keras_compat import saved_metadata_pb2

    with (path / "keras_metadata.pb").open("rb") as file:
        content = file.read(_LARGEST_TEXT + 1)
    if len(content) > _LARGEST_TEXT:
        raise RefusalError(
            f"holds more than {_LARGEST_TEXT >> 20} MiB of keras_metadata.pb"
        )
    nodes = saved_metadata_pb2.SavedMetadata.FromString(content).nodes
    root = next(node for node in nodes if node.node_path == "root")
    checkpoint = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    shapes = checkpoint.get_variable_to_shape_map()
    dtypes = checkpoint.get_variable_to_dtype_map()
    keys = _checkpoint_keys(checkpoint)
    sizes = [4 * int(np.prod(shapes[key])) for key in keys.values()]
    on_disk = sum(x.stat().st_size for x in (path / "variables").iterdir())
    _check_size(sum(sizes), on_disk, room)
    if wanted is not None:
        for name, key in keys.items():
            wanted[name] = _numbers(checkpoint.get_tensor(key))
    return {
        "config": root.metadata,
        "keras_version": "2",
        "notes_names": False,
        "groups": {},
        "datasets": [
            [name, _kind(np.dtype(dtypes[key].as_numpy_dtype)), list(shapes[key])]
            for name, key in keys.items()
        ],
    }


def _refuse_links(path: Path) -> None:
    """Refuses a SavedModel with files elsewhere, also where there is no Landlock."""
    variables = path / "variables"
    for item in (path / "keras_metadata.pb", variables, *variables.glob("*")):
        if item.is_symlink():
            raise RefusalError(
                f"holds a link, {item.name[:60]!r}; expected plain files"
            )


def _checkpoint_keys(checkpoint: _Checkpoint) -> dict[str, str]:
    """Name of each weight -> its key, by the graph of objects in the checkpoint."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    graph = TrackableObjectGraph.FromString(checkpoint.get_tensor(_GRAPH_KEY))
    keys: dict[str, str] = {}
    stack = [("", graph.nodes[0], 0)]
    while stack:
        path, node, depth = stack.pop()
        if depth > _DEEPEST or len(keys) > _MOST_OBJECTS:
            raise RefusalError(f"holds more than {_MOST_OBJECTS:,} weights")
        for child in node.children:
            name, target = f"{path}{child.local_name}", graph.nodes[child.node_id]
            if _WITH_WEIGHTS.fullmatch(child.local_name):
                stack.append((f"{name}/", target, depth + 1))
            elif path:
                for attribute in target.attributes:
                    if attribute.name == _VARIABLE:
                        keys[name] = attribute.checkpoint_key
    return keys
