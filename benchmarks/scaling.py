"""How time and memory grow with parameters, resolution, classes and processes.

    python -m benchmarks.scaling --output=docs/results/scaling.json \
        --plot=docs/images/scaling.svg

Generator and refinement of small networks, which differ from one in one respect each; a
process per network with one thread, and for the last two of them on the loopback. Times
are medians of four steps, memory is each process' at its peak.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import commands
from gdfq_tf.system.machine import describe_machine

_BASE = {"width": 16, "size": 32, "classes": 10}
# What grows, its label, and the values it takes besides the base's.
_AXES = {
    "width": ("parameters", (8, 32, 64)),
    "size": ("pixels on a side", (16, 64, 128)),
    "classes": ("classes", (100, 1000)),
}
_PROCESSES = (1, 2)


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The results")
    defined.string("output", "The .json file to write.", required=True)
    defined.string("plot", "The .svg file to draw.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Measures every cell, writes, draws."""
    cells = [(_BASE, 1)]
    for name, (_, others) in _AXES.items():
        cells += [({**_BASE, name: value}, 1) for value in others]
    cells += [(_BASE, count) for count in _PROCESSES if count > 1]
    rows = []
    for cell, num_processes in cells:
        rows.append(
            {**cell, "processes": num_processes, **measure(cell, num_processes)}
        )
        print(rows[-1], flush=True)
    content = {"machine": describe_machine(), "rows": rows}
    Path(values.output).write_text(json.dumps(content, indent=1) + "\n")
    draw(rows, Path(values.plot))


def measure(cell: dict[str, int], num_processes: int) -> dict[str, Any]:
    """What the first of so many processes found, see benchmarks/scaling_trial.py."""
    command = [sys.executable, "-m", "benchmarks.scaling_trial", json.dumps(cell)]
    environments = [os.environ] if num_processes == 1 else _cluster(num_processes)
    processes = [
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for env in environments
    ]
    outputs = [process.communicate()[0] for process in processes]
    return json.loads(outputs[0].splitlines()[-1])


def _cluster(size: int) -> list[dict[str, str]]:
    """The environment of each process, at ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
    addresses = [f"127.0.0.1:{opened.getsockname()[1]}" for opened in sockets]
    for opened in sockets:
        opened.close()
    configs = [
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
        for i in range(size)
    ]
    return [{**os.environ, "TF_CONFIG": json.dumps(config)} for config in configs]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Time per image above, memory below, one column for each thing that grows."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    labels = {name: label for name, (label, _) in _AXES.items()}
    labels["processes"] = "processes"
    with mpl.rc_context({"svg.hashsalt": path.name, "font.size": 9}):
        figure = Figure((10, 5), layout="constrained")
        axes = figure.subplots(2, len(labels), sharey="row")
        for column, (name, label) in enumerate(labels.items()):
            fixed = {**_BASE, "processes": 1}
            del fixed[name]
            chosen = [r for r in rows if all(r[x] == y for x, y in fixed.items())]
            chosen.sort(key=lambda row: row[name])
            key = "parameters" if name == "width" else name
            x = [row[key] for row in chosen]
            for stage in chosen[0]["seconds_per_step"]:
                y = [
                    1000 * row["seconds_per_step"][stage] / row["images_per_step"]
                    for row in chosen
                ]
                axes[0, column].loglog(x, y, "o-", label=stage)
            memory = [row["peak_mib"] for row in chosen]
            axes[1, column].loglog(x, memory, "o-", color="tab:gray")
            axes[1, column].set_xlabel(label)
            for row in (0, 1):
                axes[row, column].set_xticks(x, [f"{value:,}" for value in x])
                axes[row, column].minorticks_off()
                axes[row, column].grid(visible=True, alpha=0.3)
        axes[0, 0].set_ylabel("ms per image and step")
        axes[1, 0].set_ylabel("MiB at the peak, each process")
        axes[0, 0].legend()
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="output")
