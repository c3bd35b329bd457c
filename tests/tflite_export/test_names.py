"""Tests of tflite_export.names."""

from __future__ import annotations

import pytest

from tflite_export.names import printable, shown


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv_1/Conv2D", "'conv_1/Conv2D'"),
        ("größe", "'größe'"),
        ("a\nb\r\x1b[31m\0", r"'a\nb\r\x1b[31m\x00'"),
        ("a\u202eb\u2066\u2028", r"'a\u202eb\u2066\u2028'"),
        ("\ud800", r"'\ud800'"),
        (b"conv", "'conv'"),
        (b"\xff\xfe", r"'\\xff\\xfe'"),
        ("a" * 60, f"'{'a' * 60}'"),
        ("a" * 61, f"'{'a' * 57}...'"),
        ("it's", '"it\'s"'),
    ],
)
def test_shown(name, expected):
    assert shown(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no 'quotes'", "no 'quotes'"),
        ("a\n\x1bb\u202e", r"a\n\x1bb\u202e"),
        ("b" * 201, "b" * 197 + "..."),
        ("b" * 200, "b" * 200),
    ],
)
def test_printable(text, expected):
    assert printable(text) == expected
