"""Slow, obvious references: plain loops that are read in a minute and trusted afterwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch

from workbench.core.decoding import Verdict
from workbench.core.sampling import Sampling
from workbench.core.tree import DraftTree

LawOf = Callable[[tuple[int, ...]], torch.Tensor]  # emitted tokens -> law [v]


def slow_law(logits: Sequence[float], sampling: Sampling) -> list[float]:
    """Temperature, then top-k (ties with the k-th kept), then top-p, one token at a time."""
    size = len(logits)
    if sampling.temperature == 0:
        best = max(range(size), key=lambda i: (logits[i], -i))
        return [1.0 if i == best else 0.0 for i in range(size)]
    scaled = [x / sampling.temperature for x in logits]
    if 0 < sampling.top_k < size:
        least = sorted(scaled, reverse=True)[int(sampling.top_k) - 1]
        scaled = [x if x >= least else -math.inf for x in scaled]
    highest = max(scaled)
    weights = [math.exp(x - highest) for x in scaled]
    law = [w / math.fsum(weights) for w in weights]
    kept, mass = [0.0] * size, 0.0
    for i in sorted(range(size), key=lambda i: (-law[i], i)):
        if mass >= sampling.top_p:
            break
        kept[i] = law[i]
        mass += law[i]
    return [x / math.fsum(kept) for x in kept]


def slow_ancestors(parent: Sequence[int], row: int) -> set[int]:
    """Rows that ``row`` of a tree sees: itself, its parents up to the root (row 0)."""
    seen = {row}
    while row:
        row = parent[row - 1] + 1
        seen.add(row)
    return seen


def slow_lookup(
    tokens: Sequence[int], longest: int, shortest: int, prefer: str, length: int
) -> list[int]:
    """Prompt lookup by searching the whole text for every suffix, longest first."""
    for n in range(min(longest, len(tokens)), shortest - 1, -1):
        suffix = list(tokens[-n:])
        starts = [i for i in range(len(tokens) - n) if list(tokens[i : i + n]) == suffix]
        if starts:
            start = starts[0] if prefer == "earliest" else starts[-1]
            return list(tokens[start + n : start + n + length])
    return []


def plain_greedy(
    logits_of: Callable[[list[int]], torch.Tensor], prompt: Sequence[int], count: int
) -> list[int]:
    """Greedy decoding by one full forward a token: no cache, no tree, no draft."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(logits_of(tokens).argmax()))
    return tokens[len(prompt) :]


def joint_law(law_of: LawOf, vocab_size: int, length: int = 3) -> torch.Tensor:
    """The law of the first ``length`` tokens, shape ``[v] * length``."""
    joint = torch.zeros((vocab_size,) * length, dtype=torch.float64)
    for text in itertools.product(range(vocab_size), repeat=length):
        chance = 1.0
        for place in range(length):
            chance *= float(law_of(text[:place])[text[place]])
            if not chance:
                break
        joint[text] = chance
    return joint


class Draft(NamedTuple):
    """One possible draft and the probability of drawing it."""

    tree: DraftTree
    chance: float


INDEPENDENT, WITHOUT, TOP_PLUS_ONE = "independent", "without replacement", "top plus one draw"
SCHEMES = (INDEPENDENT, WITHOUT, TOP_PLUS_ONE)


def every_draft(
    parent: tuple[int, ...], law_of: LawOf, scheme: str = INDEPENDENT
) -> Iterator[Draft]:
    """Every draft tuple of a tree shape with its probability; chances sum to 1.

    Siblings are drawn independently, one after the other from what is left, or are the likeliest
    tokens with certainty and then one draw of the rest. A node whose law is used up by its earlier
    siblings is left out, together with what hangs below it, as a drafter would do.
    """
    yield from _grow(parent, law_of, scheme, 0, {-1: -1}, [], [], [], 1.0)


def _sibling_law(shape, node: int, law: torch.Tensor, scheme: str, earlier: list[int]):
    """The law of ``node`` given its earlier siblings' tokens."""
    if scheme == INDEPENDENT:
        return law
    left = law.clone()
    left[earlier] = 0
    if scheme == TOP_PLUS_ONE and node != max(n for n, a in enumerate(shape) if a == shape[node]):
        certain = torch.zeros_like(law)
        certain[int(left.argmax())] = float(left.sum() > 0)
        return certain
    return left


def _grow(shape, law_of, scheme, node, kept, tokens, above, laws, chance):
    if node == len(shape):
        tree = DraftTree(
            torch.tensor(tokens, dtype=torch.long),
            tuple(above),
            torch.stack(laws) if laws else None,
            with_replacement=scheme == INDEPENDENT,
        )
        yield Draft(tree, chance)
        return
    rest = (law_of, scheme, node + 1)
    if shape[node] not in kept:
        yield from _grow(shape, *rest, kept, tokens, above, laws, chance)
        return
    at = kept[shape[node]]
    earlier = [t for t, a in zip(tokens, above, strict=True) if a == at]
    law = _sibling_law(shape, node, law_of(text_of(tokens, above, at)), scheme, earlier)
    if not float(law.sum()):
        yield from _grow(shape, *rest, kept, tokens, above, laws, chance)
        return
    law = law / law.sum() if scheme != INDEPENDENT else law
    for token in range(len(law)):
        drawn = float(law[token])
        if drawn:
            yield from _grow(
                shape,
                *rest,
                {**kept, node: len(tokens)},
                [*tokens, token],
                [*above, at],
                [*laws, law],
                chance * drawn,
            )


def text_of(tokens: Sequence[int], parent: Sequence[int], node: int) -> tuple[int, ...]:
    """Tokens from the root's child down to ``node`` (-1 = the root gives none)."""
    path: list[int] = []
    while node >= 0:
        path.append(int(tokens[node]))
        node = parent[node]
    return tuple(path[::-1])


def target_laws(tree: DraftTree, law_of: LawOf) -> torch.Tensor:
    """The target's law after each row ``[n+1 v]``."""
    tokens = tree.tokens.tolist()
    return torch.stack([law_of(text_of(tokens, tree.parent, n)) for n in range(-1, len(tree))])


def emitted_law(
    verdict: Verdict, tree: DraftTree, law_of: LawOf, vocab_size: int, length: int = 3
) -> torch.Tensor:
    """Law of the first ``length`` tokens when one round is followed by the target's own law."""
    joint = torch.zeros((vocab_size,) * length, dtype=torch.float64)
    tokens = tree.tokens.tolist()
    for row, chance in enumerate(verdict.stop.tolist()):
        if not chance:
            continue
        path = text_of(tokens, tree.parent, row - 1)
        if len(path) >= length:
            joint[path[:length]] += chance
            continue
        bonus = verdict.bonus(row).double()
        tail = bonus.reshape(vocab_size, *[1] * (length - len(path) - 1))
        joint[path] += chance * tail * continuation(law_of, vocab_size, path, length)
    return joint


def continuation(law_of: LawOf, vocab_size: int, path: tuple[int, ...], length: int):
    """Target law of what follows ``path`` and one more token, for each such token."""
    store = _continuations(law_of)
    key = (path, length)
    if key not in store:
        rows = []
        for token in range(vocab_size):
            longer = (*path, token)
            rows.append(
                joint_law(
                    lambda t, longer=longer: law_of(longer + t), vocab_size, length - len(longer)
                )
            )
        store[key] = torch.stack(rows)
    return store[key]


@cache
def _continuations(law_of: LawOf) -> dict:
    return {}


def remembered(law_of: LawOf) -> LawOf:
    """The same laws, computed once for each text."""
    return cache(law_of)


def g_statistic(observed: Sequence[float], expected: Sequence[float]) -> tuple[float, int]:
    """G = 2 sum o ln(o/e) and its degrees of freedom; cells expected below 5 are pooled.

    Raises:
        AssertionError: something was seen that has probability zero.
    """
    cells, pool = [], [0.0, 0.0]
    for seen, wanted in zip(observed, expected, strict=True):
        assert wanted > 0 or not seen, f"{seen} observations of an outcome of probability 0"
        if wanted >= 5:
            cells.append((seen, wanted))
        else:
            pool = [pool[0] + seen, pool[1] + wanted]
    if pool[1] >= 1:
        cells.append((pool[0], pool[1]))
    total_seen, total_wanted = (sum(c[i] for c in cells) for i in (0, 1))
    if len(cells) < 2:
        return 0.0, 0
    scale = total_seen / total_wanted
    g = 2 * sum(o * math.log(o / (e * scale)) for o, e in cells if o)
    return g, len(cells) - 1


def g_limit(freedom: int, deviations: float = 5.0) -> float:
    """Where a chi-square of that freedom is exceeded with probability about 3e-7.

    Wilson and Hilferty's cube-root approximation at 5 normal deviations. Seeds are fixed, so a test
    that passes once passes always; the limit only decides how large a lie goes unseen.
    """
    term = 2 / (9 * freedom)
    return freedom * (1 - term + deviations * math.sqrt(term)) ** 3
