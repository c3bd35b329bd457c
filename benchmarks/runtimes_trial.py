"""Runs `.tflite` files with a runtime of any age; for benchmarks/runtimes.py.

Takes the module of the runtime, then paths from standard input, and answers each with a
line of JSON: the greatest difference from the outputs in the `.npz` beside the file, or
why the runtime refuses it. It runs on Python 3.8, with nothing but NumPy and the
runtime.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np


def largest_difference(interpreter_class: type, path: Path) -> int:
    """Of the outputs, in steps."""
    interpreter = interpreter_class(model_content=path.read_bytes())
    interpreter.allocate_tensors()
    (source,), (target,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    with np.load(path.with_suffix(".npz")) as arrays:
        pairs = zip(arrays["inputs"], arrays["outputs"])  # noqa: B905 - Python 3.8
        differences = []
        for example, expected in pairs:
            interpreter.set_tensor(source["index"], example[np.newaxis])
            interpreter.invoke()
            found = interpreter.get_tensor(target["index"])[0]
            differences.append(np.abs(found.astype(int) - expected.astype(int)).max())
    return int(max(differences))


def main() -> None:
    """The module comes as the first argument."""
    interpreter_class = importlib.import_module(sys.argv[1]).Interpreter
    for line in sys.stdin:
        try:
            lsb = largest_difference(interpreter_class, Path(line.strip()))
            print(json.dumps({"lsb": lsb}), flush=True)
        except (ValueError, RuntimeError, SystemError) as error:
            reason = " ".join(str(error).split())[:100]
            print(json.dumps({"refused": reason}), flush=True)


if __name__ == "__main__":
    main()
