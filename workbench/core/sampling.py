"""Temperature, top-k and top-p: one function turns logits into a law, for target and draft alike.

*Paper*: top-p is nucleus sampling, Holtzman et al. 2020 (arXiv 1904.09751, section 3.1).
"""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from workbench.core.errors import BadInput

# Laws over the rows of a tree are this short; plain numbers are sooner summed than an array.
_SHORT = 64


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Args:
        temperature: divides the logits; 0 = greedy (a one-hot law, first index on ties).
        top_k: keep the k most likely tokens (ties with the k-th are kept); 0 = all.
        top_p: then keep the smallest set whose mass reaches p; 1 = all.
        seed: of the generator that every draw of a run comes from.

    Raises:
        BadInput: a value outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_k", "top_p", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise BadInput(f"{name}={value!r}: expected a number")
            if not math.isfinite(value):
                raise BadInput(f"{name}={value!r}: expected a finite number")
        if self.temperature < 0:
            raise BadInput(f"temperature={self.temperature}: must be 0 (greedy) or more")
        if self.top_k < 0 or self.top_k != int(self.top_k):
            raise BadInput(f"top_k={self.top_k}: must be a whole number, 0 for all tokens")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p={self.top_p}: must lie in (0, 1]")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def law(self, logits: Float[torch.Tensor, "*n v"]) -> Float[torch.Tensor, "*n v"]:
        """The law that the next token is drawn from, rows summing to 1 (fp32, fp64 kept).

        Temperature 0 gives a one-hot row at the argmax.
        """
        if self.greedy:
            best = logits.argmax(-1, keepdim=True)
            law = torch.zeros(logits.shape, dtype=_wide(logits.dtype), device=logits.device)
            return law.scatter_(-1, best, 1.0)
        wide = logits.to(_wide(logits.dtype))
        if self.temperature < 1e-4:  # a quotient of unshifted logits would overflow
            wide = wide - wide.amax(-1, keepdim=True)
        wide = wide / max(self.temperature, torch.finfo(wide.dtype).tiny)
        if 0 < self.top_k < wide.shape[-1]:
            least = wide.topk(int(self.top_k), -1).values[..., -1:]
            wide = wide.masked_fill(wide < least, -math.inf)
        law = wide.softmax(-1)
        return top_p_law(law, self.top_p) if self.top_p < 1 else law


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def top_p_law(law: Float[torch.Tensor, "*n v"], top_p: float) -> Float[torch.Tensor, "*n v"]:
    """Keep tokens, most likely first, until the mass before one reaches ``top_p``; renormalise."""
    ordered, order = law.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(before >= top_p, 0.0)
    kept = kept / kept.sum(-1, keepdim=True)
    return torch.zeros_like(law).scatter_(-1, order, kept)


def fit_vocabulary(logits: Float[torch.Tensor, "*n v"], vocab_size: int) -> torch.Tensor:
    """Trim padded ids, or fill missing ones with -inf, so that the last axis is the target's."""
    missing = vocab_size - logits.shape[-1]
    if missing <= 0:
        return logits[..., :vocab_size]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)


def draw(
    law: Float[torch.Tensor, "*n v"], uniform: Float[torch.Tensor, "*n"]
) -> Int[torch.Tensor, "*n"]:
    """The token at quantile ``uniform`` in [0, 1) of each row; never one of probability zero."""
    cumulative = law.double().cumsum(-1)
    total = cumulative[..., -1:]
    # Staying below the total keeps the index on a token whose own probability raised the sum.
    below = torch.nextafter(total, torch.zeros_like(total))
    level = torch.minimum(uniform.double().unsqueeze(-1) * total, below)
    return torch.searchsorted(cumulative, level, right=True).squeeze(-1)


def _draw_short(law: list[float], uniform: float) -> int:
    """The same sums without a library's overhead."""
    if 1.0 in law:
        return law.index(1.0)
    cumulative = list(itertools.accumulate(law))
    level = min(uniform * cumulative[-1], math.nextafter(cumulative[-1], 0.0))
    return bisect.bisect_right(cumulative, level)


def draw_one(law: Float[torch.Tensor, "v"], uniform: float) -> int:
    """:func:`draw` for one law and one number; what it gives is the same, sooner on the CPU."""
    if law.device.type != "cpu":
        return int(draw(law, law.new_full((), uniform, dtype=torch.float64)))
    if len(law) <= _SHORT:
        return _draw_short(law.tolist(), uniform)
    numbers = law.numpy()
    likeliest = int(numbers.argmax())
    if numbers[likeliest] == 1:  # certain, as greedy laws are; the rest is rounding at most
        return likeliest
    cumulative = np.cumsum(numbers, dtype=np.float64)
    total = cumulative[-1]
    level = min(uniform * total, np.nextafter(total, 0.0))
    return int(np.searchsorted(cumulative, level, side="right"))
