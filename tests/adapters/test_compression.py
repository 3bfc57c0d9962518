"""ComPEFT and Breadcrumbs on numbers that are known: normal changes, small matrices, two toys."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from adapters.conftest import attach, logits, move, put_growing
from gpu.pretend import ELSEWHERE, Far, Pretending
from torch import nn

from workbench.adapters.operations.breadcrumbs import crumbs
from workbench.adapters.operations.compeft import compress
from workbench.core.method import make_method
from workbench.core.ternary import encode
from workbench.models.adapting import Adapters
from workbench.testing.tiny_network import tiny_network

NORMAL = [  # share kept, least-squares size in standard deviations, error, times smaller than fp16
    (0.05, 2.34, 0.85, 47.5),
    (0.1, 2.06, 0.76, 28.1),
    (0.2, 1.75, 0.62, 17.4),
    (0.3, 1.55, 0.52, 13.5),
    (0.5, 1.27, 0.44, 10.7),
]


@pytest.mark.parametrize(("keep", "alpha", "error", "ratio"), NORMAL)
def test_a_normal_change(keep, alpha, error, ratio):
    change = torch.randn(200_000, generator=torch.Generator().manual_seed(3))
    made, signs, scale = compress(change, keep, 0.0)
    assert scale / float(change.std()) == pytest.approx(alpha, abs=0.015)
    assert float((made - change).norm() / change.norm()) == pytest.approx(error, abs=0.01)
    size = len(encode(signs.numpy(), scale))
    assert 2 * len(change) / size == pytest.approx(ratio, rel=0.05)


def test_everything_kept_is_the_signs_alone():
    change = torch.tensor([0.1, -2.0, 0.5, -0.3])
    made, signs, _ = compress(change, 1.0, 2.0)
    assert signs.tolist() == [1, -1, 1, -1]
    assert torch.allclose(made, 2 * change.std() * change.sign())
    nothing, signs, scale = compress(change, 0.01, 0.0)
    assert not nothing.any() and not signs.any() and scale == 0


def test_an_adapter_that_grew_is_measured_from_where_it_began(adapters):
    """Its first tensors had room for ranks that never lived; those are cut off."""
    _, allocator = put_growing(adapters, target_rank=2.0, warmup=0, interval=1, top=2)
    allocator.mean, allocator.wavering = [3.0, 1, 2, 1, 5, 1], [1.0] * 6
    for step in range(1, 6):
        allocator.after_step(step)
    allocator.finish(adapters.config("g"))
    first = adapters.start("g")
    start = {
        k: first[k][:, : v.shape[1]] if "growing_B" in k else first[k][: len(v)]
        for k, v in adapters.state("g").items()
    }
    move(adapters, "g")
    facts = make_method("operation", "compeft", keep=0.3).combine(adapters, ["g"], "c")
    made = adapters.state("c")
    still = sum(int(torch.isclose(made[k], start[k], atol=1e-12).sum()) for k in start)
    size = sum(v.numel() for v in start.values())
    assert still == size - facts["kept"] and facts["kept"] == round(0.3 * size)


def by_hand(change: np.ndarray, keep: int, remove: int) -> np.ndarray:
    """Of one row: the largest ``remove`` go, the next ``keep`` stay."""
    order = sorted(range(len(change)), key=lambda place: -abs(change[place]))
    kept = order[remove : remove + keep]
    return np.array([value if place in kept else 0 for place, value in enumerate(change)])


def test_masked_changes_are_added_and_scaled():
    """Two adapters, one matrix that both change and one that only the second does."""
    rng = np.random.default_rng(5)
    both, first, second = (rng.normal(size=(3, 8)) for _ in range(3))
    operation = make_method(
        "operation", "breadcrumbs", keep=0.5, remove=0.125, alpha=0.4, by_row=True
    )
    tasks = [{"a": first}, {"a": both, "b": second}]
    total, _ = operation.merged([{k: torch.tensor(v) for k, v in t.items()} for t in tasks])
    masked = [np.stack([by_hand(row, 4, 1) for row in one]) for one in (first, both, second)]
    assert np.allclose(total["a"], 0.4 * (masked[0] + masked[1]))
    assert np.allclose(total["b"], 0.4 * masked[2])


def test_tails_of_rows_are_not_those_of_the_matrix():
    change = torch.tensor([[1.0, -2, 3, -4], [10, -20, 30, -40]])
    rows = change * crumbs(change, 0.5, 0.25, by_row=True)
    assert rows.tolist() == [[0, -2, 3, 0], [0, -20, 30, 0]]
    whole = change * crumbs(change, 0.5, 0.25, by_row=False)
    assert whole.tolist() == [[0, 0, 3, -4], [10, -20, 0, 0]]


def test_overlap_is_the_mean_of_both_by_either():
    operation = make_method("operation", "breadcrumbs", keep=0.5, remove=0.0)
    low, high = torch.tensor([[4.0, 3, 2, 1]]), torch.tensor([[1.0, 2, 3, 4]])
    mixed = torch.tensor([[4.0, 1, 3, 2]])
    overlap = [
        operation.merged([{"a": one} for one in tasks])[1]
        for tasks in ([low], [low, low], [low, high], [low, mixed], [low, low, mixed])
    ]
    assert overlap == pytest.approx([0.0, 1.0, 0.0, 1 / 3, (1 + 1 / 3 + 1 / 3) / 3])


def test_a_sum_times_nothing_is_the_base_bit_for_bit(adapters):
    base = logits(adapters)
    attach(adapters, "a", r=2)
    make_method("operation", "breadcrumbs", alpha=0.0).combine(adapters, ["a"], "zero")
    adapters.set_active(["zero"])
    assert torch.equal(logits(adapters), base)


def chains(rule: int, rows: int, seed: int) -> torch.Tensor:
    """Texts in which each of eight symbols follows the one before by ``rule``."""
    first = torch.randint(0, 8, (rows, 1), generator=torch.Generator().manual_seed(seed))
    return (first + rule * torch.arange(8)) % 8


def learnt(rule: int) -> tuple[Adapters, dict[str, torch.Tensor]]:
    """An adapter that has learnt a rule, and its tensors."""
    adapters = Adapters(tiny_network(8, layers=2, seed=rule, std=0.2))
    method = make_method("adapter", "lora", r=4, alpha=8.0, targets="all linear")
    adapters.attach(method.config(adapters.shapes), "t", seed=rule)
    network = adapters.model.network
    with adapters.train("t"):
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=2e-2, weight_decay=0.0)
        for step in range(90):
            ids = chains(rule, 16, 1000 * rule + step)
            found = network(input_ids=ids, use_cache=False).logits[:, :-1]
            optimiser.zero_grad()
            nn.functional.cross_entropy(found.flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimiser.step()
    return adapters, adapters.state("t")


@torch.no_grad()
def right(adapters: Adapters, rule: int) -> float:
    """Share of the next symbols that are guessed."""
    ids = (torch.arange(8)[:, None] + rule * torch.arange(8)) % 8
    guessed = adapters.model.network(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1)
    return float((guessed == ids[:, 1:]).float().mean())


@pytest.mark.parametrize("rule", [1, 3])
def test_more_that_is_kept_is_worth_more_and_the_start_is_worth_knowing(rule):
    """What a rule is worth after compression with the best of four sizes."""
    adapters, tensors = learnt(rule)
    assert right(adapters, rule) > 0.95
    start = adapters.start("t")
    nothing = {key: torch.zeros_like(value) for key, value in start.items()}
    best = {}
    for name, reference in (("start", start), ("nothing", nothing)):
        for keep in (0.1, 0.2, 0.3, 0.5):
            for alpha in (1.0, 1.5, 2.0, 3.0):
                compeft = make_method("operation", "compeft", keep=keep, alpha=alpha)
                adapters.fill("t", compeft.compressed(tensors, reference)[0])
                place = name, keep
                best[place] = max(best.get(place, 0.0), right(adapters, rule))
    kept = [best["start", keep] for keep in (0.1, 0.2, 0.3, 0.5)]
    assert all(more >= less - 0.02 for less, more in pairwise(kept))
    assert kept[-1] > 0.9
    assert best["start", 0.2] > best["nothing", 0.2] + 0.05
    assert best["start", 0.3] > best["nothing", 0.3]


def test_the_change_may_lie_on_a_device():
    change = torch.tensor([0.1, -2.0, 0.5, -0.3])
    wanted = compress(change, 0.5, 1.0)
    with Pretending():
        made, signs, scale = compress(Far(change), 0.5, 1.0)
        assert made.device == signs.device == ELSEWHERE
        assert torch.equal(made.cpu(), wanted[0]) and scale == wanted[2]
