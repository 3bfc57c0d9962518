"""What crosses between devices is counted; what is there already is not touched."""

from __future__ import annotations

import torch

from workbench.core.clock import elapsed_ms, now
from workbench.core.decoding import Context
from workbench.core.sampling import Sampling
from workbench.core.transfer import Crossings

CPU, SHAPES = torch.device("cpu"), torch.device("meta")  # a second device, without numbers


def test_a_tensor_that_is_there_is_handed_back():
    crossings, tensor = Crossings(), torch.ones(3)
    assert crossings.carried(tensor, CPU) is tensor
    assert crossings.take() == {}


def test_bytes_are_those_of_shape_and_type_and_are_told_once():
    crossings = Crossings()
    for tensor in (torch.ones(3, 5), torch.ones(4, dtype=torch.long), torch.ones(2).double()):
        assert crossings.carried(tensor, SHAPES).device == SHAPES
    told = crossings.take()
    assert told["transfer_bytes"] == 3 * 5 * 4 + 4 * 8 + 2 * 8
    assert told["transfer_ms"] > 0
    assert crossings.take() == {}


def test_a_round_tells_it_among_the_reports():
    rng = torch.Generator().manual_seed(0)
    ctx = Context([1], Sampling(), rng, 4, SHAPES)
    ctx.report("kept", 1)
    ctx.here(torch.ones(2, 4))
    told, _ = ctx.take_reports()
    assert told.keys() == {"kept", "transfer_ms", "transfer_bytes"}
    assert told["transfer_bytes"] == 32
    assert ctx.take_reports() == ({}, "")


def test_uniforms_for_a_draft_beside_the_generator_cross_nothing():
    numbers = [
        Context([1], Sampling(), torch.Generator().manual_seed(7), 4, place).uniform(3, device=CPU)
        for place in (CPU, SHAPES)
    ]
    assert torch.equal(*numbers)
    ctx = Context([1], Sampling(), torch.Generator().manual_seed(7), 4, SHAPES)
    ctx.uniform(3)
    assert ctx.take_reports() == ({}, ""), "sent to the target's own device, as ever"
    ctx = Context([1], Sampling(), torch.Generator().manual_seed(7), 4, CPU)
    assert ctx.uniform(3, device=SHAPES).device == SHAPES
    assert ctx.take_reports()[0]["transfer_bytes"] == 24


def test_a_mark_is_set_on_the_stream_of_its_own_device(monkeypatch):
    """Not on that of the device that happens to be current, where another model runs."""
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            said.append(stream)

        def synchronize(self):
            said.append("waited")

        def elapsed_time(self, other):
            return 2.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    marks = [now(torch.device("cuda:1")) for _ in range(2)]
    assert said == ["stream of cuda:1"] * 2, "marking waits for nothing"
    assert elapsed_ms(*marks) == 2.5
    assert said[-1] == "waited"
