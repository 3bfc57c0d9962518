"""What training adds for the routers: each term by hand, layer by layer, of the sets chosen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.core.losses import balance_loss, router_entropy, router_z_loss
from workbench.core.routing import Own, law
from workbench.moe.top_k import TopK
from workbench.moe.top_p import TopP
from workbench.training.moe_finetune import MixtureSettings, Step, Tuning, _MixtureTrainer, finetune
from workbench.zoo.recipe import RECIPES
from workbench.zoo.train import router_loss

EXPERTS, TOKENS = 8, 32
IDS = torch.randint(0, 11, (2, 16), generator=torch.Generator().manual_seed(1))


class Gate(nn.Module):
    """Says the same logits whatever it reads."""

    def __init__(self, logits: torch.Tensor, rule):
        super().__init__()
        self.top_k, self.num_experts = 2, EXPERTS
        self.weight, self.rule = nn.Parameter(logits), rule

    def forward(self, x):
        return self.weight, *self.rule.route(self.weight, Own(2, False))


class Layers(nn.Module):
    """Gates beside a head; the least that has routers to listen to."""

    def __init__(self, layers: list[torch.Tensor], rule):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"gate": Gate(one, rule)}) for one in layers)
        self.head = nn.Embedding(11, 11)

    def forward(self, ids):
        for layer in self.layers:
            layer["gate"](ids)
        return self.head(ids)


def collapsed() -> list[torch.Tensor]:
    """Four layers, each of which sends everything to a pair of experts of its own."""
    layers = []
    for pair in range(4):
        logits = torch.zeros(TOKENS, EXPERTS)
        logits[:, 2 * pair : 2 * pair + 2] = 60.0
        layers.append(logits)
    return layers


def computed(layers, rule, chosen: MixtureSettings) -> tuple[float, float, Step]:
    """Loss of the text, loss as trained, and the step that was noted."""
    network, trainer = Layers(layers, rule), _MixtureTrainer.__new__(_MixtureTrainer)
    trainer.method, trainer.chosen, trainer.done = rule, chosen, Tuning()
    whole = trainer.compute_loss(network, {"ids": IDS})
    whole.backward()
    text = F.cross_entropy(network.head(IDS)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    return float(text), float(whole), trainer.done.curve[0]


def test_collapsed_layers_do_not_look_balanced_together():
    """Pooled over the layers before the product, as the library does it, these score 2 of 8."""
    shown = collapsed()
    pooled = balance_loss(torch.cat(shown), 2)
    assert float(pooled) == pytest.approx(2, abs=1e-3)  # the trap
    text, whole, step = computed(shown, TopK(), MixtureSettings(balance=0.5, size=0.0))
    assert step.balance == pytest.approx(8) and step.experts_per_token == 2
    assert whole - text == pytest.approx(0.5 * 8, abs=1e-4)
    recipe = RECIPES["moe"]
    size = (60 + math.log(2)) ** 2
    by_hand = recipe.balance_loss * 8 + recipe.router_z_loss * size
    assert float(router_loss(dict(enumerate(shown)), 2, recipe)) == pytest.approx(by_hand, rel=1e-5)


def test_the_size_loss_is_the_squared_log_sum():
    even = torch.full((5, EXPERTS), 3.0)
    assert float(router_z_loss(even)) == pytest.approx((3 + math.log(8)) ** 2)
    two = torch.stack([torch.zeros(EXPERTS), torch.full((EXPERTS,), 1.0)])
    mean = (math.log(8) ** 2 + (1 + math.log(8)) ** 2) / 2  # squared first, then the mean
    assert float(router_z_loss(two)) == pytest.approx(mean)


def test_every_term_is_weighted_and_added():
    generator = torch.Generator().manual_seed(7)
    layers = [2 * torch.randn(TOKENS, EXPERTS, generator=generator) for _ in range(3)]
    rule = TopP(p=0.5, entropy_weight=0.3)
    text, whole, step = computed(layers, rule, MixtureSettings(balance=0.2, size=0.05))
    balance, size, entropy, counts = [], [], [], []
    for logits in layers:
        probs = law(logits)
        share, count = torch.zeros(EXPERTS), 0
        for row in probs.tolist():  # the sets, padding left out
            total = 0.0
            for expert in sorted(range(EXPERTS), key=lambda e: -row[e]):
                share[expert] += 1 / TOKENS
                count, total = count + 1, total + row[expert]
                if total > 0.5:
                    break
        balance.append(EXPERTS * float((share * probs.mean(0)).sum()))
        size.append(float(logits.exp().sum(-1).log().square().mean()))
        entropy.append(float(-(probs * probs.log()).sum(-1).mean()))
        counts.append(count / TOKENS)
    means = [sum(part) / 3 for part in (balance, size, entropy, counts)]
    assert step.balance == pytest.approx(means[0], rel=1e-5)
    assert step.entropy_nats == pytest.approx(means[2], rel=1e-5)
    assert step.experts_per_token == pytest.approx(means[3]) and min(counts) > 1
    added = 0.2 * means[0] + 0.05 * means[1] + 0.3 * means[2]
    assert whole - text == pytest.approx(added, rel=1e-4)


def test_the_entropy_is_minimised():
    logits = torch.randn(TOKENS, EXPERTS, generator=torch.Generator().manual_seed(2))
    logits.requires_grad_()
    loss = TopP(entropy_weight=1.0).loss(logits)
    (slope,) = torch.autograd.grad(loss, logits)
    with torch.no_grad():
        assert router_entropy(logits - 0.5 * slope) < router_entropy(logits)
    assert float(TopP().loss(torch.zeros(3, 16))) == pytest.approx(1e-2 * math.log(16))


def test_the_defaults_of_rule_and_training():
    rule, chosen = TopP(), MixtureSettings()
    assert (rule.p, rule.weights, rule.entropy_weight) == (0.4, "raw", 1e-2)
    assert (chosen.balance, chosen.size) == (0.01, 1e-3)
    assert (RECIPES["moe"].balance_loss, RECIPES["moe"].router_z_loss) == (0.01, 1e-3)


def test_a_rule_without_a_loss_of_its_own_is_in_force_too(loaded):
    model = loaded("qwen3_moe").clone()
    rows = torch.randint(0, 30, (4, 16), generator=torch.Generator().manual_seed(8))
    for rule, used in ((TopK(k=1), 1), (None, 2), (TopK(k=3), 3)):
        done = finetune(model, rows, rule, MixtureSettings(steps=1, batch_rows=2))
        assert done.curve[0].experts_per_token == used
    assert not model.network.model.layers[0].mlp.gate._forward_hooks
