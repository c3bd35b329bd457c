"""What the bytes of a run depend on: threads, CPUs, oneDNN.

    python -m benchmarks.determinism

Quantizes the embedded classifier with each setting, by tools/quantize.py in a process
of its own, and prints the first digits of sha256 of what it wrote.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table

ROOT = Path(__file__).resolve().parent.parent
# --num_threads, None: one for each usable CPU; usable CPUs; TF_ENABLE_ONEDNN_OPTS.
SETTINGS = (
    (None, 2, "1"),
    (None, 2, "1"),
    (2, 2, "1"),
    (2, 1, "1"),
    (1, 2, "1"),
    (1, 1, "1"),
    (2, 2, "0"),
)
FILES = ("w8a8.tflite", "w4a8.tflite", "float.tflite", "int8_noise.tflite")


def digests(num_threads: int | None, num_cpus: int, onednn: str) -> list[str]:
    """Of the pool and of `FILES`."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name, "run")
        command = [sys.executable, str(ROOT / "tools" / "quantize.py")]
        command += ["--model=embedded", "--recipe=fast", "--num_steps=5"]
        command += ["--bits=w8a8,w4a8", f"--output_dir={directory}"]
        if num_threads is not None:
            command.append(f"--num_threads={num_threads}")
        cpus = sorted(os.sched_getaffinity(0))[:num_cpus]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn},
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        with np.load(directory / "synthetic.npz") as pool:
            contents = [pool["pixels"].tobytes()]
        for file in FILES:
            (path,) = directory.glob(f"*_{file}")
            contents.append(path.read_bytes())
    return [hashlib.sha256(content).hexdigest()[:6] for content in contents]


def main() -> None:
    """Runs every setting and prints a row each."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAVY)
    for column in ("--num_threads", "CPUs", "oneDNN", "pool", *FILES):
        table.add_column(column)
    for num_threads, num_cpus, onednn in SETTINGS:
        found = digests(num_threads, num_cpus, onednn)
        table.add_row(str(num_threads or ""), str(num_cpus), onednn, *found)
    rich.console.Console(width=100).print(table)


if __name__ == "__main__":
    main()
