"""Plain decoding measured in the same session: what every speed-up is divided by."""

from __future__ import annotations

import statistics

import numpy as np

from workbench.core.errors import BadInput
from workbench.core.sampling import Sampling
from workbench.core.trace import Baseline
from workbench.engine.run import Run, RunSettings
from workbench.models.load import Model


def measure_plain(
    model: Model,
    prompt: str,
    sampling: Sampling | None = None,
    *,
    tokens: int = 32,
    repeats: int = 3,
    progress=lambda fraction: None,
) -> Baseline:
    """Decode without a draft and give the mean milliseconds of a token with its 90 % interval.

    Args:
        tokens: generated per repeat, after one warm-up token.
        repeats: how often; each repeat starts from the same prompt.
        progress: called with the fraction done, 0 to 1.

    Returns:
        The mean over all tokens; low and high are the 5 % and 95 % points of its bootstrap.
    """
    spent: list[float] = []
    settings = RunSettings(
        model,
        prompt,
        "none",
        "exact_match",
        "fixed",
        sampling or Sampling(),
        tokens + 1,
        record_top=0,
    )
    for repeat in range(repeats):
        run = Run(settings)
        run.decoding.eos_ids = frozenset()
        for done in run.rounds():
            if done.index:
                spent.append(done.ms.total)
        progress((repeat + 1) / repeats)
    if not spent:
        raise BadInput(
            f"tokens={tokens}, repeats={repeats}: nothing could be measured; ask for 1 or more, and"
            f" leave room after the prompt ({model.name} holds {model.context_tokens} tokens)"
        )
    rng = np.random.default_rng(0)
    means = rng.choice(spent, (400, len(spent))).mean(1)
    low, high = np.quantile(means, (0.05, 0.95))
    return Baseline(len(spent), statistics.fmean(spent), float(low), float(high))
