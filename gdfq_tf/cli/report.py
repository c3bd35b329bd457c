"""`gdfq report`: the figures of a finished run, written again from its summary."""

from __future__ import annotations

from pathlib import Path

import jinja2
from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.errors import UserError, option
from gdfq_tf.report.figure_files import write_figures
from gdfq_tf.run_directory import (
    REPORT,
    SCHEMA_VERSION,
    SUMMARY,
    claim_run_directory,
    read_images,
    read_summary,
    write_summary,
)


def main(values: flags.FlagValues) -> None:
    """Writes the report, TensorBoard's events and tables of layers anew."""
    path = Path(values.run).expanduser()
    summary = read_summary(path)
    if summary.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{option('run', path)}: its {SUMMARY} has version "
            f"{summary.get('schema_version')}, and this program makes reports of "
            f"{SCHEMA_VERSION}; take the version that made it, or run again"
        )
    images = read_images(path)
    with claim_run_directory(path, overwrite=True) as output:
        session.holds(output.lock, output.partial)
        try:
            output.partial.mkdir()
            write_figures(output.partial, summary, images)
            for made in output.partial.iterdir():
                made.replace(output.path / made.name)
            write_summary(output.partial, summary, beside=output.path)
            (output.partial / SUMMARY).replace(output.path / SUMMARY)
        except (KeyError, jinja2.UndefinedError) as error:
            raise UserError(
                f"{option('run', path)}: its {SUMMARY} lacks what a report needs "
                f"({error}); take the version that made it, or run again"
            ) from error
        except OSError as error:
            raise UserError(
                f"{option('run', path)} cannot be written: {error.strerror or error}; "
                "check the disk and the permissions and run again"
            ) from error
    print(f"{path / REPORT} is made again, and the figures beside it")
