"""Routers that are wrong on purpose, one classic mistake each; the router suite must catch them.

Beside each stands the check that is there for it. None is registered.
"""

from __future__ import annotations

import torch

from workbench.core.routing import Own, Routed, heaviest, law


class TopTwo:
    """The honest rule that the mistakes are made in."""

    def route(self, logits: torch.Tensor, own: Own) -> Routed:
        return heaviest(law(logits), self.bounds(logits.shape[1], own)[1], self.sums_to_one(own))

    def sums_to_one(self, own: Own) -> bool:
        return True

    def bounds(self, experts: int, own: Own) -> tuple[int, int]:
        return min(2, experts), min(2, experts)


class ForgetsToNormalise(TopTwo):
    """Says that its weights sum to one and hands out raw probabilities."""

    caught_by = "check_weights"

    def route(self, logits, own):
        return heaviest(law(logits), self.bounds(logits.shape[1], own)[1], False)


class DropsTheCrossingExpert(TopTwo):
    """Top-p that keeps experts while the sum stays below p: a sure token is left with none."""

    caught_by = "check_capacity"

    def sums_to_one(self, own):
        return False

    def bounds(self, experts, own):
        return 1, experts

    def route(self, logits, own):
        probs, indices = law(logits).sort(-1, descending=True)
        used = probs.cumsum(-1) <= 0.5
        return Routed(probs * used, torch.where(used, indices, indices[:, :1]))


class PadsWithExpertZero(TopTwo):
    """Pads short rows with expert 0: the kernel runs it, and the cache loads it, for nothing."""

    caught_by = "check_capacity"

    def bounds(self, experts, own):
        return 1, min(2, experts)

    def route(self, logits, own):
        weights, indices = super().route(logits, own)
        sure = weights > 0.4
        sure[:, 0] = True
        weights = weights * sure
        return Routed(weights / weights.sum(-1, keepdim=True), torch.where(sure, indices, 0))


class TakesTheLightest(TopTwo):
    """Sorts the wrong way round."""

    caught_by = "check_likeliest"

    def route(self, logits, own):
        probs = law(logits)
        k = self.bounds(logits.shape[1], own)[1]
        weights, indices = probs.topk(k, largest=False)
        return Routed(weights / weights.sum(-1, keepdim=True), indices)


class LikesLowNumbers(TopTwo):
    """A bias towards the first experts, as a load balancer left switched on would give."""

    caught_by = "check_permutations"

    def route(self, logits, own):
        return super().route(logits - 0.5 * torch.arange(logits.shape[1]), own)


class DropsOverflow(TopTwo):
    """What a full expert cannot take is dropped: the pass decides, not the token."""

    caught_by = "check_each_token_alone"

    def route(self, logits, own):
        weights, indices = super().route(logits, own)
        room = max(1, -(-indices.numel() // logits.shape[1]))
        chosen = torch.nn.functional.one_hot(indices, logits.shape[1])
        place = chosen.flatten(0, 1).cumsum(0).view_as(chosen)
        kept = ((place <= room) & (chosen > 0)).any(-1)
        return Routed(weights * kept, indices)


class DividesByTheSpread(TopTwo):
    """Standardises each row's logits: a decided router becomes an undecided one."""

    caught_by = "check_limits"

    def route(self, logits, own):
        spread = logits.std(-1, keepdim=True, correction=0).clamp_min(1e-6)
        return super().route(torch.where(spread > 5, logits / spread, logits), own)


class RevivesTheBanned(TopTwo):
    """Replaces minus infinity by a small number before the softmax, to be safe from NaN."""

    caught_by = "check_banned"

    def bounds(self, experts, own):
        return experts, experts

    def route(self, logits, own):
        return super().route(logits.clamp_min(-30.0), own)


WRONG_ROUTERS = (
    ForgetsToNormalise,
    DropsTheCrossingExpert,
    PadsWithExpertZero,
    TakesTheLightest,
    LikesLowNumbers,
    DropsOverflow,
    DividesByTheSpread,
    RevivesTheBanned,
)
