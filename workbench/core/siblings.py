"""Ways to draw sibling tokens: which tokens, and the law each was drawn from given the earlier.

Pure functions of laws and uniforms, so that a seed decides them and a test can count them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float

from workbench.core.bounds import top_plus_one
from workbench.core.sampling import draw


class Siblings(NamedTuple):
    """Tokens ``[k]`` in draw order and their laws ``[k v]``."""

    tokens: torch.Tensor
    laws: torch.Tensor


def independent(law: Float[torch.Tensor, "v"], uniforms: Float[torch.Tensor, "k"]) -> Siblings:
    """k draws of one law, which may repeat."""
    laws = law.expand(len(uniforms), -1)
    return Siblings(draw(laws, uniforms), laws)


def without_replacement(
    law: Float[torch.Tensor, "v"], uniforms: Float[torch.Tensor, "v"], k: int
) -> Siblings:
    """Gumbel-top-k: the k largest log q + Gumbel, largest first (Kool et al., arXiv 1903.06059).

    Fewer where fewer tokens have any probability.
    """
    keys = law.double().log() + gumbel(uniforms)
    tokens = keys.topk(min(k, int((law > 0).sum()))).indices
    return Siblings(tokens, shrinking(law, tokens))


def top_and_one(
    law: Float[torch.Tensor, "v"], uniforms: Float[torch.Tensor, "1"], k: int
) -> Siblings:
    """The k-1 likeliest tokens for certain, then one draw of the rest (arXiv 2502.18779)."""
    rest, certain = top_plus_one(law, k)
    laws = torch.zeros(len(certain), len(law), dtype=law.dtype, device=law.device)
    laws[torch.arange(len(certain)), certain] = 1
    if float(rest.sum()) == 0:
        return Siblings(certain, laws)
    drawn = draw(rest, uniforms[0])
    return Siblings(torch.cat((certain, drawn[None])), torch.cat((laws, rest[None])))


def shrinking(law: Float[torch.Tensor, "v"], tokens: torch.Tensor) -> torch.Tensor:
    """The law of each token once the earlier ones are taken out and the rest renormalised."""
    laws, left = [], law
    for token in tokens.tolist():
        laws.append(left)
        left = left.clone()
        left[token] = 0
        left = left / left.sum().clamp_min(torch.finfo(law.dtype).tiny)
    return torch.stack(laws) if laws else law.new_zeros(0, len(law))


def gumbel(uniforms: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise from uniforms in [0, 1)."""
    return -(-uniforms.double().clamp_min(1e-300).log()).log()


class Beam(NamedTuple):
    """One level of a stochastic beam search: parent beam, token and values of each survivor."""

    parent: torch.Tensor  # [w]
    token: torch.Tensor  # [w]
    log_prob: torch.Tensor  # [w] of the whole sequence
    value: torch.Tensor  # [w] perturbed log-probability, falling


def stochastic_beam(
    laws: Float[torch.Tensor, "m v"],
    log_prob: Float[torch.Tensor, "m"],
    value: Float[torch.Tensor, "m"],
    uniforms: Float[torch.Tensor, "m v"],
    width: int,
) -> Beam:
    """The next level of a beam of sequences drawn without replacement (arXiv 1903.06059, alg. 1).

    Every beam's children get Gumbel values conditioned so that their largest is the beam's own;
    the ``width`` largest of all survive. Among the children of one beam the order by value is the
    order of draws without replacement.
    """
    grown = log_prob.double()[:, None] + laws.double().log()
    noisy = grown + gumbel(uniforms)
    largest = noisy.max(-1, keepdim=True).values
    own = value.double()[:, None]
    # -log(exp(-own) - exp(-largest) + exp(-noisy)) without overflow
    slack = own - noisy + torch.log1p(-torch.exp(noisy - largest))
    values = own - slack.clamp_min(0) - torch.log1p(torch.exp(-slack.abs()))
    values = torch.where(noisy == largest, own, values)
    values = torch.where(torch.isfinite(grown), values, -math.inf)
    count = min(width, int(torch.isfinite(grown).sum()))
    best = values.flatten().topk(count)
    parent, token = best.indices // laws.shape[1], best.indices % laws.shape[1]
    return Beam(parent, token, grown.flatten()[best.indices], best.values)
