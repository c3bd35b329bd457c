from __future__ import annotations

import os

import pytest

from gdfq_tf.cli.class_names import numbered, numbering, read_class_names
from gdfq_tf.errors import UserError


def test_names_are_the_list_or_the_lines_of_a_file(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffape\r\n  great cat \n\n".encode())
    assert read_class_names([str(path)]) == ("ape", "great cat")
    assert read_class_names(["ape", "cat"]) == ("ape", "cat")
    assert read_class_names(["ape"]) == ("ape",)
    assert read_class_names([]) == ()


def test_names_come_through_a_pipe_and_folders_are_names(tmp_path, monkeypatch):
    receiver, sender = os.pipe()
    os.write(sender, b"ape\ncat\n")
    os.close(sender)
    assert read_class_names([f"/dev/fd/{receiver}"]) == ("ape", "cat")
    os.close(receiver)
    (tmp_path / "ape").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_class_names(["ape"]) == ("ape",)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="is no text; expected one class name"):
        read_class_names([str(tmp_path / "a.png")])


def test_folders_are_alphabetical_unless_told():
    assert numbered(["b", "C", "a"], ()) == ("C", "a", "b")
    assert numbered(["b", "C", "a"], ("b", "a", "C")) == ("b", "a", "C")


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (("a", "x"), "x unknown; b missing;"),
        (("a",), "folders are a, b: b missing;"),
        (("a", "b", "a"), "folders are a, b: a there twice;"),
        (("b", "a", "y", "x"), "x, y unknown;"),
    ],
)
def test_names_that_are_not_the_folders(names, wrong):
    with pytest.raises(UserError) as error:
        numbered(["b", "a"], names)
    assert f"labels names {', '.join(names)}, and the class" in str(error.value)
    assert wrong in str(error.value)
    assert error.value.options == ("labels",)


def test_long_lists_are_cut():
    names = [f"c{i}" for i in range(14)]
    text = numbering(names)
    assert text.startswith("0 c0, 1 c1, 2 c2")
    assert text.endswith("11 c11, and 2 more")
    assert numbering(["ape", "c\nat"]) == "0 ape, 1 c\\nat"
    with pytest.raises(UserError) as error:
        numbered(names, names[:-1])
    assert "c11 and 1 more, and the class folders are" in str(error.value)
