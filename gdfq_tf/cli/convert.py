"""`gdfq convert`: a student that a run left behind to a verified `.tflite` file."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.cli.class_names import read_class_names
from gdfq_tf.cli.runner import CommandProgress
from gdfq_tf.errors import UserError
from gdfq_tf.progress import whole_stage
from gdfq_tf.system.output_files import write_whole
from tflite_export.convert import convert_network
from tflite_export.operator_forms import in_forms_of
from tflite_export.presentation import presented
from tflite_export.student_file import load_network
from tflite_export.target_rules import warnings_of
from tflite_export.targets import TARGETS
from tflite_export.verification.verify import verify_file


def main(values: flags.FlagValues) -> None:
    """Loads, converts, verifies, writes."""
    output = Path(values.output).expanduser()
    if output.exists() and not values.overwrite:
        raise UserError(
            f"{output} exists; pass --overwrite to replace it or another --output"
        )
    progress = CommandProgress(values)
    with whole_stage(progress, "loading"):
        network = load_network(Path(values.student).expanduser())
    if values.target is not None:
        network = in_forms_of(TARGETS[values.target], network)
    network = presented(
        network,
        input_type=values.input_type,
        output_type=values.output_type,
        labels=read_class_names(values.labels),
    )
    with whole_stage(progress, "conversion"):
        tflite = convert_network(network)
    with whole_stage(progress, "verification"):
        verification = verify_file(tflite, network, num_random_images=values.num_images)
        agreement = verification.required()
    write_whole(output, tflite, overwrite=values.overwrite, begin=session.holds)
    print(
        f"{output}: {len(tflite):,} bytes, {len(verification.findings)} rules hold, "
        f"{100 * agreement.exact_outputs:.2f} % of outputs equal the student's, "
        f"at most {agreement.max_lsb} LSB off, by {agreement.runtime}"
    )
    interface = network.interface
    print(
        f"{interface.input_name}: {interface.input_type}, "
        f"{interface.meaning.input_description}"
    )
    for line in warnings_of(network):
        print(f"! {line}")
