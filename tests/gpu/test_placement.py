"""Draft and target on two devices, one of them only pretended: the same text, the bytes counted."""

from __future__ import annotations

import pytest
import torch

from workbench.core.decoding import Budget
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.drafters.fuse import Fuse
from workbench.drafters.online import Online
from workbench.drafters.rasd import Rasd
from workbench.engine.decode import Decoding, decode
from workbench.engine.schedules.pearl import Pearl
from workbench.testing.drafter_runs import Granted, emitted, toy_store

SMALL = {"num_hidden_layers": 1}
PROMPT = [1, 2, 3, 1, 2, 3, 1, 2]
GREEDY, HOT = Sampling(), Sampling(0.8, seed=3)
PLACES = ("draft on the CPU", "target on the CPU")
ID, SCORE, CHANCE, UNIFORM = 8, 4, 4, 8  # bytes: an int64, two float32, a float64


@pytest.fixture(scope="module")
def near(loaded):
    """A tiny target, and a draft that agrees with it on some tokens."""
    target = loaded("llama", **SMALL)
    draft = target.clone()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in draft.network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.03)
    return target, draft


def decoded(models, drafter, sampling, schedule=None, policy=None):
    """The rounds of a run; both models fresh."""
    target, draft = models
    verifier = make_method("verifier", "exact_match" if sampling.greedy else "multi_round")
    run = Decoding(
        target.session(),
        drafter,
        verifier,
        policy or Granted(Budget(3, 7, 3)),
        sampling,
        12,
        draft=draft.session(),
        store=toy_store(),
    )
    return list(schedule.decode(run, PROMPT) if schedule else decode(run, PROMPT))


def apart(near, elsewhere, place):
    """The same two models, one of them on the pretended device."""
    target, draft = near
    return (elsewhere(target), draft) if place == PLACES[0] else (target, elsewhere(draft))


def crossed(rounds) -> list[int]:
    return [done.report.get("transfer_bytes", 0) for done in rounds]


DRAFTERS = {
    "chain": make_method("drafter", "draft_model"),
    "siblings": make_method("drafter", "draft_model", siblings=3),
    "gumbel": make_method("drafter", "draft_tree"),
    "beam": make_method("drafter", "draft_tree", sampler="stochastic_beam"),
    "top and one": make_method("drafter", "draft_tree", sampler="greedy_top"),
    "independent": make_method("drafter", "draft_tree", sampler="independent"),
}


def uniforms_of(name: str, done, vocabulary: int) -> int:
    """How many a round's tree was drawn with."""
    last = max(done.depth, default=0)
    above = [0, *(depth for depth in done.depth if depth < last)]  # of the rows with children
    each = {"gumbel": vocabulary, "beam": vocabulary, "top and one": 1}
    if name in each:
        return each[name] * len(above)
    if name == "independent":
        return sum((3, 2, 1)[depth] for depth in above)
    return len(done.tokens)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sampling", [GREEDY, HOT], ids=["greedy", "hot"])
@pytest.mark.parametrize("name", DRAFTERS)
def test_the_text_is_that_of_one_device_and_the_bytes_are_those_of_the_shapes(
    near, elsewhere, name, sampling, place
):
    wanted = decoded(near, DRAFTERS[name], sampling)
    found = decoded(apart(near, elsewhere, place), DRAFTERS[name], sampling)
    same_text(found, wanted)
    assert any(done.path for done in found), "something drafted was kept"
    vocabulary, hot = near[0].vocab_size, not sampling.greedy
    for done in found:
        count = len(done.tokens)
        expected = count * (ID + SCORE + hot * CHANCE * vocabulary)
        if hot and place == PLACES[1] and count:
            expected += UNIFORM * uniforms_of(name, done, vocabulary)
        assert done.report.get("transfer_bytes", 0) == expected
        assert (done.report.get("transfer_ms", 0) > 0) == (expected > 0)
        assert done.report.get("transfer_ms", 0) <= done.ms.draft, "a copy is part of drafting"


def same_text(found, wanted) -> None:
    assert emitted(found) == emitted(wanted)
    assert [done.tokens for done in found] == [done.tokens for done in wanted]
    assert any(crossed(found))
    assert not any(crossed(wanted)), "on one device nothing crosses"
    assert not any("transfer_ms" in done.report for done in wanted)


MIXED = {
    "fuse": Fuse(),
    "rasd": Rasd(),
    "tree of fuse": Fuse(first="prompt_lookup", second=make_method("drafter", "draft_tree")),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sampling", [GREEDY, HOT], ids=["greedy", "hot"])
@pytest.mark.parametrize("name", MIXED)
def test_a_draft_model_among_other_drafters(near, elsewhere, name, sampling, place):
    wanted = decoded(near, MIXED[name], sampling)
    found = decoded(apart(near, elsewhere, place), MIXED[name], sampling)
    same_text(found, wanted)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["fixed", "confidence", "entropy", "heuristic", "specdec_pp"])
def test_policies_that_look_at_the_draft(near, elsewhere, name, place):
    options = {"heads": "untrained"} if name == "specdec_pp" else {}
    policy = make_method("policy", name, **options)
    wanted = decoded(near, DRAFTERS["siblings"], HOT, policy=policy)
    found = decoded(apart(near, elsewhere, place), DRAFTERS["siblings"], HOT, policy=policy)
    same_text(found, wanted)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sampling", [GREEDY, HOT], ids=["greedy", "hot"])
def test_pearl_carries_only_what_is_tested(near, elsewhere, sampling, place):
    schedule = Pearl(clock="simulated", window=3)
    wanted = decoded(near, DRAFTERS["chain"], sampling, schedule)
    found = decoded(apart(near, elsewhere, place), DRAFTERS["chain"], sampling, schedule)
    assert emitted(found) == emitted(wanted)
    assert not any(crossed(wanted))
    each = ID + (not sampling.greedy) * CHANCE * near[0].vocab_size
    assert crossed(found) == [each * len(done.tokens) for done in found]


def test_pearl_with_both_at_work_at_once(near, elsewhere):
    """The pretended device is one thread's, so only the target can be on it here."""
    schedule = Pearl(window=3)
    wanted = decoded(near, DRAFTERS["chain"], HOT, schedule)
    found = decoded(apart(near, elsewhere, PLACES[0]), DRAFTERS["chain"], HOT, schedule)
    assert emitted(found) == emitted(wanted)
    assert all(crossed(found)[:-1])


def test_what_a_draft_learns_from_crosses_to_it(near, elsewhere):
    drafter = Online(every=4, rate=1e-3, positions="all")
    wanted = decoded(near, drafter, HOT)
    found = decoded(apart(near, elsewhere, PLACES[0]), drafter, HOT)
    assert emitted(found) == emitted(wanted)
    vocabulary, before, studied = near[0].vocab_size, 0, 0
    for done in found:
        told = done.report["online"]
        drawn = len(done.tokens) * (ID + SCORE + CHANCE * vocabulary)
        learnt = (told["taught"] - before) * CHANCE * vocabulary
        assert done.report.get("transfer_bytes", 0) == drawn + learnt
        before, studied = told["taught"], studied + (told["loss"] is not None)
    assert studied


def test_a_draft_on_the_same_device_adds_no_wait(near, elsewhere, pretending):
    """Both on the pretended device: what is carried nowhere is neither copied nor timed."""
    target, draft = near
    found = decoded((elsewhere(target), elsewhere(draft)), DRAFTERS["siblings"], HOT)
    assert not any(crossed(found))
    assert not any("tensor.to(device" in line for line in pretending.reads + pretending.uploads)
