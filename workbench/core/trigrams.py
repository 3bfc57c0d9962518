"""Three-token statistics: a packed table of a corpus, and the rows that a text has nudged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Pair = tuple[int, int]
Row = dict[int, float]


@dataclass
class Trigrams:
    """Successors of each pair: the corpus' rows, and the rows that the text has touched."""

    corpus: PackedTrigrams
    touched: dict[Pair, Row] = field(default_factory=dict)
    bumped: list[tuple[Pair, int, float]] = field(default_factory=list)
    size: int = 0

    def row(self, pair: Pair) -> Row:
        """Weights of the pair's successors, heaviest first among equals by token."""
        return self.touched.get(pair) or self.corpus.row(pair)

    def bump(self, pair: Pair, token: int, step: float, cap: float) -> None:
        """Add ``step`` to one successor, up to ``cap``."""
        row = self.touched.get(pair)
        if row is None:
            row = self.touched[pair] = dict(self.corpus.row(pair))
        row[token] = min(cap, row.get(token, 0.0) + step)
        self.bumped.append((pair, token, row[token]))


class PackedTrigrams:
    """Normalised counts of the ``top`` successors of every pair of a corpus, in sorted arrays.

    Args:
        tokens: of all documents ``[t]``; a negative id separates two of them.
    """

    def __init__(self, tokens: np.ndarray, top: int):
        a, b, c = (tokens[i : len(tokens) - 2 + i].astype(np.int64) for i in range(3))
        inside = (a >= 0) & (b >= 0) & (c >= 0)
        keys = (a[inside] << 40) | (b[inside] << 20) | c[inside]
        triples, counts = np.unique(keys, return_counts=True)
        self.pairs, starts = np.unique(triples >> 20, return_index=True)
        self.starts = np.append(starts, len(triples))
        self.tokens = triples & ((1 << 20) - 1)
        self.counts = counts
        self.top = top

    def row(self, pair: Pair) -> Row:
        """Weights of one pair, heaviest first; empty where it never occurred."""
        key = (pair[0] << 20) | pair[1]
        place = int(np.searchsorted(self.pairs, key))
        if place == len(self.pairs) or self.pairs[place] != key:
            return {}
        part = slice(int(self.starts[place]), int(self.starts[place + 1]))
        counts, total = self.counts[part], self.counts[part].sum()
        best = np.argsort(-counts, kind="stable")[: self.top]
        return {int(self.tokens[part][i]): float(counts[i] / total) for i in best}
