"""Text to learn from and to look up: the Python standard library's own source, or a folder.

*Idea*: every machine that runs the workbench already holds some 31 MB of readable code, so the
models can be trained again anywhere, with no network and no licence question.

Three disjoint parts, split by file and never inside one:

- ``train``: what the models see;
- ``held_out``: files whose path hashes to 0 modulo 50;
- ``families``: asyncio, email and json *with their tests*, kept for domain-shift experiments.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_MODULUS = 50
FAMILIES = ("asyncio", "email", "json")
FILE_CAP_BYTES = 100_000
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class SourceFile:
    """One file of the corpus: its path relative to the library's folder, its text, its part."""

    path: str
    text: str
    part: str

    @property
    def kind(self) -> str:
        """``test`` for test code, ``table`` for the encoding tables, else ``code``."""
        if self.path.startswith(("test/", "idlelib/idle_test/")) or "/test" in self.path:
            return "test"
        return "table" if self.path.startswith("encodings/") else "code"


def family_of(path: str) -> str | None:
    """The held-out family a path belongs to (its tests included), or None."""
    parts = Path(path).with_suffix("").parts
    for family in FAMILIES:
        if any(part == family or part.startswith(f"test_{family}") for part in parts):
            return family
    return None


def part_of(path: str) -> str:
    """``families``, ``held_out`` or ``train``; depends on the path alone."""
    if family_of(path):
        return "families"
    digest = hashlib.sha256(path.encode()).digest()
    held_out = int.from_bytes(digest[:8], "big") % HELD_OUT_MODULUS == 0
    return "held_out" if held_out else "train"


def read_corpus(
    folder: Path | None = None, suffixes: tuple[str, ...] = (".py",)
) -> list[SourceFile]:
    """Every distinct UTF-8 file below ``folder`` (default: this Python's standard library).

    Raises:
        FileNotFoundError: the folder holds no such text.
    """
    root = Path(folder or sysconfig.get_paths()["stdlib"])
    seen: set[bytes] = set()
    files: list[SourceFile] = []
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in suffixes or not path.is_file():
            continue
        relative = path.relative_to(root)
        if _SKIPPED_FOLDERS & set(relative.parts):
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        digest = hashlib.sha256(text.encode()).digest()
        if digest in seen or not text.strip():
            continue
        seen.add(digest)
        name = relative.as_posix()
        files.append(SourceFile(name, text.replace("\r\n", "\n"), part_of(name)))
    if not files:
        raise FileNotFoundError(
            f"folder={str(root)!r} holds no text ({', '.join(suffixes)}); pass a folder that does"
        )
    return files
