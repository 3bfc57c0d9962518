"""A corpus as one array of tokens in which any short span is found by two binary searches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from workbench.core.errors import BadInput
from workbench.models.corpus import read_corpus
from workbench.models.vocabulary import fingerprint

STANDARD_LIBRARY = "stdlib"
SUFFIXES = (
    *(".py", ".pyi", ".md", ".rst", ".txt", ".toml", ".cfg", ".ini", ".json", ".yaml", ".yml"),
    *(".js", ".ts", ".html", ".css", ".c", ".h", ".cpp", ".hpp", ".java", ".go", ".rs", ".sh"),
)
BORDER = -1  # between documents: no span and no continuation crosses it
_BYTES = 4  # of a token in a text that is searched
SORTED_TOKENS = 16  # suffixes are in order as far as their first so many tokens


@dataclass(frozen=True, eq=False)
class Store:
    """Tokens ``[t]`` int32 of all documents, with :data:`BORDER` behind each.

    Args:
        name: what it was made from, for records.
    """

    tokens: np.ndarray
    name: str = ""

    @staticmethod
    def of(documents: list[np.ndarray], name: str = "") -> Store:
        """Put documents one after the other."""
        border = np.array([BORDER], dtype=np.int32)
        parts = [part for ids in documents for part in (np.asarray(ids, dtype=np.int32), border)]
        return Store(np.concatenate(parts) if parts else border, name)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def suffixes(self) -> np.ndarray:
        """Start places ``[t]`` sorted by the tokens that follow, as far as the first 16.

        Doubling: the order by 2m tokens follows from the ranks by m tokens.
        """
        rank = np.unique(self.tokens, return_inverse=True)[1].astype(np.int64)
        order, length = np.argsort(rank, kind="stable"), 1
        while length < SORTED_TOKENS:
            after = np.zeros_like(rank)
            after[:-length] = rank[length:] + 1
            key = rank * (int(rank.max()) + 2) + after
            order = np.argsort(key, kind="stable")
            ordered = key[order]
            rank[order] = np.cumsum(np.concatenate(([0], ordered[1:] != ordered[:-1])))
            length *= 2
        return order.astype(np.int32)

    @cached_property
    def _searched(self) -> tuple[memoryview, bytes]:
        """Suffixes and tokens as what Python itself compares, several times sooner than arrays."""
        return self.suffixes.data, _in_bytes(self.tokens)

    def places(self, span: list[int]) -> np.ndarray:
        """Where the text after each occurrence of ``span`` begins, ``[hits]``, in corpus order.

        Raises:
            BadInput: an empty span, or one longer than 16 tokens.
        """
        if not 1 <= len(span) <= SORTED_TOKENS:
            raise BadInput(f"span has {len(span)} tokens: must be 1 to {SORTED_TOKENS}")
        sought = _in_bytes(np.array(span))
        low, high = self._bound(sought, False), self._bound(sought, True)
        return np.sort(self.suffixes[low:high]) + len(span)

    def _bound(self, sought: bytes, after: bool) -> int:
        """First suffix not below a span (or, with ``after``, above everything that starts so)."""
        suffixes, text = self._searched
        low, high, size = 0, len(suffixes), len(sought)
        while low < high:
            middle = (low + high) // 2
            start = _BYTES * suffixes[middle]
            here = text[start : start + size]
            if here < sought or (after and here == sought):
                low = middle + 1
            else:
                high = middle
        return low

    def longest(self, text: list[int], longest: int, shortest: int) -> tuple[int, np.ndarray]:
        """The longest suffix of ``text`` that occurs (0 = none) and where the text goes on.

        If a span occurs, so do its own suffixes: the length is found by bisection.
        """
        low, found = 0, np.empty(0, dtype=np.int32)
        high = min(longest, len(text), SORTED_TOKENS)
        while low < high:
            middle = (low + high + 1) // 2
            hits = self.places(text[-middle:])
            if len(hits):
                low, found = middle, hits
            else:
                high = middle - 1
        return (low, found) if low >= shortest else (0, found[:0])

    def after(self, place: int, length: int) -> list[int]:
        """Up to ``length`` tokens from ``place`` on, within their document."""
        tokens = self.tokens[place : place + length].tolist()
        return tokens[: tokens.index(BORDER)] if BORDER in tokens else tokens


def _in_bytes(tokens: np.ndarray) -> bytes:
    """Tokens so that texts are in order where their bytes are: the greatest byte of each first."""
    return (tokens.astype(np.int64) - BORDER).astype(">u4").tobytes()


def open_store(folder: str, model, limit_tokens: int) -> Store:
    """The store of a corpus in this model's tokens; made once per process.

    Args:
        folder: ``stdlib`` (what the embedded models were trained on; never the held-out files that
            they are measured on), or a folder of text files.
        limit_tokens: stop adding files here.

    Raises:
        BadInput: a folder that is missing, or holds no text.
    """
    return _opened(folder, fingerprint(model.tokenizer), limit_tokens, _Once(model.tokenizer))


class _Once:
    """A tokenizer that does not take part in the cache's key."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __eq__(self, other) -> bool:
        return isinstance(other, _Once)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=4)
def _opened(folder: str, known: str, limit_tokens: int, once: _Once) -> Store:
    try:
        if folder == STANDARD_LIBRARY:
            files = [file for file in read_corpus() if file.part == "train"]
        else:
            path = Path(folder).expanduser()
            if not path.is_dir():
                raise BadInput(f"folder={folder!r} is no folder; name one, or 'stdlib'")
            files = read_corpus(path, SUFFIXES)
    except FileNotFoundError as error:
        raise BadInput(f"{error}, or 'stdlib'") from None
    files.sort(key=lambda file: hashlib.sha256(file.path.encode()).digest())
    documents, total = [], 0
    for file in files:
        ids = once.tokenizer(file.text, add_special_tokens=False, verbose=False)["input_ids"]
        documents.append(np.array(ids[: limit_tokens - total], dtype=np.int32))
        total += len(documents[-1])
        if total >= limit_tokens:
            break
    if not total:
        raise BadInput(f"folder={folder!r} gives no token; name a folder with text, or 'stdlib'")
    return Store.of(documents, f"{folder}: {len(documents)} files, {total} tokens")
