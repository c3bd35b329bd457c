"""Runs damaged `.tflite` files with LiteRT, in a process that may crash.

Reads paths of files from standard input and answers each with a line of JSON: what
users of the file get. Without TensorFlow, so that it starts fast.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def facts(path: str, images: np.ndarray) -> dict:
    """Formats of the ends, signatures, and outputs (N, classes) of int8 images."""
    interpreter = Interpreter(model_content=Path(path).read_bytes())
    interpreter.allocate_tensors()
    ends = interpreter.get_input_details(), interpreter.get_output_details()
    (source,), (target,) = ends
    outputs = []
    for image in images:
        interpreter.set_tensor(source["index"], image[np.newaxis])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"]).ravel().tolist())
    formats = [
        [
            list(map(int, end["shape"])),
            str(end["dtype"]),
            *map(float, end["quantization"]),
        ]
        for (end,) in ends
    ]
    return {
        "formats": formats,
        "signatures": interpreter.get_signature_list(),
        "outputs": outputs,
    }


def main() -> None:
    """Images come as the first argument, an `.npy` file."""
    images = np.load(sys.argv[1])
    for line in sys.stdin:
        try:
            answer = facts(line.strip(), images)
        except Exception as error:  # whatever LiteRT makes of damage
            answer = {"refused": type(error).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
