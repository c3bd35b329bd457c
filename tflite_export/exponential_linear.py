"""Turns the EXP operators that stand for ELU into ELU.

The TFLite converter leaves an ELU in float, though TFLite has the operator for int8. It
is of the very form of EXP: one input, one output of any format, no options. So an ELU
is exported as an exponential, of which networks have none of their own.
"""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import operator_name, pack_model, unpack_model

_VERSION = 1  # that TFLite defines for ELU, of any type


def exponentials_as_elu(tflite: bytes) -> bytes:
    """The `.tflite` file with an ELU in the place of each EXP."""
    model = unpack_model(tflite)
    for code in model.operatorCodes:
        if operator_name(code) == "EXP":
            elu = schema.BuiltinOperator.ELU
            code.builtinCode = code.deprecatedBuiltinCode = elu
            code.version = _VERSION
    for operator in model.subgraphs[0].operators:
        if operator_name(model.operatorCodes[operator.opcodeIndex]) == "ELU":
            operator.builtinOptionsType = schema.BuiltinOptions.NONE
            operator.builtinOptions = None
    return pack_model(model)
