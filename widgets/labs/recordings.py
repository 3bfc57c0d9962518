"""Results that a lab shows before anything is measured in it: small files, each made by a command.

*Idea*: an empty chart says nothing of what a lab is for. So each opens on what it once measured on
an embedded model, says so, and forgets it with the first result of its own.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import msgspec

DIGITS = 4  # of every stored number: a picture cannot show more, and the file stays small
FOLDER = "widgets.labs"
Kind = TypeVar("Kind")


def read(name: str, kind: type[Kind]) -> Kind | None:
    """A recorded result; None where the package was installed without it."""
    try:
        return msgspec.json.decode((files(FOLDER) / "recorded" / name).read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def write(name: str, value: Any) -> Path:
    """Store a result where :func:`read` finds it; tells its size."""
    path = Path(str(files(FOLDER) / "recorded" / name))
    path.write_bytes(msgspec.json.encode(rounded(msgspec.to_builtins(value))) + b"\n")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return path


def rounded(value: Any) -> Any:
    """The same with every number of :data:`DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
