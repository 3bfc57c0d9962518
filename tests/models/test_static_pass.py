"""The static pass on a GPU that is not there: fake tensors refuse whatever would wait for one.

A fake tensor has a shape and a device but no numbers, so reading one, a shape that depends on one
and tensors of two devices in one operation all raise.
"""

from __future__ import annotations

import pytest
import torch
from gpu.pretend import ELSEWHERE
from torch._subclasses.fake_tensor import FakeTensorMode

from workbench.models import walk
from workbench.models.anatomy import anatomy_of
from workbench.models.cache import KeyValueCache
from workbench.models.graphs import _Kept, _Recorded
from workbench.models.recording import CalledAgain
from workbench.models.rows import Rows
from workbench.models.static_pass import ROWS, Bucket, StaticPass
from workbench.testing.checkpoints import tiny_config

# A torch built without CUDA cannot index even a fake tensor there.
GPU = torch.device("cuda:0") if torch.backends.cuda.is_built() else ELSEWHERE
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def on_fake_gpu(family: str, dtype: torch.dtype):
    """A network of the family whose weights are shapes on a GPU; inside a fake tensor mode."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_config(tiny_config(family)).eval()
    for module in network.modules():
        for held in (module._parameters, module._buffers):
            for name, x in held.items():
                if x is not None:
                    held[name] = torch.empty_like(x, device=GPU, dtype=dtype).requires_grad_(False)
    return network


def replayed(family: str, n: int, dtype: torch.dtype = torch.float32, tree: bool = True):
    """Fill, run and replay a bucket for ``n`` rows, all on a fake GPU; what came out."""
    past, taps = 150, ("1", "final")
    with torch.no_grad(), FakeTensorMode():
        network = on_fake_gpu(family, dtype)
        anatomy = anatomy_of(network)
        with GPU:
            cache = KeyValueCache(len(anatomy.layers), 512)
            size, heads = anatomy.layers[0].self_attn.head_dim, network.config.num_key_value_heads
            for layer in cache.layers:
                layer.update(*torch.zeros(2, 1, heads, past, size, dtype=dtype))
            depth = torch.zeros(n, dtype=torch.long) if tree else None
            block = torch.zeros(n, n, dtype=dtype) if tree else None
            rows = Rows(torch.zeros(n, dtype=torch.long), past, past, depth, block, None, dtype)
            bucket = Bucket.of(n, past, cache.capacity, taps)
            static = StaticPass(walk.FusedWalk(anatomy), bucket, _Kept(cache, None), dtype)
            static.fill(rows)
            recorded = _Recorded(static, CalledAgain(static.run))
            outputs = recorded.replayed(rows)
            return bucket, outputs, anatomy.logits(outputs[0])


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_waits_for_the_device(family, tree):
    bucket, outputs, logits = replayed(family, 5, tree=tree)
    assert bucket == Bucket(8, 256, ("1", "final"))
    assert [tuple(states.shape) for states in outputs] == [(5, 64)] * 3
    assert all(states.device == GPU for states in (*outputs, logits))


@pytest.mark.parametrize("n", sorted({1, *(rows + 1 for rows in ROWS[:-1]), ROWS[-1]}))
def test_every_bucket_in_half_precision(n):
    bucket, outputs, _ = replayed("llama", n, torch.bfloat16)
    assert bucket.rows in ROWS
    assert len(outputs[0]) == n


SABOTEURS = {
    "a number read": (lambda x: x * (1 if x.abs().max().item() > 0 else 2), "_local_scalar_dense"),
    "a question asked": (lambda x: x if (x > 0).all() else -x, "_local_scalar_dense"),
    "a list made": (lambda x: x + len(x[0].tolist()), "_local_scalar_dense"),
    "a shape that depends on numbers": (lambda x: x[(x[:, 0] > 0)].sum() + x, "nonzero"),
    "a tensor of the host": (lambda x: x + torch.ones(x.shape[-1], device="cpu"), "same device"),
}


@pytest.mark.parametrize("saboteur", SABOTEURS)
def test_whatever_would_wait_is_seen(monkeypatch, saboteur):
    honest = walk._rms_norm
    spoilt, said = SABOTEURS[saboteur]
    monkeypatch.setattr(walk, "_rms_norm", lambda norm, x: spoilt(honest(norm, x)))
    with pytest.raises(Exception) as raised:  # each has an error of its own in torch
        replayed("llama", 5)
    assert said in repr(raised.value)
