"""Programs that others are run by."""

from __future__ import annotations

import pytest

from tflite_export.errors import ExportError
from tflite_export.programs import last_line, run_program


def shell(script: str, **options):
    return run_program(["sh", "-c", script], expected="expected a shell", **options)


def test_what_it_prints(tmp_path):
    done = shell("cat; pwd; echo $WORD >&2", text="a\n", folder=tmp_path,
                 environment={"WORD": "b"})  # fmt: skip
    assert (done.stdout, done.stderr) == (f"a\n{tmp_path}\n", "b\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo x; echo y >&2; exit 3", "sh fails with status 3 (y)"),
        ("echo x; exit 3", "sh fails with status 3 (x)"),
        ("exit 1", "sh fails with status 1 (no reason given)"),
        ("exec sleep 9", "sh takes more than 1 seconds"),
    ],
)
def test_what_goes_wrong_is_one_line(text, message):
    with pytest.raises(ExportError) as error:
        shell(text, seconds=1)
    assert str(error.value) == f"{message}; expected a shell"


def test_other_names_and_programs_that_are_not_there():
    with pytest.raises(ExportError, match=r"^The tool cannot be started .No such file"):
        run_program(["/none"], name="The tool", expected="")


def test_the_last_line_is_printable():
    assert last_line("first\nlast\x07\n\n") == "last\\x07"
    assert last_line("\n") == ""
