"""Hostile and odd containers of model files: what the reader's process refuses."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files import file_cell
from gdfq_tf.model_files.file_cell import Reader, inspect_file, read_arrays

BIAS = "model_weights/classes/classes/bias:0"
SECRET = b"PASSWORD=correct horse battery staple"

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a network as net.h5 and net.keras, and a secret beside them."""
    folder = tmp_path_factory.mktemp("saved")
    lay = tf_keras.layers
    layers = [
        lay.Input((4, 4, 3)),
        lay.Flatten(name="row"),
        lay.Dense(3, name="classes"),
    ]
    model = tf_keras.Sequential(layers)
    model.save(folder / "net.h5")
    model.save(folder / "net.keras")
    model.save(folder / "net", save_format="tf")
    (folder / "secret.txt").write_bytes(SECRET)
    with h5py.File(folder / "other.h5", "w") as file:
        file["secret"] = np.arange(3.0, dtype="f4")
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """The same in a folder of the test's own."""
    return shutil.copytree(saved, tmp_path / "copied")


def refusal(path, file_format, *reader) -> str:
    with pytest.raises(UserError) as error:
        read_arrays(inspect_file(path, file_format, *reader))
    text = str(error.value)
    assert "\n" not in text and text.isprintable()
    assert SECRET[:8].decode() not in text
    return text


def matches(pattern, text):
    assert re.search(pattern, text), text


def hdf5_with(folder, edit):
    """net.h5 after `edit(file)`."""
    path = folder / "net.h5"
    with h5py.File(path, "a") as file:
        edit(file)
    return path


def replaced(folder, make):
    """net.h5 with the bias made by `make(group, name)` instead."""

    def edit(file):
        parent, _, name = BIAS.rpartition("/")
        del file[BIAS]
        make(file[parent], name)

    return hdf5_with(folder, edit)


# ---- what is read


def test_an_hdf5_file_is_told_without_its_values(saved):
    file = inspect_file(saved / "net.h5", "hdf5")
    assert json.loads(file.config)["class_name"] == "Sequential"
    assert file.keras_version.startswith("2.")
    assert file.shapes[BIAS] == (3,)
    assert file.num_floats == 48 * 3 + 3
    assert file.groups["model_weights"]["layer_names"] == ["row", "classes"]


@pytest.mark.parametrize(
    ("name", "file_format"),
    [("net.h5", "hdf5"), ("net.keras", "zip"), ("net", "saved_model")],
)
def test_arrays_are_those_of_the_file(saved, name, file_format):
    arrays = read_arrays(inspect_file(saved / name, file_format))
    with h5py.File(saved / "net.h5") as file:
        expected = file[BIAS.replace("bias", "kernel")][()]
    (kernel,) = (x for x in arrays.values() if x.shape == (48, 3))
    np.testing.assert_array_equal(kernel, expected)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2", ">i4", "u1", "?"])
def test_numbers_of_every_type(copied, dtype):
    values = np.array([1, 0, 2]).astype(dtype)
    path = replaced(copied, lambda group, name: group.create_dataset(name, data=values))
    np.testing.assert_array_equal(read_arrays(inspect_file(path, "hdf5"))[BIAS], values)


def test_compressed_scalar_and_empty_values(copied):
    def edit(file):
        group = file["model_weights"]
        options = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        group.create_dataset("packed", data=np.arange(100.0), chunks=(10,), **options)
        group["scalar"] = 3.5
        group["empty"] = np.zeros((0, 3), "f4")

    arrays = read_arrays(inspect_file(hdf5_with(copied, edit), "hdf5"))
    np.testing.assert_array_equal(arrays["model_weights/packed"], np.arange(100.0))
    assert arrays["model_weights/scalar"] == 3.5
    assert arrays["model_weights/empty"].shape == (0, 3)


def test_what_no_network_needs_is_not_read(copied):
    def edit(file):
        file["optimizer_weights/slot"] = np.zeros(5, "f4")
        file["extra"] = np.zeros(5, "f4")
        file["model_weights/text"] = "not a number"

    file = inspect_file(hdf5_with(copied, edit), "hdf5")
    assert file.num_floats == 48 * 3 + 3
    assert {name for name in file.shapes if "classes" not in name} == set()


# ---- values from elsewhere


def external_storage(folder):
    secret = [(str(folder / "secret.txt"), 0, 12)]
    return lambda g, n: g.create_dataset(n, (3,), "f4", external=secret)


def external_link(folder):
    link = h5py.ExternalLink(str(folder / "other.h5"), "/secret")
    return lambda g, n: g.__setitem__(n, link)


def soft_link(folder):
    return lambda g, n: g.__setitem__(n, h5py.SoftLink("/model_weights/elsewhere"))


def virtual(folder):
    def make(group, name):
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (3,))
        group.create_virtual_dataset(name, layout)

    return make


@pytest.mark.parametrize("inside_zip", [False, True])
@pytest.mark.parametrize("make", [external_storage, external_link, soft_link, virtual])
def test_values_of_other_files(copied, make, inside_zip):
    path, file_format = replaced(copied, make(copied)), "hdf5"
    if inside_zip:
        weights = path.read_bytes()
        path, file_format = copied / "net.keras", "zip"
        rewrite_zip(path, {"model.weights.h5": weights})
    matches(
        r"holds (a link to elsewhere|values of another file) at",
        refusal(path, file_format),
    )


def test_links_where_no_network_looks_are_refused_as_well(copied):
    def edit(file):
        file["elsewhere"] = h5py.ExternalLink(str(copied / "other.h5"), "/secret")

    matches(r"link to elsewhere", refusal(hdf5_with(copied, edit), "hdf5"))


def test_groups_that_hold_themselves(copied):
    def edit(file):
        file["model_weights/again"] = file["model_weights"]

    matches(r"model_weights/again' twice", refusal(hdf5_with(copied, edit), "hdf5"))


def test_filters_that_come_as_plugins(copied):
    path = replaced(
        copied,
        lambda g, n: g.create_dataset(n, data=np.ones(3, "f4"), compression="lzf"),
    )
    matches(r"HDF5 filter 32000; expected gzip and shuffle", refusal(path, "hdf5"))


def test_saved_model_whose_variables_are_links(copied):
    data = copied / "net" / "variables" / "variables.data-00000-of-00001"
    data.rename(copied / "elsewhere")
    data.symlink_to(copied / "elsewhere")
    matches(r"holds a link, 'variables\.data", refusal(copied / "net", "saved_model"))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin"])
def test_devices(path):
    matches(r"is no regular file", refusal(Path(path), "json"))


# ---- sizes


def test_small_file_of_large_arrays(copied):
    def edit(file):
        file.create_dataset("never_written", (2**29,), "f4", chunks=(2**20,))

    matches(
        r"declares 2,147,\d+,\d+ bytes in [\d,]+, which no trained weights do",
        refusal(hdf5_with(copied, edit), "hdf5"),
    )


def test_arrays_beyond_this_machine(copied, monkeypatch):
    path = replaced(
        copied,
        lambda g, n: g.create_dataset(n, data=np.zeros(2**18, "f4")),
    )
    monkeypatch.setattr(file_cell, "available_memory", lambda: 4 * 2**19)
    matches(
        r"holds 0\.0 GiB, and 0\.0 GiB of this machine's memory", refusal(path, "hdf5")
    )


def test_json_too_large_for_a_model(tmp_path):
    path = tmp_path / "net.json"
    path.write_bytes(b" " * (2**25 + 1))
    matches(r"more than 32 MiB of JSON", refusal(path, "json"))


def test_configuration_too_large_for_a_model(copied):
    rewrite_zip(copied / "net.keras", {"config.json": os.urandom(2**25 + 1)})
    matches(
        r"bytes of config\.json; expected 32 MiB", refusal(copied / "net.keras", "zip")
    )


# ---- zip


def rewrite_zip(path, members=None, edit=None):
    """A .keras file with some members replaced or added, as `edit(info)` says."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (held | (members or {})).items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if edit:
                edit(info)
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize(
    "name", ["../config.json", "/etc/x", "assets/../../x", "more.py"]
)
def test_files_that_no_model_has(copied, name):
    path = rewrite_zip(copied / "net.keras", {name: b"x"})
    matches(r"holds a file '.*'; expected metadata\.json", refusal(path, "zip"))


def test_two_files_of_one_name(copied):
    path = copied / "net.keras"
    with (
        zipfile.ZipFile(path, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("config.json", "{}")
    matches(r"two files of one name", refusal(path, "zip"))


def test_links_inside(copied):
    def as_link(info):
        info.external_attr = (stat.S_IFLNK | 0o777) << 16

    path = rewrite_zip(copied / "net.keras", edit=as_link)
    matches(r"as a link; expected plain files", refusal(path, "zip"))


def flipped(path, signature, offset, bit=1):
    """Sets a bit of the first local or central header of config.json."""
    content = bytearray(path.read_bytes())
    position = 0
    while True:
        position = content.index(signature, position)
        if b"config.json" in content[position : position + 60]:
            content[position + offset] |= bit
            path.write_bytes(content)
            return path
        position += 4


def test_encrypted_files(copied):
    path = flipped(copied / "net.keras", b"PK\x01\x02", 8)
    matches(r"holds 'config\.json' encrypted", refusal(path, "zip"))


def test_more_bytes_than_declared(copied):
    path = rewrite_zip(copied / "net.keras")
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        info = archive.getinfo("config.json")
    declared = info.file_size.to_bytes(4, "little")
    assert content.count(declared) >= 2
    path.write_bytes(
        content.replace(declared, (info.file_size - 1).to_bytes(4, "little"))
    )
    matches(r"is damaged|another number of bytes", refusal(path, "zip"))


def test_too_many_files(copied):
    members = {f"assets/{i}": b"" for i in range(1001)}
    path = rewrite_zip(copied / "net.keras", members)
    matches(r"holds 1,004 files; expected 1000", refusal(path, "zip"))


# ---- the process


def test_a_reader_that_crashes_is_one_line(saved):
    text = refusal(saved / "net.h5", "hdf5", Reader("import os; os.abort()"))
    matches(r"is damaged, .*: reading it ended in SIGABRT", text)


@pytest.mark.parametrize(
    "answer",
    [
        "no JSON",
        '{"config": null, "arrays": [["x", "<f4", [3]]]}',
        '{"config": null, "arrays": [["x", "O", [1]]]}',
        '{"config": null, "arrays": [["x", "<f4", [-1]]]}',
        '{"config": null, "arrays": [["x", "<f4", [1152921504606846976]]]}',
        "[]",
    ],
)
def test_a_reader_that_answers_nonsense_is_one_line(saved, answer):
    text = refusal(saved / "net.h5", "hdf5", Reader(f"print({answer!r})"))
    matches(r"is damaged, .*: it cannot be read", text)


def test_reasons_are_one_printable_line(saved):
    answer = {"refusal": "holds \x1b[31m\n\u202e" + "x" * 1000}
    reader = Reader(f"print({json.dumps(answer)!r})")
    text = refusal(saved / "net.h5", "hdf5", reader)
    assert len(text) < 500


def test_the_current_directory_is_not_imported_from(saved, tmp_path, monkeypatch):
    (tmp_path / "h5py.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *file_cell.sys.path])
    assert inspect_file(saved / "net.h5", "hdf5").num_floats == 147
