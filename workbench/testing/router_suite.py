"""What every router must satisfy, on random, uniform, decided and banned logits.

Checks are chosen by what a router declares (``bounds``, ``sums_to_one``), never by its name.

Example:
    >>> RouterSuite(make_method("router", "top_p")).run()
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from workbench.core.routing import Own, Routed, Router, law

SIZES = ((1, 1), (5, 4), (33, 8), (9, 16))  # tokens, experts
OWNS = (Own(1, True), Own(2, False), Own(2, True))
TOLERANCE = 1e-6


def dense(routed: Routed, experts: int) -> torch.Tensor:
    """Weight of every expert for every token, ``[t e]``."""
    grid = torch.zeros(len(routed.weights), experts)
    return grid.scatter_add_(1, routed.indices, routed.weights.float())


class RouterSuite:
    """The checks of one router instance; each raises AssertionError on a breach."""

    def __init__(self, router: Router):
        self.router = router

    def cases(self) -> Iterator[tuple[torch.Tensor, Own]]:
        """Logits of several sizes and sharpnesses, for models trained in each way."""
        for seed, (tokens, experts) in enumerate(SIZES):
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(tokens, experts, generator=generator)
            for sharpness in (0.3, 3.0):
                for own in OWNS:
                    yield sharpness * noise, own

    def run(self) -> None:
        """All checks."""
        for name in CHECKS:
            getattr(self, name)()

    def check_weights(self) -> None:
        """Weights are never negative; they sum to one, or are the raw probabilities, as declared.

        Either way they keep the proportions of the router's law.
        """
        for logits, own in self.cases():
            routed, probs = self.router.route(logits, own), law(logits)
            grid = dense(routed, logits.shape[1])
            assert bool((routed.weights >= 0).all()), "a negative weight"
            wanted = torch.where(grid > 0, probs, 0.0)
            if self.router.sums_to_one(own):
                wanted = wanted / wanted.sum(-1, keepdim=True)
            torch.testing.assert_close(grid, wanted, atol=TOLERANCE, rtol=0)

    def check_capacity(self) -> None:
        """Every token has as many experts as declared, each once; padding names its first one."""
        for logits, own in self.cases():
            experts = logits.shape[1]
            weights, indices = self.router.route(logits, own)
            assert weights.shape == indices.shape, "weights and indices differ in shape"
            assert 0 <= int(indices.min()) <= int(indices.max()) < experts, "no such expert"
            used = weights > 0
            low, high = self.router.bounds(experts, own)
            count = used.sum(-1)
            assert bool((low <= count).all()) and bool((count <= high).all()), "too few or too many"
            distinct = (dense(Routed(used.float(), indices), experts) > 0).sum(-1)
            assert bool((distinct == count).all()), "an expert twice"
            spare = torch.where(used, indices[:, :1], indices)
            assert bool((spare == indices[:, :1]).all()), "padding that touches another expert"

    def check_likeliest(self) -> None:
        """No expert is left out while a less likely one is taken."""
        for logits, own in self.cases():
            taken = dense(self.router.route(logits, own), logits.shape[1]) > 0
            least = logits.masked_fill(~taken, float("inf")).amin(-1)
            best_left = logits.masked_fill(taken, float("-inf")).amax(-1)
            assert bool((least >= best_left).all()), "a likelier expert was left out"

    def check_permutations(self) -> None:
        """Renaming experts renames the answer; reordering tokens reorders it."""
        for logits, own in self.cases():
            tokens, experts = logits.shape
            plain = dense(self.router.route(logits, own), experts)
            names = torch.arange(experts).flip(0).roll(1)
            renamed = dense(self.router.route(logits[:, names], own), experts)
            torch.testing.assert_close(renamed, plain[:, names], atol=TOLERANCE, rtol=0)
            order = torch.arange(tokens).flip(0)
            moved = dense(self.router.route(logits[order], own), experts)
            torch.testing.assert_close(moved, plain[order], atol=TOLERANCE, rtol=0)

    def check_each_token_alone(self) -> None:
        """A token's experts do not depend on what else is in the pass: decoding = a full pass."""
        for logits, own in self.cases():
            together = dense(self.router.route(logits, own), logits.shape[1])
            alone = torch.cat(
                [dense(self.router.route(row[None], own), logits.shape[1]) for row in logits]
            )
            torch.testing.assert_close(alone, together, atol=TOLERANCE, rtol=0)

    def check_limits(self) -> None:
        """A decided router takes its expert with weight one; a constant added changes nothing."""
        for logits, own in self.cases():
            experts = logits.shape[1]
            decided = torch.zeros(experts, experts).fill_diagonal_(80.0)
            grid = dense(self.router.route(decided, own), experts)
            torch.testing.assert_close(grid.diagonal(), torch.ones(experts), atol=1e-5, rtol=0)
            plain = self.router.route(logits, own)
            shifted = dense(self.router.route(logits + 4.0, own), experts)
            torch.testing.assert_close(shifted, dense(plain, experts), atol=1e-5, rtol=0)

    def check_banned(self) -> None:
        """An expert whose logit is minus infinity gets no weight, and the others' is finite."""
        for logits, own in self.cases():
            if logits.shape[1] < 2:
                continue
            banned = logits.clone()
            banned[:, 0] = float("-inf")
            weights, indices = self.router.route(banned, own)
            assert bool(weights.isfinite().all()), "a weight that is not finite"
            grid = dense(Routed(weights, indices), logits.shape[1])
            assert not bool((grid[:, 0] > 0).any()), "a banned expert has weight"
            assert bool((grid.sum(-1) > 0).all()), "a token without an expert"


CHECKS = tuple(name for name in vars(RouterSuite) if name.startswith("check_"))
