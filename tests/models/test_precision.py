"""Half precision is widened only where it is slower here, and says so."""

from __future__ import annotations

import pytest
import torch

from workbench.models import precision
from workbench.models.load import load


@pytest.fixture
def half(checkpoint):
    return checkpoint("llama", dtype=torch.bfloat16)


def measured(monkeypatch, half_ms: float, wide_ms: float) -> None:
    monkeypatch.setattr(precision, "product_times_ms", lambda network: (half_ms, wide_ms))


def test_slow_half_precision_is_widened_without_a_change(half, monkeypatch):
    measured(monkeypatch, 5.0, 1.0)
    model, kept = load(str(half)), load(str(half), dtype="bfloat16")
    assert (model.dtype, kept.dtype) == ("float32", "bfloat16")
    assert "1 ms against 5 ms" in model.precision and "dtype='bfloat16'" in model.precision
    assert kept.precision == ""
    for name, weight in kept.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], weight.float()), name
    assert model.network.get_output_embeddings().weight.dtype == torch.float32


def test_quick_half_precision_stays(half, monkeypatch):
    measured(monkeypatch, 1.0, 1.05)
    assert load(str(half)).dtype == "float32", "not worth the compiled pass"
    measured(monkeypatch, 1.0, 2.0)
    model = load(str(half))
    assert (model.dtype, model.precision) == ("bfloat16", "")


def test_what_does_not_fit_stays(half, monkeypatch):
    measured(monkeypatch, 5.0, 1.0)
    monkeypatch.setattr(precision, "free_bytes", lambda: 1000)
    assert load(str(half)).dtype == "bfloat16"


def test_quantised_weights_are_left_alone(half):
    network = load(str(half), dtype="bfloat16").network
    whole = torch.zeros(3, dtype=torch.int8)
    network.register_parameter("codes", torch.nn.Parameter(whole, requires_grad=False))
    assert precision.widened(network) == ""
    assert network.dtype == torch.bfloat16


def test_float32_is_left_alone(checkpoint, monkeypatch):
    measured(monkeypatch, 5.0, 1.0)
    model = load(str(checkpoint("llama")))
    assert (model.dtype, model.precision) == ("float32", "")


def test_the_measurement_is_one(half):
    network = load(str(half), dtype="bfloat16").network
    half_ms, wide_ms = precision.product_times_ms(network)
    assert 0 < half_ms < 1e3 and 0 < wide_ms < 1e3


def test_generate_says_so(half, monkeypatch, run):
    measured(monkeypatch, 5.0, 1.0)
    code, _, said = run("generate", "abc", "--model", str(half), "--max-new-tokens", "2")
    assert code == 0 and "run in float32" in said
