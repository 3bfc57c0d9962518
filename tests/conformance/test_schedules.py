"""Every schedule gives the target's own text and law; stepping, stopping and seeds work alike."""

from __future__ import annotations

import pytest
import torch

from workbench.core.method import make_method, methods
from workbench.core.sampling import Sampling
from workbench.engine.decode import Decoding
from workbench.testing import oracles
from workbench.testing.draft_checks import check_counts
from workbench.testing.drafter_runs import PROMPT, Granted, emitted, timeless
from workbench.testing.toy_models import ToyModel
from workbench.testing.variants import name_of, variants

SCHEDULES = [s for card in methods("schedule") for s in variants(card)]
each = pytest.mark.parametrize("schedule", SCHEDULES, ids=name_of)
TARGET, DRAFT = ToyModel.random(3, seed=1, scale=0.7), ToyModel.random(3, seed=2, scale=0.7)


def decoding(
    schedule, sampling, tokens, target=TARGET, draft=DRAFT, verifier="multi_round", **more
):
    return Decoding(
        target.session(),
        make_method("drafter", "draft_model"),
        make_method("verifier", verifier),
        Granted(),
        sampling,
        tokens,
        draft=DRAFT.session(),
        **more,
    )


def rounds_of(schedule, *args, **more):
    return list(schedule.decode(decoding(schedule, *args, **more), PROMPT))


@pytest.mark.parametrize("verifier", ["exact_match", "rejection", "multi_round", "block"])
@each
def test_greedy_text_is_the_targets(schedule, verifier):
    wanted = oracles.plain_greedy(TARGET.rule, PROMPT, 40)
    rounds = rounds_of(schedule, Sampling(0.0), 40, verifier=verifier)
    assert emitted(rounds) == wanted


@pytest.mark.parametrize("verifier", ["exact_match", "rejection", "block"])
@each
def test_long_runs_have_the_targets_law(schedule, verifier):
    sampling = Sampling(0.9, seed=4)
    text = [*PROMPT, *emitted(rounds_of(schedule, sampling, 500, verifier=verifier))]
    laws = torch.stack([TARGET.rule(text[: place + 1]) for place in range(len(text))])
    check_counts(sampling.law(laws), text, len(PROMPT))
    # pairs too: a token that was tested against the wrong prefix shows here
    seen: dict[tuple, list[int]] = {}
    for place in range(len(PROMPT), len(text)):
        key = (place % 2, text[place - 2], text[place - 1])
        seen.setdefault(key, [0, 0, 0])[text[place]] += 1
    total, freedom = 0.0, 0
    for (parity, *last), counts in seen.items():
        law = sampling.law(TARGET.rule([0] * parity + [0, 0, *last])).tolist()
        g, free = oracles.g_statistic(counts, [sum(counts) * x for x in law])
        total, freedom = total + g, freedom + free
    assert total < oracles.g_limit(freedom)


@each
def test_first_tokens_have_the_targets_law(schedule):
    """Law of the first three tokens from many seeds (each run is one draw), to 5 sigma."""
    sampling, draws = Sampling(1.0), 700
    counts = torch.zeros(3, 3, 3, dtype=torch.double)
    for seed in range(draws):
        rounds = rounds_of(schedule, Sampling(1.0, seed=seed), 3)
        counts[tuple(emitted(rounds))] += 1

    @oracles.remembered
    def law_of(new: tuple[int, ...]) -> torch.Tensor:
        return sampling.law(TARGET.rule([*PROMPT, *new]))

    wanted = oracles.joint_law(law_of, 3)
    sigma = (wanted * (1 - wanted) / draws).sqrt()
    assert bool(((counts / draws - wanted).abs() <= 5 * sigma).all())


@each
def test_one_seed_one_run(schedule):
    if getattr(schedule, "window", None) == 0:
        pytest.skip("its blocks follow measured times, so no seed fixes them; its law is tested")
    runs = [rounds_of(schedule, Sampling(1.0, seed=seed), 60) for seed in (3, 3, 4)]
    without = [[{**row, "lanes": 0, "report": 0} for row in timeless(run)] for run in runs]
    assert without[0] == without[1]
    assert emitted(runs[0]) != emitted(runs[2])


@each
def test_lengths_are_exact_and_eos_ends(schedule):
    for tokens in (1, 2, 3, 7, 20):
        assert len(emitted(rounds_of(schedule, Sampling(0.0), tokens))) == tokens
    wanted = oracles.plain_greedy(TARGET.rule, PROMPT, 40)
    eos = wanted[9]
    run = decoding(schedule, Sampling(0.0), 40, eos_ids=frozenset({eos}))
    got = emitted(list(schedule.decode(run, PROMPT)))
    assert got == wanted[: wanted.index(eos) + 1] and run.finish == "eos"


@each
def test_closing_leaves_the_session_at_the_text(schedule):
    run = decoding(schedule, Sampling(1.0, seed=2), 60)
    steps, text = schedule.decode(run, PROMPT), list(PROMPT)
    for _ in range(4):
        text += next(steps).emitted
    steps.close()
    assert run.target.tokens == text[: len(run.target.tokens)]
    assert len(text) - len(run.target.tokens) == 1
