"""What each criterion hears, from the network itself; what it may touch; what it is judged by."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.core.masks import Pattern
from workbench.core.method import make_method
from workbench.core.pruning import Plan
from workbench.models.anatomy import anatomy_of
from workbench.models.calibrate import calibration_rows, hear, standard_texts
from workbench.models.corpus import part_of
from workbench.models.masking import Edit
from workbench.models.model import Model
from workbench.models.prune import prune
from workbench.models.units import matrices, parts_of, units_of
from workbench.testing import checkpoints
from workbench.testing.tiny_network import tiny_network
from workbench.training.importance_lora import importance_of

ROWS = torch.randint(0, 13, (11, 20), generator=torch.Generator().manual_seed(1))  # two batches
ROW, LAYER = Pattern("row"), Pattern("layer")


@torch.no_grad()
def streams(model: Model) -> list[torch.Tensor]:
    """The stream before every layer and after the last, by plain hooks."""
    found: list[torch.Tensor] = []
    layers = model.anatomy.layers
    handles = [
        layer.register_forward_pre_hook(lambda module, args: found.append(args[0]))
        for layer in layers
    ]
    last: list[torch.Tensor] = []
    handles.append(
        layers[-1].register_forward_hook(
            lambda module, args, out: last.append(out[0] if isinstance(out, tuple) else out)
        )
    )
    model.network(input_ids=ROWS, use_cache=False)
    for handle in handles:
        handle.remove()
    return [*found, *last]


def cosines(before: torch.Tensor, after: torch.Tensor) -> list[float]:
    pairs = zip(before.flatten(0, 1).tolist(), after.flatten(0, 1).tolist(), strict=True)
    return [
        sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))
        for x, y in pairs
    ]


def test_a_layer_turns_its_stream_by_the_angles_of_its_tokens():
    model = tiny_network(13, layers=3)
    passed, stats = streams(model), hear(model, ROWS)
    for index in range(3):
        cos = cosines(passed[index], passed[index + 1])
        turn = sum(math.acos(one) / math.pi for one in cos)
        assert stats[f"layers.{index}"].tokens == len(cos) == 220
        assert stats[f"layers.{index}"].turn == pytest.approx(turn, rel=1e-9)
        assert stats[f"layers.{index}"].cosine == pytest.approx(sum(cos) / 220, rel=1e-9)
        assert importance_of(stats, 3)[index] == pytest.approx(turn / 220, rel=1e-9)
    means = [stats[f"layers.{index}"].cosine for index in range(3)]
    made = prune(model, make_method("pruner", "layers"), Plan(Pattern("global"), 0.34), ROWS)
    assert made.masks.parts["layers"].tolist() == [one != max(means) for one in means]


def test_a_block_that_does_nothing_turns_nothing_and_loses_most():
    """Rounding puts some cosines above 1, whose angle would be no number."""
    model = tiny_network(13, layers=4, std=0.6)
    idle = model.anatomy.layers[2]
    with torch.no_grad():
        idle.self_attn.o_proj.weight.zero_()
        idle.mlp.down_proj.weight.zero_()
    stats = hear(model, ROWS)
    assert stats["layers.2"].turn == pytest.approx(0, abs=1e-4)
    assert stats["layers.2"].cosine == pytest.approx(1, abs=1e-9)
    masks = prune(model, make_method("pruner", "cfsp"), Plan(LAYER, 0.4), ROWS).masks
    kept = [int(masks.parts[f"neurons.{index}"].sum()) for index in range(4)]
    assert kept[2] < min(kept[:2] + kept[3:]) and sum(kept) == 96 - 38
    made = prune(model, make_method("pruner", "layers"), Plan(Pattern("global"), 0.25), ROWS)
    assert made.masks.parts["layers"].tolist() == [True, True, False, True]


def told(model: Model, name: str, plan: Plan) -> tuple[dict, object]:
    """The statistics that each unit was judged by, and what came of it."""
    pruner, seen = make_method("pruner", name), {}

    class Noting(type(pruner)):
        def score(self, unit, stats):
            seen.setdefault(unit.name, stats)
            return super().score(unit, stats)

        if hasattr(pruner, "prune"):

            def prune(self, unit, stats, *given):
                seen.setdefault(unit.name, stats)
                return super().prune(unit, stats, *given)

    return seen, prune(model, Noting(), plan, ROWS)


@pytest.mark.parametrize("name, role", [("cfsp", "down"), ("heads", "o")])
def test_parts_are_judged_by_what_their_last_matrix_hears_in_the_dense_network(name, role):
    model = tiny_network(13, layers=3)
    dense = hear(model, ROWS)
    seen, made = told(model, name, Plan(LAYER, 0.5))
    for one in parts_of(model):
        kind = "neurons" if name == "cfsp" else "groups"
        matrix = (one.mlp or {}).get(role) or (one.attention or {})[role]
        assert torch.equal(seen[f"{kind}.{one.layer}"].square, dense[matrix.name].square)
    assert not made.masks.weights and not made.weights
    assert {key.split(".")[0] for key in made.masks.parts} == {kind}


@pytest.mark.parametrize("name", ["wanda", "ria", "sparsegpt"])
def test_every_block_hears_those_before_it_as_they_will_be(name):
    """Corrected weights included; the matrices of one block hear it whole."""
    model = tiny_network(13, layers=3)
    dense, (seen, made) = hear(model, ROWS), told(model, name, Plan(ROW, 0.5))
    with made.apply(model):
        behind = hear(model, ROWS)
    units = units_of(model, "weights")
    for unit in (one for one in units if one.layer == 0):
        assert torch.equal(seen[unit.name].square, dense[unit.name].square), unit.name
    for first in (one.name for one in units if one.name.endswith("q_proj") and one.layer > 0):
        torch.testing.assert_close(seen[first].square, behind[first].square)
        assert not torch.allclose(seen[first].square, dense[first].square, rtol=1e-3)


def test_sparsegpt_is_told_the_products_of_its_inputs():
    model, heard = tiny_network(13, layers=1), []
    name = "model.layers.0.mlp.down_proj"
    handle = matrices(model)[name].module.register_forward_pre_hook(
        lambda module, args: heard.append(args[0].flatten(0, 1))
    )
    with torch.no_grad():
        model.network(input_ids=ROWS)
    handle.remove()
    seen, _ = told(model, "sparsegpt", Plan(ROW, 0.5))
    x = torch.cat(heard)
    torch.testing.assert_close(seen[name].gram.double(), x.T @ x, rtol=1e-5, atol=1e-5)
    assert seen[name].tokens == len(x) == ROWS.numel()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "mixtral", "qwen2_moe"])
def test_embeddings_norms_routers_and_the_head_are_never_touched(family):
    network = checkpoints.tiny_network(family, num_hidden_layers=2).requires_grad_(False)
    model = Model(family, network, None, anatomy_of(network))
    before = {name: one.clone() for name, one in network.named_parameters()}
    made = prune(model, make_method("pruner", "magnitude"), Plan(LAYER, 0.9))
    assert made.masks.density == pytest.approx(0.1, abs=0.001)
    with made.apply(model):
        for name, one in network.named_parameters():
            inner = one.dim() > 1 and not any(w in name for w in ("embed", "wte", "wpe", "head"))
            inner = inner and not name.endswith(("mlp.gate.weight", "expert_gate.weight"))
            share = float((one != before[name]).double().mean())
            assert share == (pytest.approx(0.9, abs=0.01) if inner else 0), name


def test_calibration_reads_what_the_embedded_models_were_trained_on(loaded):
    import sysconfig
    from pathlib import Path

    root = Path(sysconfig.get_paths()["stdlib"])
    texts = standard_texts(3_000_000)
    names = {
        path.read_text(encoding="utf-8", errors="replace"): path.relative_to(root).as_posix()
        for path in root.glob("*.py")
    }
    assert sum(map(len, texts)) >= 3_000_000 and len(texts) > 50
    assert {part_of(names[text]) for text in texts} == {"train"}
    assert calibration_rows(loaded("llama"), texts).shape == (16, 128)


def test_taking_a_pruning_off_gives_back_signed_zeros_too():
    """A masked weight is a plain zero, and what was there comes back to the bit."""
    model = tiny_network(13, layers=1)
    weight = matrices(model)["model.layers.0.mlp.up_proj"].weight
    with torch.no_grad():
        weight[0, :2] = torch.tensor([-0.0, 1e-310], dtype=torch.double)
    edit = prune(model, make_method("pruner", "magnitude"), Plan(ROW, 0.5)).apply(model, Edit())
    assert not weight[0, :2].any() and not bool(weight[0, :2].signbit().any())
    edit.undo()
    assert bool(weight[0, 0].signbit()) and weight[0, 1] == 1e-310
