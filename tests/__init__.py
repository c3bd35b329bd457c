"""Tests, in the folders of what they test; this file knows where the project is."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
