"""Siblings drawn without replacement: after each refusal both p and q shrink."""

from __future__ import annotations

import torch
from jaxtyping import Float

from workbench.core.decoding import Verdict
from workbench.core.errors import Mismatch
from workbench.core.laws import residual, without
from workbench.core.method import Paper, method
from workbench.core.tree import DraftTree, shape_of


@method(
    "verifier",
    title="Recursive rejection (RSD)",
    paper=Paper(
        "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without"
        " Replacement",
        2024,
        "2402.14160",
        "section 3.2",
    ),
)
class Rsd:
    """Recursive rejection sampling: test siblings in draw order, then take each out of the draft.

    *Idea*: given the earlier siblings, the next one is an exact draw from what is left of q, so
    each step is ordinary rejection of what is left of p against what is left of q; p by induction.

    *Deviations*: the shrinking q is worked out here from the first sibling's law, not read from the
    drafter; ``multi_round`` reads it instead and gives the same verdict where the drafter is right.
    *Chosen* siblings are point masses.

    *Cost*: two vector operations a node. *Raises*: Mismatch for siblings drawn independently, or
    from different laws.
    """

    lossless = True
    chains_only = False

    def verify(self, tree: DraftTree, p: Float[torch.Tensor, "rows v"]) -> Verdict:
        """Walk every row's children once; rows that no path reaches are verified as well."""
        tokens = tree.token_ids
        barred = [False] * len(tree) if tree.candidate is None else (~tree.candidate).tolist()
        accept = torch.zeros(len(tree), dtype=p.dtype)
        left: list[torch.Tensor] = []
        for row, children in enumerate(shape_of(tree.parent).children):
            if len(children) > 1 and tree.drawn and tree.with_replacement:
                raise Mismatch(
                    "verifier='rsd' takes siblings drawn without replacement, these were drawn"
                    " independently; choose multi_round or spectr, or the drafter draft_tree with"
                    " sampler='gumbel_top_k'"
                )
            left.append(_walk(tree, p[row], children, tokens, barred, accept))
        return Verdict.from_accept(tree, accept, left.__getitem__)


def _walk(tree, p, children, tokens, barred, accept) -> torch.Tensor:
    """Fill ``accept`` for one row's children; returns what is left of p when all are refused."""
    current, remaining = p, 1.0
    draft = tree.probs[children[0]].to(p.dtype).clone() if tree.drawn and children else None
    for child in children:
        token = tokens[child]
        if draft is not None and not torch.allclose(
            tree.probs[child].to(p.dtype), draft, atol=1e-5
        ):
            raise Mismatch(
                "verifier='rsd' takes siblings drawn one after the other from one law, these were"
                " not; choose mdsd_optimal or multi_round"
            )
        if not barred[child]:
            have = float(current[token])
            if draft is None:
                chance, refused = have, without(current, token)
            else:
                drawn_with = float(draft[token])
                chance = 1.0 if have >= drawn_with else have / drawn_with
                refused = residual(current, draft)
            accept[child] = remaining * chance
            remaining *= 1.0 - chance
            current = refused
        if draft is not None:
            draft[token] = 0
            draft = draft / draft.sum().clamp_min(torch.finfo(p.dtype).tiny)
    return current
