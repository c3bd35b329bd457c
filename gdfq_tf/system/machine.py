"""What the bytes of a result depend on besides model, flags and seed.

Sums of floats are split among threads and rounded by the instructions a CPU has: the
same numbers of threads and the same kernels give the same bytes.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import tensorflow as tf

from gdfq_tf.errors import UserError
from gdfq_tf.system.environment import kept_variable
from tflite_export.benchmark import processor

# It lets several OpenMP libraries into this process and all its children.
with kept_variable("KMP_DUPLICATE_LIB_OK"):
    import threadpoolctl

# Of /proc/cpuinfo's flags, those that TensorFlow, oneDNN and BLAS choose kernels by.
_INSTRUCTION_SETS = re.compile(
    r"(sse4_\d|ssse3|avx|avx2|fma|f16c|avx512\w*|avx_vnni\w*|amx_\w+|"
    r"asimd\w*|sve\w*|bf16|i8mm)"
)


def fix_num_threads(num_threads: int) -> None:
    """Has TensorFlow compute with `num_threads` threads, on however many CPUs.

    NumPy's linear algebra computes with one.
    To be called before TensorFlow computes anything.

    Raises:
      UserError: it has.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(num_threads)
    except RuntimeError as error:
        raise UserError(
            f"the number of threads was to be {num_threads}, and TensorFlow has "
            "started its own; fix it first of all"
        ) from error
    # More than there are CPUs would be cut to as many, and then round otherwise.
    threadpoolctl.threadpool_limits(1, user_api="blas")


def describe_machine() -> dict[str, Any]:
    """CPU, threads and kernels of this process, ready for JSON."""
    usable = _num_usable_cpus()
    threading = tf.config.threading
    return {
        "processor": processor(),
        "system": platform.system(),
        "logical_cpus": os.cpu_count(),
        "usable_cpus": usable,
        "instruction_sets": _instruction_sets(),
        # 0 stands for as many as there are usable CPUs.
        "intra_op_threads": threading.get_intra_op_parallelism_threads() or usable,
        "inter_op_threads": threading.get_inter_op_parallelism_threads() or usable,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "default"),
        "blas": [
            {
                "library": library["internal_api"],
                "version": library["version"],
                "kernels": library.get("architecture"),
                "threads": library["num_threads"],
            }
            for library in threadpoolctl.threadpool_info()
            if library["user_api"] == "blas"
        ],
    }


def _num_usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return []
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    names = found[1].split() if found else []
    return sorted(name for name in names if _INSTRUCTION_SETS.fullmatch(name))
