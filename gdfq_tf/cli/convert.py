"""A trained student, as tools/quantize.py left it, to a verified `.tflite` file.

python tools/convert.py --student=runs/demo/x_w4a8_student.npz --output=x.tflite
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.cli.output_files import write_whole
from gdfq_tf.errors import UserError
from tflite_export.convert import convert_network
from tflite_export.student_file import load_network
from tflite_export.verification.verify import require, verify_file

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
    verification = verify_file(tflite, network, num_random_images=FLAGS.num_images)
    require(verification.findings)
    agreement = verification.agreement
    assert agreement is not None  # outputs are a rule like others
    write_whole(output, tflite, overwrite=FLAGS.overwrite)
    print(
        f"{output}: {len(tflite):,} bytes, {len(verification.findings)} rules hold, "
        f"{100 * agreement.exact_outputs:.2f} % of outputs equal the student's, "
        f"at most {agreement.max_lsb} LSB off"
    )
