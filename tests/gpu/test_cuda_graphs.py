"""Recorded passes on a real GPU: everything that a CPU can only stand in for.

``python -m pytest tests/gpu/test_cuda_graphs.py -q -s`` is the whole check and prints its figures;
``GPU_PARAMETERS=7B`` measures the share of the bandwidth at that size, which takes 14 GB.
"""

from __future__ import annotations

import copy
import os
import statistics
from collections.abc import Callable

import pytest
import torch

from workbench.engine.run import RunSettings, generate
from workbench.models import agreement, recording, walk
from workbench.models.load import load

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="no CUDA device here; tests/models/test_graphs.py runs all but the graph itself",
)

PARENT = (-1, 0, 0, 1, 2, 1, 4, 3)
DENSE = ("llama", "mistral", "qwen2", "qwen3")
PASSES, ROUNDS = 20, 7


def on_gpu(checkpoint, family: str, dtype: torch.dtype = torch.float32, **changes):
    name = str(dtype).removeprefix("torch.")
    return load(str(checkpoint(family, dtype=dtype, **changes)), device="cuda", dtype=name)


def walked(model):
    """The same weights without recordings."""
    other = copy.copy(model)
    other.__dict__["graphs"] = None
    return other


def tokens_of(n: int, seed: int) -> list[int]:
    return torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", DENSE)
def test_graphs_are_captured_and_agree(checkpoint, family, dtype):
    model = on_gpu(checkpoint, family, dtype)
    assert model.mode == "fused", model.reason
    assert model.graphs.refused == ""
    ours, theirs = model.session(), walked(model).session()
    for session in (ours, theirs):
        session.sync(tokens_of(20, 1))
    for round_ in range(12):  # over the growth of a cache, and every kind of bucket
        n = (8, 1, 3, 16, 30, 64)[round_ % 6]
        parent = PARENT if n == 8 else None
        rows, taps = tokens_of(n, round_), ("1", "final")
        got = ours.forward(rows, parent, capture=taps)
        wanted = theirs.forward(rows, parent, capture=taps)
        limit = agreement.limit(dtype)
        assert agreement.deviation(got.logits, wanted.logits) <= limit
        assert all(agreement.deviation(got.hidden[t], wanted.hidden[t]) <= limit for t in taps)
        kept = [0, 2, 4] if parent else range(min(n, 5))
        ours.commit(kept)
        theirs.commit(kept)
        if round_ == 5:
            for session in (ours, theirs):
                session._cache.reserve(900)
    assert model.graphs.ready(1), model.graphs.refused or model.graphs.reason
    assert ours._cache.recorded.passes


@pytest.mark.parametrize("drafter", ["none", "token_recycling", "prompt_lookup"])
def test_greedy_text_is_the_walks(checkpoint, drafter):
    model = on_gpu(checkpoint, "llama")
    settings = RunSettings(model, "one two one two one t", drafter, max_new_tokens=60)
    assert (
        generate(settings).new_tokens == generate(settings.change(model=walked(model))).new_tokens
    )
    assert not model.graphs.refused


def test_a_pass_that_waits_is_refused_and_walked(checkpoint, monkeypatch):
    """As experts do that are gathered by number: seen before the capture, which stays whole."""
    model = on_gpu(checkpoint, "llama")
    honest = walk._rms_norm
    wanted = walked(model).session().forward([1, 2]).logits
    monkeypatch.setattr(
        walk, "_rms_norm", lambda norm, x: honest(norm, x) * (1 if x.abs().sum().item() > 0 else 2)
    )
    session = model.session()
    session.sync([5])
    session.forward([1, 2])
    assert "cannot be recorded" in model.graphs.refused
    got = model.session().forward([1, 2]).logits
    assert agreement.deviation(got, wanted) <= agreement.limit(torch.float32)
    torch.cuda.synchronize()


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_a_mixture_decodes_recorded_or_not(checkpoint, family):
    model = on_gpu(checkpoint, family)
    print(f"\n{family}: {model.graphs.refused or 'recorded'}")
    settings = RunSettings(model, "one two one two", "token_recycling", max_new_tokens=30)
    assert (
        generate(settings).new_tokens == generate(settings.change(model=walked(model))).new_tokens
    )


def test_a_replay_waits_for_nothing(checkpoint):
    """From the tokens of a tree on the device to its logits, as the driver itself sees it."""
    model = on_gpu(checkpoint, "llama")
    session = model.session()
    session.sync(tokens_of(20, 1))
    rows = torch.tensor(tokens_of(8, 2), device="cuda")
    for _ in range(2):
        session.forward(rows, PARENT)
    assert recording.waits(lambda: rows[0].item())
    assert not recording.waits(lambda: session.forward(rows, PARENT))


def passes_ms(call: Callable[[], object]) -> float:
    """Milliseconds of one call, by the device's own clock."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(PASSES):
        call()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / PASSES


def copied_bytes_per_ms() -> float:
    """What a copy of a gigabyte reads and writes in a millisecond."""
    source = torch.empty(1 << 29, dtype=torch.bfloat16, device="cuda")
    to = torch.empty_like(source)
    to.copy_(source)
    return (
        2 * source.nbytes / statistics.median(passes_ms(lambda: to.copy_(source)) for _ in range(5))
    )


@pytest.fixture(scope="module")
def inflated(tmp_path_factory):
    """The embedded target at a large model's size (``workbench zoo inflate``)."""
    from workbench.zoo.inflate import SIZES, inflate, read_source

    folder, size = tmp_path_factory.mktemp("inflated"), os.environ.get("GPU_PARAMETERS", "1B")
    inflate(read_source("zoo:target"), SIZES[size], folder / size, dtype="bfloat16")
    return load(str(folder / size), device="cuda", dtype="bfloat16")


def test_the_share_of_the_bandwidth(inflated):
    """Figures for docs/decisions/011: recorded against walked, interleaved, and of the memory."""
    model, plain = inflated, walked(inflated)
    assert not model.graphs.refused, model.graphs.refused
    read = sum(p.nbytes for p in model.network.parameters()) - model.anatomy.embed.weight.nbytes
    memory = copied_bytes_per_ms()
    print(
        f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, {model.parameters:,} weights"
    )
    print(f"a copy moves {memory / 1e6:.0f} GB/s")
    for n in (1, 8, 16, 64):
        rows = torch.tensor(tokens_of(n, n), device="cuda")
        sessions = model.session(), plain.session()
        for session in sessions:
            session.sync(tokens_of(200, 3))
            session.forward(rows)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for session, taken in zip(sessions, times, strict=True):
                taken.append(passes_ms(lambda session=session, rows=rows: session.forward(rows)))
        ours, theirs = map(statistics.median, times)
        print(
            f"{n} rows: recorded {ours:.3f} ms, walked {theirs:.3f} ms, {theirs / ours:.2f} times"
            f" as fast, {read / ours / memory:.0%} of the copy bandwidth"
        )
        assert ours < theirs


def test_plain_and_tree_decoding_together(inflated):
    """Whole rounds: plain decoding and trees, recorded and walked, one after another."""
    models = (("recorded", inflated), ("walked", walked(inflated)))
    for drafter in ("none", "token_recycling"):
        for name, model in models:
            settings = RunSettings(model, "def read(path):\n", drafter, max_new_tokens=128)
            generate(settings.change(max_new_tokens=16))  # whatever is made at first use
            told = generate(settings).summary
            print(
                f"\n{drafter}, {name}: {told['tokens_per_s']:.1f} tokens/s,"
                f" {told['mean_emitted']:.2f} a round, {told['outside_forward_ratio']:.0%} outside"
            )
        assert not inflated.graphs.refused, inflated.graphs.refused
