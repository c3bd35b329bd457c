"""Manifests read back as written, all else is refused, and what differs is told."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdfq_tf.cli.flags import COMMANDS, manifest_options
from gdfq_tf.errors import UserError
from gdfq_tf.manifest import MANIFEST, Manifest, absolute, file_digests, read_manifest

OPTIONS = {"model": "/nowhere/a.keras", "bits": ["w8a8"], "seed": 3, "weights": None}
FOUND = Manifest(
    OPTIONS, [], {}, "c", "i", {"numpy": "2.1"}, {"processor": "x", "blas": [{"n": 1}]}
)


def written(tmp_path, **changes):
    dataclasses.replace(FOUND, **changes).write(tmp_path)
    return tmp_path / MANIFEST


def test_reads_back_from_file_and_directory(tmp_path):
    path = written(tmp_path)
    assert read_manifest(path) == read_manifest(tmp_path) == FOUND


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema": 2}, "not of schema 1"),
        ({"options": []}, "its options is no dict"),
        ({"files": {"model": 1}}, "its files is no dict"),
        ({"from_program": [1]}, "its from_program is no list"),
        ({"classifier": None}, "its classifier is no str"),
        ({"more": 1}, "unexpected keyword argument 'more'"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, change, complaint):
    path = written(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=complaint):
        read_manifest(path)


def test_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"manifest\.json cannot be read.*No such file"):
        read_manifest(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda x: (
        st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from([f.name for f in dataclasses.fields(Manifest)]), value=JSON)
def test_strange_fields_are_refused_or_read(tmp_path_factory, name, value):
    folder = tmp_path_factory.getbasetemp()
    path = written(folder)
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    try:
        assert getattr(read_manifest(path), name) == value
    except UserError as error:
        assert "expected the manifest.json of a run" in str(error)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=60))
def test_strange_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "strange.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(path)


def test_files_that_moved_are_taken_and_others_refused(tmp_path):
    model, moved = tmp_path / "a.keras", tmp_path / "b.keras"
    model.write_bytes(b"weights")
    options = absolute({"model": str(model), "weights": "imagenet", "bits": ["w8a8"]})
    digests = file_digests(options)
    # Of a name that is no file there is nothing to tell.
    assert digests == {"model": hashlib.sha256(b"weights").hexdigest()}
    manifest = dataclasses.replace(FOUND, options=options, files=digests)
    model.rename(moved)
    with pytest.raises(UserError, match=r"a\.keras is not there, but the run"):
        manifest.require_files(options)
    manifest.require_files({"model": str(moved)})
    moved.write_bytes(b"other")
    with pytest.raises(UserError, match=r"b\.keras is SHA-256 .* from a model"):
        manifest.require_files({"model": str(moved)})


def test_a_directory_has_names_and_contents(tmp_path):
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)
    (folder / "variables" / "x").write_text("1")
    options, digests = {"model": str(folder)}, set()
    digests.add(file_digests(options)["model"])
    (folder / "variables" / "x").rename(folder / "x")
    digests.add(file_digests(options)["model"])
    (folder / "x").write_text("2")
    digests.add(file_digests(options)["model"])
    assert len(digests) == 3


def test_differences_are_told():
    assert not FOUND.differences(FOUND.versions, FOUND.machine)
    assert FOUND.differences({"numpy": "2.2"}, {"processor": "x", "blas": []}) == [
        "numpy 2.1 then, 2.2 now",
        "blas [{'n': 1}] then, [] now",
    ]


def parse(*arguments):
    return COMMANDS["quantize"].parse(arguments)


def test_flags_are_those_of_the_manifest(tmp_path):
    flags = ("--model=a.keras", "--bits=w4a8,w2a3", "--recipe=best", "--mean=0.5")
    values = parse(
        *flags, "--max_bytes=9", "--output_dir=old", "--overwrite", "--quiet"
    )
    options = manifest_options(values)
    path = written(tmp_path, options=options)
    again = parse(f"--from_manifest={path}", "--output_dir=new")
    assert manifest_options(again) == options
    assert (again.output_dir, again.overwrite, again.quiet) == ("new", False, False)
    # What has moved may be given, also without the name of the flag.
    assert (
        parse(f"--from_manifest={path}", "--output_dir=n", "b.keras").model == "b.keras"
    )


@pytest.mark.parametrize(
    ("options", "arguments", "complaint"),
    [
        ({"bits": ["w8a8"]}, ["--bits=w4a8"], "bits.*which has .*w8a8.*drop one"),
        ({"magic": 1}, [], "has magic, which this version does not know"),
        ({"output_dir": "x"}, [], "has output_dir, which"),
        ({"recipe": "none such"}, [], "none such"),
        ({"seed": "many"}, [], "many"),
        ({"seed": -1}, [], "-1"),
    ],
)
def test_flags_that_contradict_or_are_unknown(tmp_path, options, arguments, complaint):
    path = written(tmp_path, options=options)
    with pytest.raises(UserError, match=complaint):
        parse(f"--from_manifest={path}", "--output_dir=x", "--model=m", *arguments)


def test_what_was_made_of_objects_is_made_in_python(tmp_path):
    path = written(tmp_path, from_program=["model", "pool"])
    with pytest.raises(UserError, match=r"whose model, pool.*quantize_from_manifest"):
        parse(f"--from_manifest={path}", "--output_dir=x")
