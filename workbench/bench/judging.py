"""Paired comparisons: means, the mean difference with its interval, and a verdict.

Both sides see the same prompts (or laws, or rows of text); the difference is taken for each and
bootstrapped over them. A claim holds where the whole 95 % interval of the difference is on its
side, fails where it is on the other, and is open where it crosses zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def judged(first: np.ndarray, second: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Means, the mean difference with its 95 % bootstrap interval, and the verdict."""
    rng, gap = np.random.default_rng(seed), first - second
    means = rng.choice(gap, (4000, len(gap))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    verdict = "holds" if low > 0 else "does not hold here" if high < 0 else "open"
    return {
        "first": round(float(first.mean()), 4),
        "second": round(float(second.mean()), 4),
        "difference": round(float(gap.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "verdict": verdict,
        "pairs": len(gap),
    }


def claim_row(
    method: str, says: str, unit: str, first: np.ndarray, second: np.ndarray, because: str
) -> dict[str, Any]:
    """One row of the claims table.

    Args:
        says: what the paper says, with its number.
        unit: of both sides; larger is better.
        first, second: paired values; the claim is that the first is larger.
        because: why it may come out otherwise here; left out where the claim holds.
    """
    row = judged(first, second)
    reason = "" if row["verdict"] == "holds" else because
    return {"method": method, "says": says, "unit": unit, **row, "because": reason}
