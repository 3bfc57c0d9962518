"""Draft and target on the CPU and a real GPU: what tests/gpu/test_placement.py can only pretend.

``python -m pytest tests/gpu/test_cuda_placement.py -q -s`` prints what the copies took.
"""

from __future__ import annotations

import pytest
import torch

from workbench.core.sampling import Sampling
from workbench.engine.run import RunSettings, generate
from workbench.models.devices import device_names, device_of
from workbench.models.load import load

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="no CUDA device here; tests/gpu/test_placement.py runs all but the copy itself",
)

PROMPT, TOKENS = "def add(a, b):\n", 48
PLACES = [("cuda:0", "cpu"), ("cpu", "cuda:0")]
SAMPLINGS = [Sampling(), Sampling(0.8, seed=3)]


@pytest.fixture(scope="module")
def pairs():
    """The embedded target and draft on every device."""
    names = device_names()
    return {
        name: (load("zoo:target", device=name, dtype="float32"),
               load("zoo:draft", device=name, dtype="float32"))
        for name in names
    }  # fmt: skip


def traced(pairs, target, draft, drafter, sampling, schedule="sequential"):
    verifier = "exact_match" if sampling.greedy else "multi_round"
    settings = RunSettings(
        pairs[target][0], PROMPT, drafter, verifier, sampling=sampling, max_new_tokens=TOKENS,
        draft_model=pairs[draft][1], schedule=schedule,
    )  # fmt: skip
    return generate(settings)


@pytest.mark.parametrize(("target", "draft"), PLACES)
@pytest.mark.parametrize("drafter", ["draft_model", "draft_tree", "fuse"])
def test_greedy_text_is_that_of_one_device(pairs, drafter, target, draft):
    found = traced(pairs, target, draft, drafter, SAMPLINGS[0])
    assert found.new_tokens == traced(pairs, target, target, "none", SAMPLINGS[0]).new_tokens
    assert found.transfer is not None


@pytest.mark.parametrize(("target", "draft"), PLACES)
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "hot"])
def test_the_bytes_of_a_chain_are_those_of_the_shapes(pairs, sampling, target, draft):
    trace = traced(pairs, target, draft, "draft_model", sampling)
    print(f"\n{target} with a draft on {draft}, T={sampling.temperature}: {trace.transfer}")
    each = 8 + 4 + (0 if sampling.greedy else 4 * trace.vocab_size)
    each += 8 if not sampling.greedy and draft != "cpu" else 0
    for done in trace.rounds:
        assert done.report.get("transfer_bytes", 0) == each * len(done.tokens)
        if done.tokens:
            assert 0 < done.report["transfer_ms"] < 1000


@pytest.mark.parametrize("place", ["cpu", "cuda:0"])
def test_on_one_device_nothing_crosses(pairs, place):
    assert traced(pairs, place, place, "draft_model", SAMPLINGS[1]).transfer is None


@pytest.mark.parametrize(("target", "draft"), PLACES)
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "hot"])
def test_both_at_work_at_once(pairs, sampling, target, draft):
    trace = traced(pairs, target, draft, "draft_model", sampling, "pearl")
    assert trace.transfer is not None
    if sampling.greedy:
        plain = traced(pairs, target, target, "none", sampling)
        assert trace.new_tokens == plain.new_tokens
    target_ms = [lane.end_ms - lane.start_ms for done in trace.rounds for lane in done.lanes
                 if lane.lane == "target"]  # fmt: skip
    assert all(ms > 0 for ms in target_ms)


def test_a_device_without_a_number_is_the_current_one():
    assert device_of("cuda") == torch.device("cuda", torch.cuda.current_device())
    assert device_of(None).type == "cuda"


@pytest.mark.skipif(
    torch.cuda.device_count() < 2,
    reason="one CUDA device or none here; a copy between two GPUs was never run",
)
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "hot"])
def test_a_gpu_each(pairs, sampling):
    trace = traced(pairs, "cuda:0", "cuda:1", "draft_model", sampling)
    assert trace.transfer is not None
    assert 0 < trace.transfer.ms < trace.total_ms
