"""Text to adapt to: a held-out family of the embedded corpus, or a folder of one's own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int

from workbench.core.errors import BadInput, closest
from workbench.models.corpus import FAMILIES, SourceFile, family_of, read_corpus
from workbench.models.model import Model
from workbench.models.store import SUFFIXES

LEAST_ROWS, LEAST_LINES = 4, 2
_HELD_OUT = 8  # one of so many files, or of so many rows


class Texts(NamedTuple):
    """Token ids of equal rows to learn from and to measure on.

    Shapes: train ``[a t]``, held_out ``[b t]``.
    """

    train: Int[torch.Tensor, "a t"]
    held_out: Int[torch.Tensor, "b t"]
    said: str


def read_texts(
    source: str, model: Model, *, row_tokens: int = 128, most_tokens: int = 200_000
) -> Texts:
    """Rows of a family (asyncio, email, json) or of the text files of a folder.

    One file of eight is measured on and never learnt from; where there are fewer than four files,
    one row of eight. Rows are shorter where there is little text.

    Raises:
        BadInput: no such family or folder, no text, a single line, or too little for a few rows.
    """
    files = _files(source)
    lines = sum(bool(line.strip()) for file in files for line in file.text.splitlines())
    if lines < LEAST_LINES:
        raise BadInput(
            f"data={source!r}: holds {lines} line{'s' * (lines != 1)} of text; an adapter needs"
            " some pages to learn from"
        )
    ordered = sorted(files, key=lambda file: hashlib.sha256(file.path.encode()).digest())
    parts = ([], []) if len(ordered) >= 4 else None
    stream: list[int] = []
    for index, file in enumerate(ordered):
        ids = model.encode_all(file.text)
        (stream if parts is None else parts[index % _HELD_OUT == 0]).extend(ids)
        if sum(map(len, parts or (stream,))) >= most_tokens:
            break
    total = sum(map(len, parts or (stream,)))
    length = min(row_tokens, model.context_tokens, total // (2 * LEAST_ROWS))
    if length < 8:
        raise BadInput(
            f"data={source!r}: {total} tokens are too few; give at least {16 * LEAST_ROWS}"
        )
    if parts is None or min(map(len, parts)) < length:
        rows = _rows(stream if parts is None else [*parts[0], *parts[1]], length)
        held = torch.arange(len(rows)) % _HELD_OUT == _HELD_OUT // 2
        train, measured = rows[~held], rows[held]
    else:
        train, measured = _rows(parts[0], length), _rows(parts[1], length)
    said = f"{source}: {len(files)} files, {train.numel()} tokens to learn from"
    return Texts(train, measured, said)


def _files(source: str) -> list[SourceFile]:
    if source in FAMILIES:
        return [file for file in read_corpus() if family_of(file.path) == source]
    folder = Path(source).expanduser()
    if not source or not folder.is_dir():
        raise BadInput(
            f"data={source!r}: no family and no folder.{closest(source, FAMILIES)} Families:"
            f" {', '.join(FAMILIES)}"
        )
    try:
        return read_corpus(folder, SUFFIXES)
    except FileNotFoundError as error:
        raise BadInput(f"data={source!r}: {error}") from None


def _rows(stream: list[int], length: int) -> torch.Tensor:
    count = len(stream) // length
    return torch.tensor(stream[: count * length]).view(count, length)
