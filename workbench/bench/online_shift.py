"""A stream of requests from another kind of text, and what the draft learns from it.

Single pass: a request's acceptance is noted before anything is learnt from its end, and no request
comes twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from workbench.core.errors import BadInput
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.trace import Trace
from workbench.engine.run import Run, RunSettings
from workbench.models.corpus import FAMILIES, family_of, read_corpus
from workbench.models.model import Model

PROMPT_TOKENS, PASSAGE = 96, 1200  # tokens; characters that surely hold as many
PROSE = "prose"
KINDS = (*FAMILIES, PROSE)


@dataclass(frozen=True)
class Request:
    """One request of the stream: accepted of tested drafts, and the tokens that it emitted."""

    accepted: int
    tested: int
    emitted: float

    @property
    def rate(self) -> float:
        """Accepted of tested; drafts after the first rejection were never tested."""
        return self.accepted / max(1, self.tested)


@cache
def _texts(kind: str) -> tuple[str, ...]:
    files = read_corpus()
    if kind == PROSE:
        return tuple(f.text for f in files if f.path.startswith("pydoc_data/"))
    return tuple(f.text for f in files if family_of(f.path) == kind)


def requests_of(kind: str, count: int, target: Model, seed: int = 0) -> list[str]:
    """``count`` passages from random places of one kind of text.

    Args:
        kind: a held-out family of the standard library (asyncio, email, json), or ``prose``: the
            language reference in English, a small part of what the models were trained on.

    Raises:
        BadInput: a kind that the corpus has not.
    """
    texts = [text for text in _texts(kind) if len(text) > 2 * PASSAGE]
    if not texts:
        raise BadInput(f"kind={kind!r}: no text of this kind; choose {', '.join(KINDS)}")
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        text = texts[int(torch.randint(len(texts), (1,), generator=generator))]
        start = int(torch.randint(len(text) - PASSAGE, (1,), generator=generator))
        start = text.find("\n", start) + 1
        ids = target.encode(text[start : start + PASSAGE])[:PROMPT_TOKENS]
        found.append(target.decode(ids))
    return found


def stream(
    target: Model, draft: Model, drafter: str, texts: list[str], new_tokens: int, **knobs
) -> list[Request]:
    """Decode greedily, one text after the other, every run going on from the last."""
    carried, found = None, []
    for text in texts:
        settings = RunSettings(
            target,
            text,
            make_method("drafter", drafter, **knobs),
            "exact_match",
            make_method("policy", "fixed", depth=3),
            Sampling(0.0),
            new_tokens,
            draft_model=draft,
            record_top=0,
            carried=carried,
        )
        run = Run(settings)
        for _ in run.rounds():
            pass
        carried = run.drafting
        found.append(request_of(run.trace()))
    return found


def request_of(trace: Trace) -> Request:
    """What a run says about its request."""
    accepted = sum(done.accepted for done in trace.rounds)
    tested = sum(min(done.accepted + 1, max(done.depth)) for done in trace.rounds if done.tokens)
    return Request(accepted, tested, trace.summary["mean_emitted"])


def gain(target: Model, draft: Model, kind: str, count: int, new_tokens: int = 48):
    """Acceptance of each request of the second half of a stream: learning, and frozen."""
    texts = requests_of(kind, count, target)
    learning = stream(target, draft, "online", texts, new_tokens)
    frozen = stream(target, draft, "draft_model", texts, new_tokens)
    half = slice(count // 2, None)
    return [r.rate for r in learning[half]], [r.rate for r in frozen[half]]
