"""The training text of the embedded models: the Python standard library's own source.

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

import numpy as np

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


def read_corpus(folder: Path | None = None) -> list[SourceFile]:
    """Every distinct UTF-8 ``*.py`` below ``folder`` (default: this Python's standard library).

    Raises:
        FileNotFoundError: the folder holds no Python source.
    """
    root = Path(folder or sysconfig.get_paths()["stdlib"])
    seen: set[bytes] = set()
    files: list[SourceFile] = []
    for path in sorted(root.rglob("*.py")):
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
            f"folder={str(root)!r} holds no Python source; pass --corpus with a folder that does"
        )
    return files


@dataclass(frozen=True)
class TokenisedCorpus:
    """Token ids of each part, one uint16 array a file, with BOS and EOS around each."""

    parts: dict[str, list[np.ndarray]]
    corpus_bytes: int
    file_count: int

    def n_tokens(self, part: str) -> int:
        return sum(len(ids) for ids in self.parts[part])


def tokenise(files: list[SourceFile], tokenizer) -> TokenisedCorpus:
    """Encode every file as ``[bos] ids [eos]``, as far as the tokenizer has those.

    Ids are uint16 where the vocabulary allows it, else uint32.
    """
    before = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    after = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    kind = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
    parts: dict[str, list[np.ndarray]] = {"train": [], "held_out": [], "families": []}
    encoded = tokenizer([f.text for f in files], add_special_tokens=False)["input_ids"]
    for file, ids in zip(files, encoded, strict=True):
        parts[file.part].append(np.array([*before, *ids, *after], dtype=kind))
    size = sum(len(f.text.encode()) for f in files)
    return TokenisedCorpus(parts, size, len(files))


def epoch_rows(
    documents: list[np.ndarray], length_tokens: int, rng: np.random.Generator, cap_tokens: int
) -> np.ndarray:
    """Pack one epoch: shuffled files, long ones cut to a random window, shifted, cut into rows.

    Returns:
        ``[rows, length_tokens + 1]`` uint16; the last column is only ever a target.
    """
    pieces = []
    for index in rng.permutation(len(documents)):
        ids = documents[index]
        if len(ids) > cap_tokens:
            start = int(rng.integers(len(ids) - cap_tokens + 1))
            ids = ids[start : start + cap_tokens]
        pieces.append(ids)
    stream = np.concatenate(pieces)[int(rng.integers(length_tokens)) :]
    rows = (len(stream) - 1) // length_tokens
    starts = np.arange(rows)[:, None] * length_tokens
    packed = stream[starts + np.arange(length_tokens + 1)]
    return packed[rng.permutation(rows)]
