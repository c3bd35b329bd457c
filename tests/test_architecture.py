"""Holds the import rules of docs/architecture.md, by reading the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests import ROOT

OURS = ("gdfq_tf", "tflite_export", "tools", "benchmarks")

# Networks of both Kerases are built there; the embedded classifier is one of Keras 3.
KERAS_3 = {
    "gdfq_tf/keras_compat.py",
    "benchmarks/canaries.py",
    "benchmarks/firmware_networks.py",
    "benchmarks/hostile_files.py",
    "benchmarks/keyword_spotting.py",
    "benchmarks/own_networks.py",
    "benchmarks/preprocessing_fit.py",
    "benchmarks/conformance.py",
    "benchmarks/train_classifier.py",
    "benchmarks/versions_trial.py",
}
# They import what takes a tenth of a second, so that mistakes are told at once.
QUICK = ("gdfq_tf", "gdfq_tf.cli.main", "gdfq_tf.cli.flags", "gdfq_tf.cli.supervisor")


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


def rooms_in_order(package: str) -> list[str]:
    """Modules and folders of the table in docs/architecture.md, ground floor first."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    pattern = rf"^\| `({package}/\w+)(?:/|\.py)` \|"
    return re.findall(pattern, text, flags=re.MULTILINE)


def room_of(path: str) -> str:
    """The room that a source lies in."""
    return "/".join(path.removesuffix(".py").split("/")[:2])


def offenders(paths: list[str], *packages: str) -> dict[str, set[str]]:
    """Which of the sources import any of the packages, and what of them."""
    found = {path: within(imports_of(path), *packages) for path in paths}
    return {path: modules for path, modules in found.items() if modules}


def test_imports_are_found():
    source = "import a.b\ndef f():\n    from c.d import e as g\nif x: import h as i"
    assert imported_modules(source) == {"a.b", "c.d", "c.d.e", "h"}
    assert within({"a", "ab", "a.b"}, "a") == {"a", "a.b"}


def test_tflite_export_stands_alone():
    assert not offenders(sources("tflite_export"), "gdfq_tf", "tools", "benchmarks")


def test_nobody_imports_what_is_not_installed():
    assert not offenders(sources("gdfq_tf", "tflite_export"), "tools", "benchmarks")


def test_flags_belong_to_command_lines():
    assert not offenders(library(), "absl.flags", "absl.app", "gdfq_tf.cli")


@pytest.mark.parametrize("package", ["gdfq_tf", "tflite_export"])
def test_rooms_import_only_rooms_above(package):
    order = rooms_in_order(package)
    assert len(order) == len(set(order)) >= 3
    for path in sources(package):
        if path == f"{package}/__init__.py":
            continue
        room = room_of(path)
        if package == "tflite_export" and room not in order:
            continue  # modules beside the folders
        allowed = order[: order.index(room) + 1]
        used = {
            room_of(module.replace(".", "/"))
            for module in within(imports_of(path), package)
            if "." in module
        }
        assert used & set(order) <= set(allowed), path
        assert package == "tflite_export" or used <= set(order), path


def test_no_modules_import_each_other():
    paths = sources("gdfq_tf", "tflite_export")
    names = {path.removesuffix(".py").replace("/", "."): path for path in paths}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    left = {
        name: {m for m in imports_of(path) if m in names and m != name}
        for name, path in names.items()
        if name != "gdfq_tf"  # names of it are loaded later
    }
    while free := [name for name, used in left.items() if not used & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize("module", QUICK)
def test_mistakes_are_told_at_once(module):
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert not packages & {"numpy", "tensorflow", "rich", "keras", "tf_keras"}


def test_keras_comes_through_one_door():
    everyone = [path for path in sources(*OURS) if path not in KERAS_3]
    assert not offenders(everyone, "keras", "tensorflow.keras")
    # The trial is a user of the package, who has networks of both.
    doors = {"gdfq_tf/keras_compat.py", "benchmarks/versions_trial.py"}
    assert not offenders([p for p in sources(*OURS) if p not in doors], "tf_keras")


def test_library_is_data_free():
    """No room reads a data set or an image file."""
    images = "gdfq_tf.embedded.TEST_IMAGES_PATH"
    assert not offenders(library(), "tensorflow_datasets", "gzip", images)
    readers = {"datasets", "decode_image", "decode_png", "decode_jpeg"}
    for path in library():
        text = (ROOT / path).read_text()
        # Pillow draws the pieces of collages; it opens nothing.
        assert "Image.open" not in text, path
        attributes = {
            node.attr
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Attribute)
        }
        assert not attributes & {*readers, "TEST_IMAGES_PATH"}, path
