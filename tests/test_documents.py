"""What README.md and docs/ show is true: code runs, commands parse, links lead on."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import gdfq_tf
from benchmarks import pages
from gdfq_tf import config
from gdfq_tf.cli.flags import COMMANDS
from gdfq_tf.config import DEFAULT_RECIPE, RECIPES, StudentBudget
from gdfq_tf.manifest import Manifest
from tests import ROOT

LARGEST_README = 7000  # bytes
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
# Programs of others: what they are told is not checked.
OTHERS = {"pip"}
FILES = re.compile(
    r"`((?:\.ci|benchmarks|docs|gdfq_tf|tests|tflite_export|tools)/[\w./-]+)`"
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[tuple[str, str]]:
    """(what stands behind the language, text) of each block of code."""
    pattern = rf"^```{language}\b *([^\n]*)\n(.*?)^```$"
    return re.findall(pattern, path.read_text(), re.DOTALL | re.MULTILINE)


def shell_commands(path: Path) -> Iterator[list[str]]:
    """The words of each command in blocks of `sh`."""
    for _, text in blocks(path, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def flags_of_source(source: str) -> set[str]:
    """Names of the absl flags that a source defines."""
    defined = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr.startswith("DEFINE_"):
            defined.add(ast.literal_eval(node.args[0]))
    return defined


def check_benchmark(module: str, arguments: list[str]) -> None:
    source = ROOT / f"{module.replace('.', '/')}.py"
    assert source.exists(), f"there is no {module}"
    if "def define_flags(" in source.read_text():
        importlib.import_module(module).define_flags().parse(
            arguments, "model", several=False
        )
        return
    names = {argument[2:].split("=")[0] for argument in arguments}
    assert names <= flags_of_source(source.read_text()), f"{module} has no {names}"


def check_command(words: list[str]) -> None:
    """Fails unless the words are a command that there is, with flags that it takes."""
    program, *arguments = words
    if program == "gdfq":
        COMMANDS[arguments[0]].parse(arguments[1:])
    elif program == "python" and arguments[0] == "-m":
        check_benchmark(arguments[1], arguments[2:])
    elif program == "make":
        makefile = ROOT / "Makefile"
        if arguments[0] == "-C":  # in a folder that gdfq firmware wrote
            makefile = ROOT / "tflite_export" / "c99" / "files" / "Makefile"
            arguments = arguments[2:]
        targets = re.findall(r"^([.\w-]+):", makefile.read_text(), re.M)
        assert arguments[0] in targets, f"make has no {arguments[0]}"
    else:
        assert program in OTHERS, f"{program} is not known here"


def anchors(text: str) -> set[str]:
    """What the headings of a page can be linked as."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


@pytest.fixture
def short_runs(monkeypatch):
    """The default recipe takes seconds: a few images of noise."""
    calibrate = RECIPES["calibrate"]
    short = dataclasses.replace(
        calibrate,
        name=DEFAULT_RECIPE,
    ).with_budgets(lambda _: StudentBudget(16))
    monkeypatch.setattr(config, "RECIPES", {**RECIPES, DEFAULT_RECIPE: short})


# TensorFlow's converter, of its own calibration.
@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected")
@pytest.mark.parametrize(
    "path", [path for path in PAGES if blocks(path, "python")], ids=name_of
)
def test_python_runs(path, short_runs, tiny_classifier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_classifier.save("classifier.keras")
    code = "\n".join(text for _, text in blocks(path, "python"))
    exec(compile(code, name_of(path), "exec"), {"__name__": "document"})


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_parse(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    earlier = tmp_path / "runs" / "x"  # which some commands go on from
    earlier.mkdir(parents=True)
    options = {"model": "classifier.keras"}
    Manifest(options, [], {}, "", "", {}, {}).write(earlier)
    for words in shell_commands(path):
        if words[0] == "export":
            monkeypatch.setenv(*words[1].split("=", 1))
        else:
            check_command(words)


def test_there_are_commands_and_python():
    found = {
        words[0] for words in itertools.chain.from_iterable(map(shell_commands, PAGES))
    }
    assert found == {"export", "gdfq", "make", "pip", "python"}
    assert len([path for path in PAGES if blocks(path, "python")]) >= 2


@pytest.mark.parametrize(
    "line",
    [
        "gdfq quantise x --output_dir=o",
        "gdfq quantize x --output=o",
        "python -m benchmarks.acuracy --model=x",
        "python -m benchmarks.accuracy --model=x --data=d --output=o --widths=w8a8",
        "python -m benchmarks.bit_faults --model=x",
        "make tests",
        "quantize x",
    ],
)
def test_commands_that_are_wrong_are_found(line):
    with pytest.raises((AssertionError, KeyError, gdfq_tf.UserError)):
        check_command(shlex.split(line))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_excerpts_are_from_their_files(path):
    for source, text in blocks(path, "py"):
        assert text in (ROOT / source).read_text(), textwrap.indent(text, source)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_and_files_exist(path):
    text = path.read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target.read_text()), link
    for file in FILES.findall(text):
        assert "NAME" in file or (ROOT / file).exists(), f"there is no {file}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_made_parts_are_up_to_date(path):
    text = path.read_text()
    assert pages.filled(text) == text, "run python -m benchmarks.pages"


def test_parts_are_made_anew():
    begin, end = "before\n<!-- made: recipes -->\n", "<!-- end -->\nbehind\n"
    made = pages.filled(f"{begin}old{end}")
    assert made.startswith(begin)
    assert made.endswith(end)
    assert "old" not in made
    assert "| `fast` | 20 | 25 | 128 / 1,024 / 1,024 | reconstructed |" in made


def test_every_part_is_on_a_page():
    text = "".join(path.read_text() for path in PAGES)
    assert set(re.findall(r"<!-- made: (\S+)", text)) == set(pages.PARTS)


def test_every_option_of_the_api_is_told():
    text = (ROOT / "docs" / "python.md").read_text()
    named = set(re.findall(r"`(\w+)", text))
    options = set(gdfq_tf.quantize.__kwdefaults__)
    figures = {f.name for f in dataclasses.fields(gdfq_tf.QuantizedModel)}
    assert options | figures <= named
    assert {f.name for f in dataclasses.fields(gdfq_tf.Result)} <= named


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= LARGEST_README


def test_all_pages_are_linked_from_the_readme_or_its_pages():
    links = {
        (path.parent / link.split("#")[0]).resolve()
        for path in PAGES
        for link in re.findall(r"\]\(([^)]+)\)", path.read_text())
    }
    assert set(PAGES[1:]) <= links
