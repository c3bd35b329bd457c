"""What `--labels` says: names of the classes, and how class folders are numbered."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Sequence

from gdfq_tf.errors import UserError, option
from gdfq_tf.file_interface import read_labels
from tflite_export.names import listed

# So many names are printed; all are in summary.json.
_MOST_SHOWN = 12


def read_class_names(texts: Sequence[str]) -> tuple[str, ...]:
    """The names that `--labels` gives: itself, or one in each line of a file.

    Raises:
      UserError: the file is no text.
    """
    if len(texts) == 1:
        path = pathlib.Path(texts[0]).expanduser()
        # A pipe is a file too, as shells make one of <(...); folders may be classes.
        if path.exists() and not path.is_dir():
            return read_labels(path)
    return read_labels(texts)


def numbered(folders: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The class folders in the order of the model's outputs.

    Args:
      folders: their names, in any order.
      names: the same, in that order; none: alphabetical.

    Raises:
      UserError: a name is unknown, missing or there twice.
    """
    if not names:
        return tuple(sorted(folders))
    wrong = {
        "unknown": sorted(set(names) - set(folders)),
        "missing": sorted(set(folders) - set(names)),
        "there twice": sorted(name for name, n in Counter(names).items() if n > 1),
    }
    found = [f"{_some(those)} {what}" for what, those in wrong.items() if those]
    if found:
        raise UserError(
            f"{option('labels')} names {_some(names)}, and the class folders are "
            f"{_some(sorted(folders))}: {'; '.join(found)}; expected each folder once, "
            "in the order of the model's outputs"
        )
    return tuple(names)


def numbering(names: Sequence[str]) -> str:
    """Which class has which number, in a line."""
    pairs = [f"{i} {listed([name])}" for i, name in enumerate(names[:_MOST_SHOWN])]
    more = len(names) - len(pairs)
    return ", ".join([*pairs, *([f"and {more} more"] if more else [])])


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_SHOWN
    return listed(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
