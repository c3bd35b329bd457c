"""Who computes the outputs of a file that are held against its student's."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable

import numpy as np

from tflite_export.integer_network import IntegerNetwork
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.litert.int16 import LITERT_INT16
from tflite_export.litert.processors import processor_of
from tflite_export.litert.simulator import LITERT, litert_on
from tflite_export.simulation import Kernels
from tflite_export.target_kernels import kernels_of
from tflite_export.targets import TARGETS
from tflite_export.tflm.runtime import INSTALL, TFLMClassifier, is_installed
from tflite_export.tflm.runtime import version as tflm_version
from tflite_export.tflm.simulator import TFLM

# Elsewhere LiteRT has other kernels.
_MACHINES_OF_LITERT = frozenset({"x86_64", "AMD64"})


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A runtime on this machine.

    Attributes:
      title: what it is, with its version and processor.
      kernels: the simulation that its outputs are held against.
      run: (bytes of a file, int8 inputs) -> its raw outputs.
      is_exact: whether the simulation holds bit by bit on this processor.
      whose: outputs those of the simulation are, in words.
      unproven: what stays unproven, and what to do about it; empty if nothing does.
    """

    title: str
    kernels: Kernels
    run: Callable[[bytes, np.ndarray], np.ndarray]
    is_exact: bool
    whose: str = "the student's"
    unproven: str = ""

    @property
    def in_words(self) -> str:
        """What it is, and what that does not prove."""
        return f"{self.title}; {self.unproven}" if self.unproven else self.title

    def rule(self, allowed_lsb: int) -> str:
        """What is proven if outputs are as near as that."""
        return f"outputs within {allowed_lsb} LSB of {self.whose}, by {self.in_words}"


def runtime_for(network: IntegerNetwork) -> Runtime:
    """The network's target if it is on this machine, else LiteRT.

    LiteRT then proves that the file holds what the student says, by LiteRT's own
    arithmetic; the target's is simulated alone.
    """
    target, machine = TARGETS[network.target], platform.machine()
    if kernels_of(network) is LITERT:
        return _litert(machine)
    if kernels_of(network) is LITERT_INT16:
        return dataclasses.replace(
            _litert(machine),
            title=f"{_litert_name()}, its own kernels on {machine}",
            kernels=LITERT_INT16,
        )
    if not is_installed():
        return dataclasses.replace(
            _litert(machine),
            whose="the simulation of LiteRT's kernels",
            unproven=f"nothing was run on {target.title}: {INSTALL}",
        )
    return Runtime(
        f"tflite-micro {tflm_version()}, reference kernels on {machine}",
        TFLM,
        lambda tflite, inputs: TFLMClassifier(tflite).run(inputs),
        is_exact=True,
        unproven=target.unproven,
    )


def _litert_name() -> str:
    return f"LiteRT {importlib.metadata.version('ai-edge-litert')}"


def _litert(machine: str) -> Runtime:
    return Runtime(
        f"{_litert_name()} with XNNPACK on {machine}",
        litert_on(processor_of(machine)),
        lambda tflite, inputs: TFLiteClassifier(tflite).run_own(inputs),
        is_exact=machine in _MACHINES_OF_LITERT,
    )
