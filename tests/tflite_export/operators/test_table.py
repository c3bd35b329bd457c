"""Every kind of operation is known wherever there is a table of kinds."""

from __future__ import annotations

import pytest

from tests.tiny_network import INPUT_GRID
from tflite_export.integer_network import IntegerOp, kernel_of
from tflite_export.litert.simulator import SIMULATIONS
from tflite_export.operators.activations import ACTIVATIONS
from tflite_export.operators.arithmetic import ARITHMETIC
from tflite_export.operators.kernels import KERNELS
from tflite_export.operators.movement import MOVEMENT
from tflite_export.operators.pooling import POOLING
from tflite_export.operators.table import FIXED_QUANT_PARAMS, KINDS
from tflite_export.quantization_params import QuantParams
from tflite_export.verification.expected_operators import EXPECTED


def test_all_tables_have_the_same_kinds():
    assert set(SIMULATIONS) == set(EXPECTED) == set(KINDS)


def test_no_kind_is_in_two_families():
    families = (ACTIVATIONS, ARITHMETIC, KERNELS, MOVEMENT, POOLING)
    assert sum(map(len, families)) == len(KINDS)


def test_attributes_are_required_or_optional():
    for kind in KINDS.values():
        assert not kind.attributes.keys() & kind.optional_attributes.keys()


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),
    [("relu", [1], [0, 2]), ("add", [2], [0, 1, 3]), ("concatenate", [1, 2, 9], [0])],
)
def test_numbers_of_inputs(kind, taken, refused):
    assert all(KINDS[kind].takes(count) for count in taken)
    assert not any(KINDS[kind].takes(count) for count in refused)


def test_bounded_results_have_the_parameters_of_tflite():
    assert dict(FIXED_QUANT_PARAMS) == {
        "l2_normalize": QuantParams(1 / 128, 0),
        "sigmoid": QuantParams(1 / 256, -128),
        "tanh": QuantParams(1 / 128, 0),
    }


def test_a_missing_kernel_is_named():
    with pytest.raises(ValueError, match="operation 'y' has no kernel"):
        kernel_of(IntegerOp("y", "conv", ("x",), INPUT_GRID))
