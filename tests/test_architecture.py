"""Holds the import rules of docs/architecture.md, by reading the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests import ROOT

OURS = ("gdfq_tf", "tflite_export", "tools", "benchmarks")

# Files every room may use, whatever its place.
SHARED = {"errors", "keras_compat", "config", "progress"}
# The embedded classifier was trained and saved with Keras 3; measurements are made on
# networks and files of both.
KERAS_3 = {
    "benchmarks/canaries.py",
    "benchmarks/hostile_files.py",
    "gdfq_tf/model_files/readers.py",
    "benchmarks/conformance.py",
    "benchmarks/train_classifier.py",
}


def sources(*folders: str) -> list[str]:
    return sorted(
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    )


def library() -> list[str]:
    """The sources that are no command lines."""
    everything = sources("gdfq_tf", "tflite_export")
    return [path for path in everything if not path.startswith("gdfq_tf/cli/")]


def imported_modules(source: str) -> set[str]:
    """Dotted names of all that a source imports, at any depth of nesting.

    `from package import name` gives both `package` and `package.name`, as
    `name` may be a module.
    """
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    return modules


def imports_of(path: str) -> set[str]:
    return imported_modules((ROOT / path).read_text())


def within(modules: set[str], *packages: str) -> set[str]:
    return {
        module
        for module in modules
        if any(module == p or module.startswith(f"{p}.") for p in packages)
    }


def rooms_in_order() -> list[str]:
    """The gdfq_tf modules of the table in docs/architecture.md, top down."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    return re.findall(r"^\| `gdfq_tf/(\w+)\.py` \|", text, flags=re.MULTILINE)


def test_imports_are_found():
    source = "import a.b\ndef f():\n    from c.d import e as g\nif x: import h as i"
    assert imported_modules(source) == {"a.b", "c.d", "c.d.e", "h"}
    assert within({"a", "ab", "a.b"}, "a") == {"a", "a.b"}


@pytest.mark.parametrize("path", sources("tflite_export"))
def test_tflite_export_stands_alone(path):
    assert not within(imports_of(path), "gdfq_tf", "tools")


@pytest.mark.parametrize("path", library())
def test_library_does_not_import_command_lines(path):
    assert not within(imports_of(path), "gdfq_tf.cli", "tools", "benchmarks")


@pytest.mark.parametrize("path", sources("gdfq_tf/cli"))
def test_command_lines_do_not_import_tools(path):
    assert not within(imports_of(path), "tools", "benchmarks")


@pytest.mark.parametrize("path", library())
def test_flags_belong_to_command_lines(path):
    assert not within(imports_of(path), "absl.flags", "absl.app")


@pytest.mark.parametrize("module", ["start", "supervisor"])
def test_supervisors_start_at_once(module):
    """They import the standard library and what needs no more."""
    program = f"import sys, gdfq_tf.cli.{module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert not packages & {"numpy", "tensorflow", "absl", "rich", "tflite_export"}


@pytest.mark.parametrize("path", sources(*OURS))
def test_keras_comes_through_one_door(path):
    modules = imports_of(path)
    if path not in KERAS_3:
        assert not within(modules, "keras")
        assert not within(modules, "tensorflow.keras")
    if path != "gdfq_tf/keras_compat.py":
        assert not within(modules, "tf_keras")


@pytest.mark.parametrize("path", library())
def test_library_is_data_free(path):
    """No room reads a data set or an image file."""
    modules = imports_of(path)
    images = "gdfq_tf.embedded.TEST_IMAGES_PATH"
    assert not within(modules, "tensorflow_datasets", "gzip", images)
    # Pillow draws the pieces of collages; it opens nothing.
    assert "Image.open" not in (ROOT / path).read_text()
    attributes = {
        node.attr
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Attribute)
    }
    readers = {"datasets", "decode_image", "decode_png", "decode_jpeg"}
    assert not attributes & {*readers, "TEST_IMAGES_PATH"}


def test_table_names_existing_rooms():
    rooms = rooms_in_order()
    assert len(rooms) == len(set(rooms)) >= 10
    for room in rooms:
        assert (ROOT / "gdfq_tf" / f"{room}.py").exists(), room


@pytest.mark.parametrize("room", rooms_in_order())
def test_rooms_import_only_rooms_above(room):
    path = ROOT / "gdfq_tf" / f"{room}.py"
    rooms = rooms_in_order()
    allowed = SHARED.union(rooms[: rooms.index(room)])
    used = {
        module.split(".")[1]
        for module in within(imported_modules(path.read_text()), "gdfq_tf")
        if "." in module
    }
    assert used <= allowed


def test_every_room_is_in_the_table():
    modules = {p.stem for p in (ROOT / "gdfq_tf").glob("*.py")} - {"__init__"}
    assert modules <= SHARED.union(rooms_in_order())
