"""Synthetic traces that look like real ones: code, draft trees, laws, times; seeded, no model."""

from __future__ import annotations

import random
import re

from workbench.core.trace import Baseline, Forwards, Limits, Method, Ms, Round, Top, Trace

PROMPT = "class Node:\n    def __init__(self, name, value=None):\n"
CODE = '''\
        self.name = name
        self.value = value
        self._lock = threading.Lock()
        self.children = []

    def __repr__(self):
        return f"{self.name}={self.value!r}"

    def add(self, child):
        """Add a child and return it."""
        with self._lock:
            self.children.append(child)
        return child

    def walk(self, depth=0):
        """Yield every node below this one, parents first."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)

    def find(self, name):
        for _, node in self.walk():
            if node.name == name:
                return node
        raise KeyError(f"no node is called {name!r}")

'''
PIECES = re.compile(r"\n *|(?: |_|\.)?[A-Za-z]+| ?[^\sA-Za-z]+| +")
STATIC = (-1, -1, -1, 0, 0, 0, 1, 1, 2, 3, 3, 4, 6, 9, 9, 12)  # 16 nodes, as token recycling uses
CHAIN = (-1, 0, 1, 2)


def grow(nodes: int, seed: int) -> tuple[int, ...]:
    """A random tree whose early nodes have more children; parents first."""
    rng = random.Random(seed)
    return tuple(-1 if node == 0 else max(-1, int(rng.expovariate(0.25)) - 1) % (node + 1) - 1
                 for node in range(nodes))  # fmt: skip


class Writer:
    """Walks through the text, drafting and checking with invented laws."""

    def __init__(self, rounds: int, seed: int, greedy: bool, drawn: bool):
        self.rng, self.greedy, self.drawn = random.Random(seed), greedy, drawn
        words = PIECES.findall(CODE)
        self.text = words * (rounds * 6 // len(words) + 2)
        given = PIECES.findall(PROMPT)
        self.words = sorted({*words, *given, " value", " data", "args", " return", " if"})
        self.ids = {word: place for place, word in enumerate(self.words)}
        self.prompt = [self.ids[word] for word in given]
        self.at = 0

    def truth(self, ahead: int) -> int:
        return self.ids[self.text[self.at + ahead]]

    def law(self, best: int, sure: float) -> Top:
        """A law with ``best`` on top (one-hot when greedy)."""
        if self.greedy:
            return Top([best], [1.0])
        others = self.rng.sample([i for i in range(len(self.words)) if i != best], 7)
        rest, probs = 1 - sure, [sure]
        for _ in others:
            probs.append(rest * self.rng.uniform(0.2, 0.5))
            rest -= probs[-1]
        pairs = sorted(zip([best, *others], probs, strict=True), key=lambda pair: -pair[1])
        return Top([i for i, _ in pairs], [p for _, p in pairs])

    def round(self, index: int, parent: tuple[int, ...]) -> Round:
        n, rng = len(parent), self.rng
        depth: list[int] = []
        for above in parent:
            depth.append(1 if above < 0 else depth[above] + 1)
        tops = [self.law(self.truth(d), rng.uniform(0.3, 0.95)) for d in [0, *depth]]
        tokens, on_truth, taken = [], [], set()
        for node, above in enumerate(parent):
            follows = above < 0 or on_truth[above]
            hit = follows and (above, "hit") not in taken and rng.random() < 0.62
            if hit:
                taken.add((above, "hit"))
            free = [i for i in range(len(self.words)) if (above, i) not in taken]
            wrong = [i for i in free if i != self.truth(depth[node] - 1)]
            tokens.append(self.truth(depth[node] - 1) if hit else rng.choice(wrong))
            taken.add((above, tokens[-1]))
            on_truth.append(hit)
        return self.finish(index, parent, depth, tokens, on_truth, tops, n)

    def finish(self, index, parent, depth, tokens, on_truth, tops, n) -> Round:
        rng, start = self.rng, len(self.prompt) + self.at
        p_node = [p_of(tops[above + 1], token) for above, token in zip(parent, tokens, strict=True)]
        path, end = [], -1
        while True:
            kept = [i for i in range(n) if parent[i] == end and on_truth[i]]
            if not kept:
                break
            end = kept[0]
            path.append(end)
        accept = [min(1.0, p * rng.uniform(1.0, 1.6)) if p else 0.0 for p in p_node]
        stop = [0.0] * (n + 1)
        stop[end + 1] = 1.0
        emitted = [*(tokens[i] for i in path), self.truth(len(path))]
        root = self.prompt[-1] if not self.at else self.ids[self.text[self.at - 1]]
        q_top = [self.law(token, rng.uniform(0.2, 0.9)) for token in tokens] if self.drawn else []
        draft_ms = 1.1 * max(depth, default=0) * rng.uniform(0.9, 1.2) if self.drawn else 0.05
        verify_ms = (11.0 + 0.3 * n) * rng.uniform(0.95, 1.1)
        self.at += len(emitted)
        return Round(
            index=index, start=start, root=root, tokens=tokens, parent=list(parent),
            drawn="with_replacement" if self.drawn else "chosen",
            accept=accept, stop=stop, uniform=rng.random(), path=path, bonus=emitted[-1],
            emitted=emitted, budget=Limits(max(depth, default=0), n, 4),
            ms=Ms(draft_ms, verify_ms, 0.2, rng.uniform(0.5, 1.1)),
            forwards=Forwards(1, max(depth, default=0) if self.drawn else 0),
            forward_ms=verify_ms + (draft_ms if self.drawn else 0.0), p_node=p_node,
            q_node=[p_of(q, t) for q, t in zip(q_top, tokens, strict=True)] if self.drawn else None,
            p_top=tops, q_top=q_top,
        )  # fmt: skip


def p_of(top: Top, token: int) -> float:
    """Probability of a token in a stored top, 0 where it is not kept."""
    return top.probs[top.ids.index(token)] if token in top.ids else 0.0


def make_trace(
    rounds: int,
    *,
    seed: int = 0,
    parent: tuple[int, ...] = STATIC,
    greedy: bool = False,
    drawn: bool = False,
    plain_ms: float | None = 16.0,
    laws: bool = True,
) -> Trace:
    """A trace of ``rounds`` rounds over one static tree.

    Args:
        drawn: tokens were drawn from a draft model's law (else chosen, no q).
        plain_ms: of a plain token; None = plain decoding was not measured.
        laws: whether the tops of p and q were recorded.
    """
    writer = Writer(rounds, seed, greedy, drawn)
    done = [writer.round(index, parent) for index in range(rounds)]
    if not laws:
        import msgspec

        done = [msgspec.structs.replace(round_, p_top=[], q_top=[]) for round_ in done]
    baseline = None
    if plain_ms is not None:
        baseline = Baseline(96, plain_ms, plain_ms * 0.97, plain_ms * 1.03)
    return Trace(
        model="zoo:target", device="cpu", dtype="float32",
        drafter=Method("draft_model" if drawn else "token_recycling"),
        verifier=Method("exact_match" if greedy else "multi_round"), policy=Method("fixed"),
        sampling={"temperature": 0.0 if greedy else 0.8}, prompt=PROMPT,
        prompt_tokens=writer.prompt, rounds=done, pieces=dict(enumerate(writer.words)),
        max_new_tokens=rounds * 6, finish="length", baseline=baseline,
    )  # fmt: skip
