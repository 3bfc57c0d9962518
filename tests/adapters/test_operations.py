"""ComPEFT, Breadcrumbs and peft's merging: masks and scales by hand, and what is kept exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapters.conftest import attach, logits

from workbench.adapters.operations.breadcrumbs import crumbs
from workbench.adapters.operations.compeft import compress
from workbench.core.errors import BadInput, BadKnob, Mismatch
from workbench.core.method import make_method
from workbench.core.ternary import decode, encode, entropy_bits
from workbench.models.updates import deltas


@pytest.mark.parametrize("keep", [0.05, 0.1, 0.2, 0.3, 0.5])
def test_the_ternary_code_is_exact_and_near_its_bound(keep):
    rng = np.random.default_rng(3)
    signs = (rng.random(80_000) < keep) * rng.choice([-1, 1], 80_000)
    data = encode(signs.astype(np.int8), 0.25)
    found, scale = decode(data)
    assert np.array_equal(found, signs) and scale == 0.25
    bound = entropy_bits(len(signs), int(np.count_nonzero(signs))) / 8
    assert len(data) < 1.05 * bound


@pytest.mark.parametrize("signs", [[], [0, 0, 0], [1], [-1, -1], [0, 0, 0, 1]])
def test_small_ternary_vectors(signs):
    found, _ = decode(encode(np.array(signs, dtype=np.int8), 1.0))
    assert found.tolist() == signs


def test_damaged_bytes_are_refused():
    data = encode(np.array([0, 1, 0, -1] * 50, dtype=np.int8), 1.0)
    for wrong in (data[:3], data[:25]):
        with pytest.raises(BadInput, match="data"):
            decode(wrong)


def test_the_largest_entries_become_one_size():
    change = torch.tensor([0.1, -2.0, 0.5, 3.0, -0.2, 0.0, 1.0, -1.5, 0.3, 0.4])
    made, signs, scale = compress(change, 0.4, 1.5)
    assert signs.tolist() == [0, -1, 0, 1, 0, 0, 1, -1, 0, 0]
    assert scale == pytest.approx(1.5 * float(change.std()))
    assert torch.allclose(made, signs * scale)
    best = compress(change, 0.4, 0.0)[2]
    errors = {s: float((signs * s - change).norm()) for s in (best, 0.9 * best, 1.1 * best)}
    assert min(errors, key=errors.get) == best, "alpha 0 is the least-squares size"
    assert compress(torch.zeros(8), 0.5, 1.0)[0].count_nonzero() == 0


def test_compeft_of_an_adapter(adapters):
    attach(adapters, "a", r=2)
    tensors, start = adapters.state("a"), adapters.start("a")
    size = sum(value.numel() for value in tensors.values())
    facts = make_method("operation", "compeft", keep=0.3).combine(adapters, ["a"], "c")
    made = adapters.state("c")
    change = torch.cat([(made[k] - start[k]).flatten() for k in sorted(made)])
    was = torch.cat([(tensors[k] - start[k]).flatten() for k in sorted(made)])
    assert facts["kept"] == round(0.3 * size) == int((change.abs() > 1e-9).sum())
    kept = change.abs() > 1e-9
    assert torch.allclose(change[kept].abs(), torch.tensor(facts["scale"]).double(), atol=1e-6)
    assert torch.equal(change[kept].sign(), was[kept].sign())
    assert was[kept].abs().min() >= was[~kept].abs().max(), "one threshold for the whole adapter"
    assert facts["bytes"] < facts["bytes_fp16"] / 5


def test_measuring_from_the_start_loses_less(adapters):
    attach(adapters, "a", r=2)
    start = adapters.start("a")
    little = {key: start[key] + 0.1 * (v - start[key]) for key, v in adapters.state("a").items()}
    adapters.fill("a", little)
    errors = {}
    for from_start in (True, False):
        make_method("operation", "compeft", keep=0.2, from_start=from_start).combine(
            adapters, ["a"], "c"
        )
        made, wanted = deltas(adapters, "c"), deltas(adapters, "a")
        errors[from_start] = float(sum((made[p] - wanted[p]).square().sum() for p in wanted))
        adapters.detach("c")
    assert errors[True] < errors[False]


def test_an_untouched_adapter_compresses_to_the_base(adapters):
    base = logits(adapters)
    for method in ("lora", "ia3"):
        made = make_method("adapter", method, **({"r": 2} if method == "lora" else {}))
        adapters.attach(made.config(adapters.shapes), "a")
        make_method("operation", "compeft").combine(adapters, ["a"], "c")
        adapters.set_active(["c"])
        assert torch.allclose(logits(adapters), base, atol=1e-9)
        adapters.detach()


def test_ia3_is_compressed_around_one(adapters, tmp_path):
    attach(adapters, "i", "ia3")
    adapters.save("i", tmp_path / "i")
    adapters.detach()
    adapters.load(tmp_path / "i", "i")  # its start is not known any more
    assert adapters.start("i") == {}
    make_method("operation", "compeft", keep=0.1).combine(adapters, ["i"], "c")
    values = torch.cat([v.flatten() for v in adapters.state("c").values()])
    assert (values == 1).float().mean() == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("by_row", [False, True])
def test_crumbs_cut_both_tails(by_row):
    change = torch.randn(6, 50, generator=torch.Generator().manual_seed(2))
    mask = crumbs(change, 0.2, 0.04, by_row)
    rows = change.abs() if by_row else change.abs().reshape(1, -1)
    kept = mask if by_row else mask.reshape(1, -1)
    n = rows.shape[1]
    assert (kept.sum(1) == round(0.2 * n)).all()
    for row, mine in zip(rows, kept, strict=True):
        above = row[~mine][row[~mine] > row[mine].max()]
        assert len(above) == round(0.04 * n), "exactly the largest are cut"
        assert row[mine].min() >= row[~mine & (row < row[mine].max())].max()
    assert crumbs(change, 1.0, 0.0, by_row).all()
    assert not crumbs(change, 0.5, 0.0, by_row).all(), "remove = 0 keeps no empty mask"


def test_breadcrumbs_of_everything_is_the_sum(adapters):
    base = logits(adapters)
    attach(adapters, "a", r=2)
    one = logits(adapters)
    attach(adapters, "b", r=3, seed=1)
    both = logits(adapters)
    whole = {"keep": 1.0, "remove": 0.0, "alpha": 1.0}
    crumbled = make_method("operation", "breadcrumbs", **whole)
    crumbled.combine(adapters, ["a", "b"], "ab")
    crumbled.combine(adapters, ["b", "a"], "ba")
    crumbled.combine(adapters, ["a"], "aa")
    make_method("operation", "breadcrumbs", alpha=0.0).combine(adapters, ["a", "b"], "zero")
    for name, wanted in (("ab", both), ("ba", both), ("aa", one), ("zero", base)):
        adapters.set_active([name])
        assert torch.allclose(logits(adapters), wanted, atol=1e-5), name


def test_breadcrumbs_facts(adapters):
    attach(adapters, "a", r=2)
    attach(adapters, "b", "ia3", seed=1)
    facts = make_method("operation", "breadcrumbs", keep=0.25, remove=0.02).combine(
        adapters, ["a", "b"], "c"
    )
    assert 0 < facts["overlap"] < 1 and facts["error"] < 1e-6
    low = make_method("operation", "breadcrumbs", rank=2).combine(adapters, ["a", "b"], "d")
    assert low["error"] > 0.1 and adapters.config("d").r == 2
    with pytest.raises(BadKnob, match="more than everything"):
        make_method("operation", "breadcrumbs", keep=0.95, remove=0.1)


def test_linear_does_not_mean_averaging(adapters):
    attach(adapters, "a", r=2)
    attach(adapters, "b", r=2, seed=1)
    found = {}
    for way in ("cat", "svd", "linear", "ties"):
        merge = make_method("operation", "merge", way=way, weights="0.5, 0.7")
        found[way] = merge.combine(adapters, ["a", "b"], "ab")
        adapters.detach("ab")
    assert found["cat"]["error"] < 1e-6 and found["svd"]["error"] < 1e-5
    assert found["linear"]["error"] > 0.2
    assert "away from the weighted sum" in found["linear"]["warning"]
    assert "warning" not in found["cat"] and "warning" in found["ties"]


def test_merges_that_cannot_be(adapters):
    attach(adapters, "a", r=2)
    attach(adapters, "b", r=3, seed=1)
    with pytest.raises(Mismatch, match="same r"):
        make_method("operation", "merge", way="linear").combine(adapters, ["a", "b"], "ab")
    with pytest.raises(BadKnob, match="1 for 2 adapters"):
        make_method("operation", "merge", weights="1").combine(adapters, ["a", "b"], "ab")
    assert adapters.names == ("a", "b")
