"""What benchmarks on a classifier do alike: flags, one-line errors, files of rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from gdfq_tf.cli import runner
from gdfq_tf.cli.classifier_flags import load_classifier_from_flags
from gdfq_tf.cli.flags import Flags, define_classifier_flags
from gdfq_tf.errors import UserError, option
from gdfq_tf.system.output_files import write_whole

__all__ = [
    "Flags",
    "define_classifier_flags",
    "load_classifier_from_flags",
    "read_rows",
    "run",
    "write_rows",
]

Row = dict[str, Any]


def run(
    main: Callable[[flags.FlagValues], None],
    defined: Flags,
    description: str | None,
    bare: str = "model",
) -> NoReturn:
    """Reads the flags of the command line, calls `main` with their values and exits.

    Args:
      main: the benchmark.
      defined: its flags.
      description: shown by --help above them.
      bare: the flag that an argument without a name is for.
    """

    def parsed() -> None:
        if "--help" in sys.argv:
            print(f"{description}{defined.help()}")
            return
        defined.parse(sys.argv[1:], bare, several=False)
        main(defined.values)

    runner.run(parsed)


def key_of(row: Mapping[str, Any]) -> tuple[str, str, int, str]:
    """What tells a row from others: classifier, recipe or variant, seed and widths."""
    return row["model"], row["recipe"], row["seed"], row["bits"]


def read_rows(path: Path) -> list[Row]:
    """The rows that a benchmark wrote to `path`, none if there is no file.

    Raises:
      UserError: it is something else.
    """
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())
        _ = [key_of(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a file of this tool; expected the JSON rows of an earlier "
            f"run, or pass another {option('output')}"
        ) from error
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Replaces the file by one that holds `rows`."""
    write_whole(path, (json.dumps(rows, indent=1) + "\n").encode())
