"""Where the files of firmware lie: plainly, or as build systems have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

# Files that are made; all others are those of `files/`.
HEADER, CODE, VECTORS, README = "header", "code", "vectors", "readme"


@dataclasses.dataclass(frozen=True)
class Layout:
    """A folder.

    Attributes:
      files: path in it -> what is there. Both have `@prefix@` for the name that files
        and functions begin with, `@PREFIX@` for the same in capitals.
      usage: how to run the self-test, for the README.
    """

    files: Mapping[str, str]
    usage: str

    def names(self, prefix: str) -> tuple[str, ...]:
        """Of the files."""
        return tuple(name.replace("@prefix@", prefix) for name in self.files)


LAYOUTS: Mapping[str, Layout] = {
    "plain": Layout(
        {
            "@prefix@.h": HEADER,
            "@prefix@.c": CODE,
            "test_@prefix@.c": "test_model.c",
            "test_@prefix@.h": VECTORS,
            "Makefile": "Makefile",
            "CMakeLists.txt": "CMakeLists.txt",
            "README.md": README,
        },
        "```sh\nmake test\n"
        'make test CC=arm-none-eabi-gcc CFLAGS="..." RUN="qemu-system-arm ..."\n```',
    ),
    "arduino": Layout(
        {
            "library.properties": "library.properties",
            "src/@prefix@.h": HEADER,
            "src/@prefix@.c": CODE,
            "examples/self_test/self_test.ino": "self_test.ino",
            "examples/self_test/test_@prefix@.h": VECTORS,
            "README.md": README,
        },
        "An Arduino library: put this folder into `libraries` of the sketchbook. Its "
        "example\n`self_test` prints the result at 115,200 baud.",
    ),
    "zephyr": Layout(
        {
            "zephyr/module.yml": "module.yml",
            "Kconfig": "Kconfig",
            "CMakeLists.txt": "module.cmake",
            "include/@prefix@.h": HEADER,
            "src/@prefix@.c": CODE,
            "self_test/CMakeLists.txt": "self_test.cmake",
            "self_test/prj.conf": "prj.conf",
            "self_test/test_@prefix@.c": "test_model.c",
            "self_test/test_@prefix@.h": VECTORS,
            "README.md": README,
        },
        "A Zephyr module: name this folder in `ZEPHYR_EXTRA_MODULES`, and set "
        "`CONFIG_@PREFIX@=y`.\n\n```sh\nwest build -b BOARD self_test\n```",
    ),
}
DEFAULT_LAYOUT = "plain"
