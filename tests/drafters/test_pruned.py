"""The pruned copy as a drafter: empty masks accept everything, any mask leaves the text alone."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import BadInput, BadKnob
from workbench.core.masks import MaskSet
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.models.prune import Pruned
from workbench.models.twin import Twin
from workbench.models.units import matrices
from workbench.testing import oracles
from workbench.testing.drafter_runs import PROMPT, emitted, run_rounds
from workbench.testing.tiny_network import tiny_network

RULE = make_method("verifier", "exact_match")


@pytest.fixture(scope="module")
def model():
    return tiny_network(3)


def rounds_of(model, drafter, tokens=40, **more):
    return run_rounds(model, drafter, RULE, tokens=tokens, **more)


def random_mask(model, seed: int, ratio: float) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.rand(one.weight.shape, generator=generator) >= ratio
        for name, one in matrices(model).items()
    }
    return MaskSet(weights, fingerprint=model.fingerprint)


def test_with_nothing_removed_every_draft_is_accepted(model):
    drafter = make_method("drafter", "pruned", ratio=0.0)
    rounds = rounds_of(model, drafter)
    assert all(r.accepted == len(r.tokens) for r in rounds)
    assert rounds[0].report["density"] == 1.0
    exact = run_rounds(
        model, drafter, make_method("verifier", "rejection"), sampling=Sampling(1.0, seed=3)
    )
    assert min(chance for r in exact for chance in r.accept) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(7))
def test_any_mask_leaves_the_text_alone(model, tmp_path, seed, ratio):
    path = tmp_path / "mask.safetensors"
    path.write_bytes(random_mask(model, seed, ratio).to_bytes())
    before = [p.clone() for p in model.network.parameters()]
    rounds = rounds_of(model, make_method("drafter", "pruned", mask=str(path)))
    assert emitted(rounds) == oracles.plain_greedy(model.rule, PROMPT, 40)
    assert rounds[0].report["density"] == pytest.approx(1 - ratio, abs=0.05)
    assert all(map(torch.equal, before, model.network.parameters()))


@pytest.mark.parametrize("pruner", ["magnitude", "wanda", "sparsegpt", "cfsp", "heads", "layers"])
def test_any_criterion_leaves_the_text_alone(model, pruner):
    drafter = make_method("drafter", "pruned", pruner=pruner, ratio=0.5)
    rounds = rounds_of(model, drafter)
    assert emitted(rounds) == oracles.plain_greedy(model.rule, PROMPT, 40)
    assert rounds[0].report["density"] < 0.9 and rounds[1].forwards.draft > 0
    assert rounds[1].forwards.target == 1


def test_the_inner_drafter_may_branch(model):
    inner = make_method("drafter", "draft_tree", branching="2,2")
    rounds = rounds_of(model, make_method("drafter", "pruned", inner=inner))
    assert emitted(rounds) == oracles.plain_greedy(model.rule, PROMPT, 40)
    assert any(len(set(r.parent)) < len(r.parent) for r in rounds)


def test_copies_are_kept_until_the_weights_change():
    model = tiny_network(3, seed=9)
    made = []

    def change(copy):
        made.append(copy)
        return copy, 1.0

    first = Twin(model).changed("a", change)
    assert Twin(model).changed("a", change) is first and len(made) == 1
    Twin(model).changed("b", change)
    assert len(made) == 2 and made[0].network is not model.network
    with torch.no_grad():
        model.anatomy.layers[0].mlp.up_proj.weight[0, 0] += 1
    assert Twin(model).changed("a", change) is not first


def test_corrected_weights_come_with_a_saved_mask(model, tmp_path):
    masks = random_mask(model, 1, 0.3)
    changed = {name: one.weight * 0.5 for name, one in matrices(model).items()}
    path, seen = tmp_path / "mask.safetensors", {}
    path.write_bytes(Pruned(masks, changed).to_bytes())
    drafter = make_method("drafter", "pruned", mask=str(path))
    twin = model.clone()
    copy, _ = drafter._changed(twin, ())
    for name, one in matrices(copy).items():
        seen[name] = torch.equal(one.weight, changed[name] * masks.weights[name])
    assert all(seen.values())
    rounds = rounds_of(model, drafter)
    assert emitted(rounds) == oracles.plain_greedy(model.rule, PROMPT, 40)
    path.write_bytes(Pruned(masks, {"nowhere": torch.ones(2)}).to_bytes())
    with pytest.raises(BadInput, match="has no 'nowhere'"):
        rounds_of(model, make_method("drafter", "pruned", mask=str(path)))


def test_what_cannot_draft_is_refused(model, tmp_path):
    with pytest.raises(BadKnob, match="choose global"):
        make_method("drafter", "pruned", pattern="2:4")
    with pytest.raises(BadKnob, match="model of its own"):
        make_method("drafter", "pruned", inner="prompt_lookup")
    with pytest.raises(BadInput, match="no such file"):
        rounds_of(model, make_method("drafter", "pruned", mask=str(tmp_path / "none")))
    other = random_mask(tiny_network(3, layers=5), 0, 0.5)
    path = tmp_path / "other"
    path.write_bytes(other.to_bytes())
    with pytest.raises(BadInput, match="this network has no"):
        rounds_of(model, make_method("drafter", "pruned", mask=str(path)))
