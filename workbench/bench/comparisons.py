"""What the papers say, as pairs of set-ups whose first should come out larger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from workbench.core.trace import Trace

NEW_TOKENS, DEPTH, NODES = 64, 5, 16


@dataclass(frozen=True)
class Setup:
    """How one side of a comparison decodes; ``knobs`` belong to the drafter."""

    drafter: str
    verifier: str = "exact_match"
    temperature: float = 0.0
    policy: str = "fixed"
    schedule: str = "sequential"
    knobs: tuple[tuple[str, Any], ...] = ()
    policy_knobs: tuple[tuple[str, Any], ...] = ()
    schedule_knobs: tuple[tuple[str, Any], ...] = ()


class Claim(NamedTuple):
    """What a paper says, and the two sides that would show it here: the first should be larger."""

    method: str
    says: str
    first: Setup
    second: Setup
    measure: str
    because: str  # why it may come out otherwise on models this small


def emitted(trace: Trace) -> float:
    """Tokens a target pass."""
    return trace.summary["mean_emitted"]


def speed(trace: Trace) -> float:
    """Tokens a second, prompt excluded."""
    return trace.summary["tokens_per_s"]


def thrift(trace: Trace) -> float:
    """Minus drafted tokens thrown away for each emitted one."""
    drafted = sum(len(r.tokens) for r in trace.rounds)
    kept = sum(r.accepted for r in trace.rounds)
    return -(drafted - kept) / max(1, len(trace.new_tokens))


MEASURES: dict[str, tuple[str, Callable[[Trace], float]]] = {
    "emitted": ("tokens a target pass", emitted),
    "speed": ("tokens a second", speed),
    "thrift": ("minus wasted drafts a token", thrift),
}


def tree(sampler: str, verifier: str) -> Setup:
    knobs = (("sampler", sampler), ("branching", "3,2,1"))
    return Setup("draft_tree", verifier, 0.8, knobs=knobs)


def chain(verifier: str) -> Setup:
    return Setup("draft_model", verifier, 0.8)


def length(policy: str, **knobs: Any) -> Setup:
    return Setup("draft_model", policy=policy, policy_knobs=tuple(knobs.items()))


CLAIMS = (
    Claim(
        "medusa",
        "Heads beat plain decoding (2401.10774).",
        Setup("medusa"),
        Setup("none"),
        "speed",
        "a pass over seventeen rows takes several plain ones here, and the heads keep less",
    ),
    Claim(
        "hydra",
        "Heads that see the path keep more than Medusa's (2402.05109).",
        Setup("hydra"),
        Setup("medusa"),
        "emitted",
        "",
    ),
    Claim(
        "eagle",
        "A feature-level tree keeps more than Medusa's heads (2401.15077).",
        Setup("eagle"),
        Setup("medusa"),
        "emitted",
        "",
    ),
    Claim(
        "kangaroo",
        "The adapter keeps more than a bare early exit (2404.18911).",
        Setup("kangaroo"),
        Setup("kangaroo", knobs=(("heads", "untrained"),)),
        "emitted",
        "",
    ),
    Claim(
        "kangaroo",
        "Drafting with the first layers beats plain decoding (2404.18911).",
        Setup("kangaroo"),
        Setup("none"),
        "speed",
        "each of its tokens is a call of its own, dearer than the arithmetic of so small a model",
    ),
    Claim(
        "token_recycling",
        "Recycled successors keep more than a prompt lookup (2408.08696).",
        Setup("token_recycling"),
        Setup("prompt_lookup"),
        "emitted",
        "greedy text of a small model repeats its prompt, which is what a lookup copies",
    ),
    Claim(
        "rasd",
        "Retrieval and draft together keep more than the draft (2503.03434).",
        Setup("rasd"),
        Setup("draft_model"),
        "emitted",
        "half of the nodes go to retrieved text that a one-million-token corpus rarely holds",
    ),
    Claim(
        "rasd",
        "Retrieval and draft together keep more than retrieval (2503.03434).",
        Setup("rasd"),
        Setup("rest"),
        "emitted",
        "",
    ),
    Claim(
        "aded",
        "Adaptive trigrams keep more than fixed retrieval (2407.12021).",
        Setup("aded"),
        Setup("rest"),
        "emitted",
        "",
    ),
    Claim(
        "swift",
        "A skip set found while decoding keeps more than a uniform one (2410.06916).",
        Setup("swift"),
        Setup("swift", knobs=(("patience", 0),)),
        "emitted",
        "64 new tokens leave few rounds to search and twelve sub-layers few sets to find",
    ),
    Claim(
        "specdec_pp",
        "A trained stop wastes fewer drafts than the best fixed length (2405.19715).",
        length("specdec_pp"),
        length("fixed", depth=5),
        "thrift",
        "",
    ),
    Claim(
        "specdec_pp",
        "A trained stop is faster than the best fixed length (2405.19715).",
        length("specdec_pp"),
        length("fixed", depth=5),
        "speed",
        "the fixed length drafts in one compiled call, while a head is asked after every token",
    ),
    Claim(
        "rsd",
        "Siblings without replacement keep more than independent ones (2402.14160).",
        tree("gumbel_top_k", "rsd"),
        tree("independent", "multi_round"),
        "emitted",
        "",
    ),
    Claim(
        "rsd",
        "A stochastic beam keeps more than independent siblings (2402.14160).",
        tree("stochastic_beam", "rsd"),
        tree("independent", "multi_round"),
        "emitted",
        "",
    ),
    Claim(
        "spectr",
        "k-SEQ keeps more than multi-round on the same sequences (2310.15141).",
        tree("sequences", "spectr"),
        tree("sequences", "multi_round"),
        "emitted",
        "",
    ),
    Claim(
        "block",
        "Verified as a block, a chain keeps more (2403.10444).",
        chain("block"),
        chain("rejection"),
        "emitted",
        "",
    ),
    Claim(
        "typical",
        "Typical acceptance keeps more, and is not the target's law (2401.10774).",
        Setup("medusa", "typical", 0.8),
        Setup("medusa", "multi_round", 0.8),
        "emitted",
        "",
    ),
    Claim(
        "pearl",
        "Drafting while checking is faster (2408.11850); simulated clock.",
        Setup(
            "draft_model", schedule="pearl", schedule_knobs=(("clock", "simulated"), ("window", 3))
        ),
        Setup("draft_model", policy_knobs=(("depth", 4),)),
        "speed",
        "a weak draft wastes most of what it writes ahead",
    ),
)
