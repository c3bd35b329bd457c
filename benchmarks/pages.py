"""Writes those parts of README.md and docs/ that follow from code and results.

    python -m benchmarks.pages

A page names such a part in a comment, `<!-- made: NAME WORDS -->`, and ends it with
`<!-- end -->`; what stands between is replaced by what `PARTS[NAME]` returns for the
words. Everything else is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import fault_tables, reference_tables, result_tables

ROOT = Path(__file__).resolve().parent.parent
PARTS: Mapping[str, Callable[..., str]] = {
    "ablation": result_tables.ablation,
    "accuracy": result_tables.accuracy,
    "arm64": result_tables.arm64,
    "commands": reference_tables.commands,
    "estimates": result_tables.estimates,
    "estimate-errors": result_tables.estimate_errors,
    "faults": fault_tables.faults,
    "frontier": result_tables.frontier,
    "firmware": result_tables.firmware,
    "kills": fault_tables.kills,
    "keyword-spotting": result_tables.keyword_spotting,
    "latency": result_tables.latency,
    "left-out-estimates": result_tables.left_out_estimates,
    "layers": reference_tables.layers,
    "own-networks": result_tables.own_networks,
    "parity": result_tables.parity,
    "operations": reference_tables.operations,
    "peak-memory": result_tables.peak_memory,
    "preprocessing-fits": result_tables.preprocessing_fits,
    "recipes": reference_tables.recipes,
    "refusals": reference_tables.refusals,
    "runtimes": result_tables.runtimes,
    "speed": result_tables.speed,
    "summary-keys": reference_tables.summary_keys,
}
_PART = re.compile(r"(<!-- made: ([^\n]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """All pages that may have such parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str) -> str:
    """A page with its parts made anew.

    Raises:
      KeyError: a part is not one of `PARTS`.
    """

    def fill(match: re.Match[str]) -> str:
        begin, call, end = match.groups()
        name, *words = call.split()
        return f"{begin}\n{PARTS[name](*words)}\n\n{end}"

    return _PART.sub(fill, text)


def main() -> None:
    """Writes the pages and names those that changed."""
    for page in pages():
        text = page.read_text()
        made = filled(text)
        if made != text:
            page.write_text(made)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
