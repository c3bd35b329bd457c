"""`manifest.json`: what a run was made from, so that it can be made again.

Reading one takes no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gdfq_tf.errors import UserError, option

MANIFEST = "manifest.json"
_SCHEMA = 1
# Options that may be files.
_FILES = ("model", "weights", "images")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a run was made from.

    Attributes:
      options: of `gdfq quantize`, by name; files with absolute paths.
      from_program: names of options that were objects of a Python program.
      files: SHA-256 of the files that options name, by option.
      classifier: SHA-256 of the network and its preprocessing as they were read.
      images: SHA-256 of all that the synthetic images depend on.
      versions: of the packages that compute, by name.
      machine: what decides how floats are rounded, as `describe_machine` tells it.
    """

    options: dict[str, Any]
    from_program: list[str]
    files: dict[str, str]
    classifier: str
    images: str
    versions: dict[str, str]
    machine: dict[str, Any]

    def write(self, directory: Path) -> None:
        """Writes `manifest.json` into the directory of a run."""
        fields = {"schema": _SCHEMA, **dataclasses.asdict(self)}
        (directory / MANIFEST).write_text(json.dumps(fields, indent=2) + "\n")

    def require_files(self, options: Mapping[str, Any]) -> None:
        """Refuses files that are not those the run was made from.

        Args:
          options: as in a manifest; files may have moved.

        Raises:
          UserError: one differs or is missing.
        """
        found = file_digests(options)
        for name, digest in self.files.items():
            if found.get(name) != digest:
                what = f"SHA-256 {found[name]}" if name in found else "not there"
                raise UserError(
                    f"{options.get(name)} is {what}, but the run of the manifest was "
                    f"made from a {name} of SHA-256 {digest}; pass that file as "
                    f"{option(name)}"
                )

    def differences(
        self, versions: Mapping[str, Any], machine: Mapping[str, Any]
    ) -> list[str]:
        """In what versions and machine differ from the run's, in words."""
        pairs = ((self.versions, versions), (self.machine, machine))
        return [
            f"{name} {then.get(name)} then, {now.get(name)} now"
            for then, now in pairs
            for name in sorted(then.keys() | now.keys())
            if then.get(name) != now.get(name)
        ]


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest, or that of the run in a directory.

    Raises:
      UserError: it cannot be read or is none.
    """
    path = path.expanduser()
    path = path / MANIFEST if path.is_dir() else path
    try:
        fields = json.loads(path.read_text())
        if fields.pop("schema") != _SCHEMA:
            raise ValueError(f"it is not of schema {_SCHEMA}")
        manifest = Manifest(**fields)
        _check_types(manifest)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({' '.join(str(error).split())}); expected the "
            f"{MANIFEST} of a run"
        ) from error
    return manifest


def _check_types(manifest: Manifest) -> None:
    """Raises ValueError for fields of other types than they are written with."""
    for field in dataclasses.fields(Manifest):
        value, kind = getattr(manifest, field.name), str(field.type)
        outer = {"str": str, "list[str]": list}.get(kind, dict)
        if not isinstance(value, outer):
            raise ValueError(f"its {field.name} is no {kind}")
        inner = value.values() if isinstance(value, dict) else value
        if "Any" not in kind and not all(isinstance(x, str) for x in inner):
            raise ValueError(f"its {field.name} is no {kind}")


def absolute(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the files that they name as absolute paths."""
    paths = {name: str(path.resolve()) for name, path in _files(options)}
    return {**options, **paths}


def file_digests(options: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files and directories that options name, by option."""
    return {name: _digest(path) for name, path in _files(options)}


def _files(options: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for name in _FILES:
        if isinstance(options.get(name), str):
            path = Path(options[name]).expanduser()
            if path.exists():
                yield name, path


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of names and contents of all files in a directory."""
    found = hashlib.sha256()
    if not path.is_dir():
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                found.update(chunk)
        return found.hexdigest()
    for file_path in sorted(path.rglob("*")):
        if file_path.is_file():
            found.update(
                f"{file_path.relative_to(path)}\0{_digest(file_path)}".encode()
            )
    return found.hexdigest()
