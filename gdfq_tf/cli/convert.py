"""A trained student, as tools/quantize.py left it, to a verified `.tflite` file.

python tools/convert.py --student=runs/demo/x_w4a8_student.npz --output=x.tflite
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.cli.output_files import write_whole
from gdfq_tf.errors import UserError
from tflite_export.convert import convert_network
from tflite_export.integer_inference import infer
from tflite_export.integer_network import load_network
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.verify import (
    Expectation,
    compare_outputs,
    require,
    verify_structure,
)

FLAGS = flags.FLAGS
flags.DEFINE_string("student", None, "A *_student.npz file.", required=True)
flags.DEFINE_string("output", None, "The .tflite file to write.", required=True)
flags.DEFINE_bool("overwrite", False, "Replace --output if it exists.")
flags.DEFINE_integer("num_images", 64, "Random images to compare on.", lower_bound=1)


def main() -> None:
    """Loads, converts, verifies, writes."""
    output = Path(FLAGS.output)
    if output.exists() and not FLAGS.overwrite:
        raise UserError(
            f"{output} exists; pass --overwrite to replace it or another --output"
        )
    session.stage("loading")
    network = load_network(Path(FLAGS.student))
    session.stage("conversion")
    tflite = convert_network(network)
    session.stage("verification")
    bits = {op.name: op.kernel.bits for op in network.ops if op.kernel is not None}
    at_8_bits = frozenset(name for name, width in bits.items() if width == 8)
    expectation = Expectation(min(bits.values()), layers_at_8_bits=at_8_bits)
    findings = verify_structure(tflite, expectation)
    inputs = np.random.default_rng(0).integers(
        -128, 128, (FLAGS.num_images, *network.input_shape), np.int8
    )
    agreement = compare_outputs(
        infer(network, inputs), TFLiteClassifier(tflite).run(inputs)
    )
    require(findings, agreement)
    write_whole(output, tflite, overwrite=FLAGS.overwrite)
    print(
        f"{output}: {len(tflite):,} bytes, {len(findings)} rules hold, "
        f"{100 * agreement.exact_outputs:.2f} % of outputs equal the student's, "
        f"at most {agreement.max_lsb} LSB off"
    )
