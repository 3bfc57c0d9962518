"""What the pruned copy drafts is the pruned network's own, and what is accepted of it follows."""

from __future__ import annotations

import pytest
import torch

from workbench.core.decoding import Budget
from workbench.core.masks import MaskSet
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.engine.dials import held_out
from workbench.models.masking import apply_masks
from workbench.models.units import matrices
from workbench.testing import oracles
from workbench.testing.drafter_runs import PROMPT, Granted, run_rounds
from workbench.testing.tiny_network import tiny_network


@pytest.fixture(scope="module")
def model():
    return tiny_network(3)


def saved(model, folder, ratio: float) -> tuple[str, MaskSet]:
    generator = torch.Generator().manual_seed(7)
    weights = {
        name: torch.rand(one.weight.shape, generator=generator) >= ratio
        for name, one in matrices(model).items()
    }
    masks, path = MaskSet(weights, fingerprint=model.fingerprint), folder / "mask.safetensors"
    path.write_bytes(masks.to_bytes())
    return str(path), masks


@pytest.mark.parametrize("ratio", [0.1, 0.7])
def test_drafts_are_the_masked_networks_own_continuation(model, tmp_path, ratio):
    """With the target's keys, or with those of rejected tokens, it would draft something else."""
    path, masks = saved(model, tmp_path, ratio)
    rounds = run_rounds(
        model,
        make_method("drafter", "pruned", mask=path),
        make_method("verifier", "exact_match"),
        policy=Granted(Budget(3, 3, 1)),
        tokens=40,
    )
    copy = model.clone()
    apply_masks(copy, masks)
    text, lengths = list(PROMPT), set()
    for done in rounds:
        assert done.tokens == oracles.plain_greedy(copy.rule, text, done.budget.depth), done.index
        text += done.emitted
        lengths.add(done.accepted)
    assert 0 in lengths and (3 in lengths or ratio == 0.7), "total rejection and acceptance"


@pytest.mark.parametrize("pruner", ["layers", "cfsp", "heads"])
def test_what_is_cut_out_drafts_as_what_is_masked(model, pruner):
    rounds = [
        run_rounds(
            model,
            make_method("drafter", "pruned", pruner=pruner, ratio=0.5, cut=cut),
            make_method("verifier", "exact_match"),
            tokens=40,
        )
        for cut in (True, False)
    ]
    assert [r.tokens for r in rounds[0]] == [r.tokens for r in rounds[1]]
    assert rounds[0][0].report["density"] == rounds[1][0].report["density"] < 1
    assert any(r.accepted < len(r.tokens) for r in rounds[0])


def test_acceptance_is_the_overlap_of_the_two_laws(tmp_path):
    """Sum min(p, q) at the places where a draft began, against how often its first was kept."""
    model = tiny_network(3, layers=1)
    path, masks = saved(model, tmp_path, 0.5)
    drafter, copy = make_method("drafter", "pruned", mask=path), model.clone()
    apply_masks(copy, masks)
    kept, alphas = 0, []
    for seed in range(2):
        rounds = run_rounds(
            model,
            drafter,
            make_method("verifier", "rejection"),
            sampling=Sampling(1.0, seed=seed),
            policy=Granted(Budget(1, 1, 1)),
            tokens=900,
        )
        text = [*PROMPT, *(token for done in rounds for token in done.emitted)]
        p, q = (one.laws_along(text).softmax(-1) for one in (model, copy))
        overlap = torch.minimum(p, q).sum(-1)
        drafted = [done for done in rounds if done.tokens]  # the last may have had no room
        places = [done.start - 1 for done in drafted]
        assert all(text[place] == done.root for place, done in zip(places, drafted, strict=True))
        alphas += overlap[places].tolist()
        kept += sum(done.accepted for done in drafted)
        row = torch.tensor([text])
        assert held_out(model, row, copy)[2] == pytest.approx(float(overlap[:-1].mean()), abs=1e-5)
    error = sum(one * (1 - one) for one in alphas) ** 0.5
    assert len(alphas) >= 1000 and 0.3 < sum(alphas) / len(alphas) < 0.95
    assert abs(kept - sum(alphas)) <= 2 * error
