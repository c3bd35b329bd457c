"""What users of a file meet: types and names of its ends, and what these mean."""

from __future__ import annotations

import dataclasses

# Type of a file's end -> what its values are more than the student's own ones.
END_TYPES = {"int8": 0, "uint8": 128, "int16": 0}
# Bits of activations -> the types that ends can have, the student's own first.
END_TYPES_OF_BITS = {8: ("int8", "uint8"), 16: ("int16",)}
DEFAULT_END_TYPE = "int8"
# What inputs can be: pixels with channels RGB, gray ones, other pixels, no pixels.
CONTENTS = ("rgb", "gray", "image", "features")


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a model is and what its numbers stand for, as metadata tell it.

    Attributes:
      name: of the model.
      description: of the model, in a sentence.
      input_description: how inputs are made, in a sentence.
      content: of the input, one of `CONTENTS`.
      mean: per channel, or one for all: real input = (x - mean) / std for pixels or
        features x; none if nothing is known.
      std: likewise.
      labels: names of the outputs, in their order; none if they have none.
    """

    name: str = ""
    description: str = ""
    input_description: str = ""
    content: str = "image"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Interface:
    """The ends of a file, as the code that calls it sees them.

    Attributes:
      input_type: a key of `END_TYPES`; `output_type`: likewise. With uint8, values are
        those of int8 plus 128, with the same scale, and an operator converts them. With
        int16, those of a student with such activations.
      input_name: of the input tensor, in the signature as well; `output_name`: of the
        output.
      meaning: what the metadata say.
    """

    input_type: str = DEFAULT_END_TYPE
    output_type: str = DEFAULT_END_TYPE
    input_name: str = "image"
    output_name: str = "scores"
    meaning: Meaning = Meaning()

    @property
    def num_conversions(self) -> int:
        """How many operators the types of the ends add."""
        types = self.input_type, self.output_type
        return sum(END_TYPES[end] != 0 for end in types)


# Of networks of which nothing more is known.
DEFAULT_INTERFACE = Interface()
