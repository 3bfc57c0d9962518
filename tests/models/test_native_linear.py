"""Compiled linear maps of heads, and the target's output head beside a pass: torch's numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.attachments import Attachment
from workbench.models.blocks import Block, BlockShape, BlockStore
from workbench.models.native import build, linear, panels
from workbench.models.native.linear import CompiledLinear, compiled

pytestmark = pytest.mark.skipif(
    build.compiler() is None, reason="no C++ compiler here, so heads run on torch alone"
)


def some_map(inputs=24, outputs=40, bias=True, narrow=False) -> nn.Linear:
    torch.manual_seed(1)
    made = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    return made.bfloat16().float() if narrow else made


class Calls:
    """Counts the products of the kernel."""

    def __init__(self, monkeypatch):
        self.count, self._real = 0, build.attempt()
        monkeypatch.setattr(panels, "kernel", lambda: self)

    def wb_multiply(self, *arguments):
        self.count += 1
        self._real.wb_multiply(*arguments)


@pytest.mark.parametrize("shape", [(24,), (1, 24), (7, 24), (2, 3, 24), (1, 256, 24)])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_it_gives_torchs_numbers(monkeypatch, shape, narrow, bias):
    plain = some_map(bias=bias, narrow=narrow)
    ours, calls = CompiledLinear(plain), Calls(monkeypatch)
    x = torch.randn(shape)
    assert torch.allclose(ours(x), plain(x), atol=1e-5) and calls.count == 1
    assert ours(x.expand(2, *shape)[1]).shape == (*shape[:-1], 40)


def test_rows_that_do_not_lie_together(monkeypatch):
    plain = some_map()
    ours, calls = CompiledLinear(plain), Calls(monkeypatch)
    x = torch.randn(24, 5).T
    assert torch.allclose(ours(x), plain(x), atol=1e-5) and calls.count == 1


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_map_that_was_changed_is_torchs(monkeypatch, part):
    plain = some_map()
    ours, calls, x = CompiledLinear(plain), Calls(monkeypatch), torch.randn(3, 24)
    with torch.no_grad():
        getattr(plain, part).mul_(2)
    assert torch.equal(ours(x), plain(x)) and not calls.count


@pytest.mark.parametrize(
    "x",
    [torch.randn(257, 24), torch.randn(0, 24), torch.randn(3, 24, requires_grad=True)],
    ids=["many rows", "no row", "learning"],
)
def test_what_the_kernel_is_not_for_is_torchs(monkeypatch, x):
    plain = some_map()
    ours, calls = CompiledLinear(plain), Calls(monkeypatch)
    assert torch.equal(ours(x), plain(x)) and not calls.count
    assert ours(x).requires_grad == x.requires_grad


def test_double_precision_is_torchs():
    ours = compiled(nn.Sequential(some_map())).double()
    x = torch.randn(3, 24, dtype=torch.float64)
    assert torch.equal(ours(x), F.linear(x, ours[0].weight, ours[0].bias))


def test_every_map_of_a_module_and_nothing_else():
    shape = BlockShape(32, 4, 2, 8, 48)
    plain = Block(shape).requires_grad_(False)
    ours = compiled(copy.deepcopy(plain))
    assert {type(m) for m in ours.modules()} == {Block, nn.RMSNorm, CompiledLinear}
    assert ours.state_dict().keys() == plain.state_dict().keys()
    stores, x = (BlockStore(), BlockStore()), torch.randn(1, 5, 32)
    for rows in (x, torch.randn(1, 1, 32), torch.randn(1, 3, 32)):
        one, other = (m(rows, store=s) for m, s in zip((plain, ours), stores, strict=True))
        assert torch.allclose(one, other, atol=1e-5)
    twin = copy.deepcopy({"state": ours})["state"]
    assert twin.q is ours.q and torch.equal(twin(x), ours(x))


def test_without_a_kernel_nothing_changes(monkeypatch):
    monkeypatch.setattr(linear, "attempt", lambda: build.Unavailable("none"))
    assert type(compiled(nn.Sequential(some_map()))[0]) is nn.Linear


def test_an_attachment_is_filled_compiled():
    made = Attachment({}, {}).fill(nn.Sequential(nn.Linear(8, 8)), torch.zeros(1))
    assert type(made[0]) is CompiledLinear
    half = Attachment({}, {}).fill(nn.Sequential(nn.Linear(8, 8)), torch.zeros(1).bfloat16())
    assert type(half[0]) is nn.Linear


def test_the_output_head_can_be_learnt_through(loaded):
    model = loaded("llama")
    model.session()
    states = torch.randn(2, model.network.config.hidden_size, requires_grad=True)
    model.logits(states).sum().backward()
    assert states.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_the_output_head_beside_a_pass(loaded, shape):
    model = loaded("llama")
    states = torch.randn(*shape, model.network.config.hidden_size)
    model.session()
    with torch.inference_mode():
        wanted, found = model.anatomy.logits(states), model.logits(states)
    assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-4)


def test_the_output_head_follows_a_change(checkpoint):
    from workbench.models.load import load

    model = load(str(checkpoint("llama")))
    model.session()
    states = torch.randn(3, model.network.config.hidden_size)
    with torch.no_grad():
        model.logits(states)
        model.anatomy.head.weight.mul_(3)
        assert torch.allclose(model.logits(states), model.anatomy.logits(states), atol=1e-4)
