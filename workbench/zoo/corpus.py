"""The corpus as token ids: parts, packed rows and epochs for training the embedded models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.models.corpus import SourceFile


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
