"""The kinds of operations that integer networks are made of: one record each.

`table.KINDS` has them all. What a runtime makes of a kind stands in the table of its
simulator (`litert/simulator.py`), what a file holds for it in that of the verification
(`verification/expected_operators.py`). A new kind is one row in each.
"""
