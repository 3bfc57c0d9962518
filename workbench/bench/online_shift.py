"""A stream of requests from another kind of text, and what the draft learns from it.

Single pass: a request's acceptance is noted before anything is learnt from its end, and no request
comes twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.trace import Trace
from workbench.engine.run import Run, RunSettings
from workbench.models.corpus import family_of, read_corpus
from workbench.models.model import Model

PROMPT_TOKENS = 96


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
def _texts(family: str) -> tuple[str, ...]:
    return tuple(f.text for f in read_corpus() if family_of(f.path) == family)


def requests_of(family: str, count: int, target: Model, seed: int = 0) -> list[str]:
    """``count`` passages of distinct places in the files of a held-out family.

    Raises:
        KeyError: a family that the corpus has not.
    """
    texts = [text for text in _texts(family) if len(text) > 2000]
    if not texts:
        raise KeyError(family)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        text = texts[int(torch.randint(len(texts), (1,), generator=generator))]
        start = int(torch.randint(len(text) - 1200, (1,), generator=generator))
        start = text.find("\n", start) + 1
        ids = target.encode(text[start : start + 1200])[:PROMPT_TOKENS]
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
