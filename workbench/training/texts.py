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
_HELD_OUT = 8  # one token of so many, or one row


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

    Whole files, about an eighth of the tokens, are measured on and never learnt from; where no file
    is small enough for that, one row of eight. Rows are shorter where there is little text.

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
    documents = _documents(files, model, most_tokens)
    total = sum(map(len, documents))
    length = min(row_tokens, model.context_tokens, total // (2 * LEAST_ROWS))
    if length < 8:
        raise BadInput(
            f"data={source!r}: {total} tokens are too few; give at least {16 * LEAST_ROWS}"
        )
    learnt, measured = _split(documents, total // _HELD_OUT)
    if min(len(learnt), len(measured)) < length:
        rows = _rows([*learnt, *measured], length)
        held = torch.arange(len(rows)) % _HELD_OUT == _HELD_OUT // 2
        train, held_out = rows[~held], rows[held]
    else:
        train, held_out = _rows(learnt, length), _rows(measured, length)
    said = f"{source}: {len(documents)} files, {train.numel()} tokens to learn from"
    return Texts(train, held_out, said)


def _documents(files: list[SourceFile], model: Model, most_tokens: int) -> list[list[int]]:
    """Token ids of the files in an order that is anything but alphabetical."""
    found, total = [], 0
    for file in sorted(files, key=lambda file: hashlib.sha256(file.path.encode()).digest()):
        found.append(model.encode_all(file.text)[: most_tokens - total])
        total += len(found[-1])
        if total >= most_tokens:
            break
    return found


def _split(documents: list[list[int]], wanted: int) -> tuple[list[int], list[int]]:
    """Whole documents to measure on, about ``wanted`` tokens of them, and the rest to learn."""
    learnt: list[int] = []
    measured: list[int] = []
    for ids in documents:
        fits = len(measured) < wanted and len(measured) + len(ids) <= 1.5 * wanted
        (measured if fits else learnt).extend(ids)
    return learnt, measured


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
