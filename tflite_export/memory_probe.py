"""Prints by how many bytes LiteRT grows this process for a `.tflite` file.

Run as a script: it imports neither TensorFlow nor this package, which would hide what
the file takes. Prints `null` where the system does not tell.
"""

import json
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak() -> int:
    """The largest number of bytes that this process has had in memory.

    Raises:
      ImportError: the system does not tell.
    """
    if _STATUS.exists():  # Linux, whose getrusage counts the parent's memory too
        (line,) = (x for x in _STATUS.read_text().splitlines() if "VmHWM" in x)
        return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def main() -> None:
    """Loads the file that the first argument names and runs it twice."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    try:
        before = peak()
    except ImportError:  # Windows
        sys.stdout.write(json.dumps(None))
        return
    interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        values = np.zeros(detail["shape"], detail["dtype"])
        interpreter.set_tensor(detail["index"], values)
    for _ in range(2):
        interpreter.invoke()
    sys.stdout.write(json.dumps(peak() - before))


if __name__ == "__main__":
    main()
