"""What files are made for: one record for each target, one line for each rule.

Nothing here needs more than Python, so that mistakes in flags are told at once.
`target_kernels.py` has what kernels compute, `operator_forms.py` gives layers their
operators, `target_rules.py` checks networks by these records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Target:
    """What runs files, what it takes, and how it computes.

    Attributes:
      name: as it is asked for.
      title: what it is, in words.
      kernels: whose arithmetic it has, and so how accumulators become int8: a key of
        `target_kernels.KERNELS`.
      int4_dense: kind of operation that a dense layer with an INT4 kernel becomes:
        "dense" where FULLY_CONNECTED may have one with a scale for each output
        channel, else "dense_convolution".
      int4_pointwise: that of a pointwise layer: "pointwise", which is FULLY_CONNECTED
        as well, where that is the faster one; else "conv".
      no_int4: why it takes no INT4 kernels at all; empty where it does.
      no_int16: why it takes no int16 activations; empty where it does.
      refused: kinds of operations it does not take, and what to do.
      refused_with_int16: the same of those besides that it takes with int8 alone.
      most_inputs: of kinds of operations that take any number.
      relu6_keeps_scale: whether its RELU6 is right only for outputs that have the
        scale of the input.
      dense_multiple: what numbers of inputs and outputs of dense layers should be
        multiples of, why, and what to do about others; None: anything goes.
      unproven: what a run of its kernels on this machine does not prove.
    """

    name: str
    title: str
    kernels: str
    int4_dense: str
    int4_pointwise: str
    no_int4: str = ""
    no_int16: str = ""
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    refused_with_int16: Mapping[str, str] = dataclasses.field(default_factory=dict)
    most_inputs: Mapping[str, int] = dataclasses.field(default_factory=dict)
    relu6_keeps_scale: bool = False
    dense_multiple: tuple[int, str] | None = None
    unproven: str = ""


_NOT_PROVEN = "what it computes of them is not proven"
_NO_KERNEL = "it has no int16 kernel"

_TFLM = Target(
    "tflm",
    "TensorFlow Lite for Microcontrollers",
    kernels="tflm",
    # It refuses a FULLY_CONNECTED with INT4 kernels of several scales.
    int4_dense="dense_convolution",
    int4_pointwise="conv",
    no_int16=_NOT_PROVEN,
    refused={"gelu": "it has no GELU; train with hard_swish or relu"},
    most_inputs={"concatenate": 10},
    relu6_keeps_scale=True,
    dense_multiple=(
        8,
        "ESP-NN on ESP32-S3 is reported to compute others wrongly "
        "(espressif/esp-nn#34); elsewhere ignore this, there run the self-test that "
        "gdfq firmware writes, and if it fails build with CONFIG_NN_ANSI_C=y",
    ),
    unproven="optimized kernels of processors may round otherwise",
)

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(
            "litert",
            "LiteRT with XNNPACK on a CPU",
            kernels="litert",
            # XNNPACK has INT4 kernels for FULLY_CONNECTED alone.
            int4_dense="dense",
            int4_pointwise="pointwise",
            refused_with_int16={
                "elu": f"{_NO_KERNEL}; train with relu, gelu or leaky_relu",
                "prelu": f"{_NO_KERNEL}; train with leaky_relu or relu",
                "l2_normalize": f"{_NO_KERNEL}; train with BatchNormalization",
            },
        ),
        _TFLM,
        Target(
            "c99",
            "the C99 that gdfq firmware writes",
            kernels="litert",
            int4_dense="dense",
            int4_pointwise="pointwise",
            no_int16="its kernels are for int8",
        ),
        # What Vela leaves to the CPU, TFLM runs.
        dataclasses.replace(
            _TFLM,
            name="ethos-u",
            title="Arm's Ethos-U through Vela",
            no_int4="Vela stops at INT4 kernels",
            dense_multiple=None,
            unproven="nothing was run on an NPU",
        ),
    )
}
DEFAULT_TARGET = "litert"
PHONE = "android"  # the one that adb finds
# Processors that firmware is measured on, in an emulator.
CORTEX_M = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m55")
# Configurations of Ethos-U, as Vela has them.
NPUS = (
    "ethos-u55-32",
    "ethos-u55-64",
    "ethos-u55-128",
    "ethos-u55-256",
    "ethos-u65-256",
    "ethos-u65-512",
    "ethos-u85-128",
    "ethos-u85-256",
    "ethos-u85-512",
    "ethos-u85-1024",
    "ethos-u85-2048",
)
