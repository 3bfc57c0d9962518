"""Online training of the draft: exact whatever the weights, and better where it should be."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.core.errors import BadKnob, Mismatch
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.engine.decode import Decoding, decode
from workbench.engine.run import Run, RunSettings, generate
from workbench.models.learner import Learner, Lesson
from workbench.models.load import load
from workbench.testing.drafter_runs import Granted, emitted, run_rounds, timeless
from workbench.testing.tiny_network import tiny_network
from workbench.verifiers.rejection import Rejection
from workbench.zoo.held_out import prompts

VOCABULARY = 16


def stream(drafter, texts, *, sampling=None, tokens=48, target=None, draft=None):
    """Decode one text after the other, each run going on from the last; rounds of each."""
    carried, found = None, []
    for number, text in enumerate(texts):
        run = Decoding(
            target.session(),
            drafter,
            Rejection(),
            Granted(),
            sampling or Sampling(1.0, seed=number),
            tokens,
            draft=draft.session(),
            carried=carried,
        )
        found.append(list(decode(run, list(text))))
        carried = run.drafting
    return found, carried


def texts_of(count: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (count, 6), generator=generator).tolist()


def overlap_on(model, target, texts) -> float:
    """Mean of sum_x min(p, q) over fresh texts: what rejection sampling would accept."""
    shares = []
    for text in texts:
        p, q = (m.session().forward(text).logits.softmax(-1) for m in (target, model))
        shares.append(float(torch.minimum(p, q).sum(-1).mean()))
    return sum(shares) / len(shares)


def fresh_texts(target, count=8):
    return [
        [*text, *emitted(rounds)]
        for text, rounds in zip(
            texts_of(count, seed=99),
            stream(
                make_method("drafter", "draft_model"),
                texts_of(count, seed=99),
                target=target,
                draft=target,
            )[0],
            strict=True,
        )
    ]


@pytest.fixture(scope="module")
def pair():
    """Weights this large make the target's law depend on its context, so there is much to learn."""
    return tiny_network(VOCABULARY, layers=2, seed=1, std=1.0), tiny_network(
        VOCABULARY, layers=2, seed=2
    )


@pytest.fixture(scope="module")
def zoo():
    return load("zoo:target", device="cpu"), load("zoo:draft", device="cpu")


def test_greedy_text_is_the_targets_during_the_whole_stream(zoo):
    target, draft = zoo
    before, carried = draft.fingerprint, None
    for prompt in prompts()[:3]:
        settings = RunSettings(
            target,
            prompt.text,
            make_method("drafter", "online", every=4),
            max_new_tokens=32,
            draft_model=draft,
            carried=carried,
        )
        run = Run(settings)
        rounds = list(run.rounds())
        plain = generate(settings.change(drafter="none", carried=None))
        assert emitted(rounds) == plain.new_tokens
        carried = run.drafting
    assert carried.learner.updates >= 3, "nothing was learnt: the check reached nothing"
    assert carried.learner.model.fingerprint != before
    del draft.fingerprint  # cached: have it computed from the weights of now
    assert draft.fingerprint == before, "the user's own draft was changed"


def test_a_rate_of_zero_is_the_frozen_draft(pair):
    target, draft = pair
    runs = [
        run_rounds(target, drafter, Rejection(), draft=draft, sampling=Sampling(1.0, seed=4))
        for drafter in (
            make_method("drafter", "draft_model"),
            make_method("drafter", "online", rate=0.0),
        )
    ]
    plain, online = ([{**row, "report": None} for row in timeless(rounds)] for rounds in runs)
    assert plain == online


def test_one_text_again_and_again_is_learnt_and_another_domain_lowers_it(zoo):
    target, draft = zoo
    drafter, carried = make_method("drafter", "online", every=4, rate=2e-3), None
    kept: list[float] = []
    for text in [prompts()[0].text] * 12 + [prompts()[9].text] * 10:
        run = Run(
            RunSettings(
                target, text, drafter, max_new_tokens=32, draft_model=draft, carried=carried
            )
        )
        rounds, carried = list(run.rounds()), run.drafting
        tested = sum(min(r.accepted + 1, max(r.depth)) for r in rounds if r.tokens)
        kept.append(sum(r.accepted for r in rounds) / tested)
    assert min(kept[10:12]) > 0.95 > kept[0], kept
    assert kept[12] < kept[11] - 0.1, kept
    assert kept[-1] > kept[12] + 0.1, kept


def at_speed(positions: str):
    return make_method("drafter", "online", rate=1e-2, every=32, positions=positions)


@pytest.fixture(scope="module")
def learnt(pair):
    """What is left after 40 texts whose every position taught."""
    target, draft = pair
    return stream(at_speed("all"), texts_of(40), target=target, draft=draft)[1]


def test_a_random_draft_learns_the_target_but_not_from_shuffled_laws(pair, learnt, monkeypatch):
    target, draft = pair
    texts, fresh = texts_of(40), fresh_texts(target)
    before = overlap_on(draft, target, fresh)
    after = overlap_on(learnt.learner.model, target, fresh)
    study, generator = Learner.study, torch.Generator().manual_seed(0)

    def shuffled(self, lessons, rate):
        mixed = []
        for one in lessons:
            order = torch.randperm(len(one.places), generator=generator)
            mixed.append(Lesson(one.tokens, one.places, one.logits[order]))
        return study(self, mixed, rate)

    monkeypatch.setattr(Learner, "study", shuffled)
    _, fooled = stream(at_speed("all"), texts, target=target, draft=draft)
    control = overlap_on(fooled.learner.model, target, fresh)
    assert after > before + 0.2
    assert control < before + 0.2 and control < after - 0.2, (before, after, control)


def test_corrections_alone_teach_about_as_much_from_fewer_places(pair, learnt):
    target, draft = pair
    _, corrected = stream(at_speed("wrong"), texts_of(40), target=target, draft=draft)
    fresh, found = fresh_texts(target), {}
    for positions, state in (("wrong", corrected), ("all", learnt)):
        found[positions] = state.taught, overlap_on(state.learner.model, target, fresh)
    assert found["wrong"][0] < 0.7 * found["all"][0]
    assert found["wrong"][1] > found["all"][1] - 0.1


def test_places_are_those_that_were_corrected(pair):
    """Each place noted is one before the bonus of a round that refused a draft."""
    target, draft = pair
    for positions in ("wrong", "after", "all"):
        drafter = make_method("drafter", "online", every=512, positions=positions)
        (rounds,), state = stream(drafter, [[1, 2, 3, 4]], target=target, draft=draft)
        text = [1, 2, 3, 4, *emitted(rounds)]
        refused = [r.accepted < max(r.depth, default=0) for r in rounds]
        if positions == "wrong":
            wanted = [r.start + r.accepted - 1 for r, no in zip(rounds, refused, strict=True) if no]
        elif positions == "after":
            wanted = [r.start - 1 for r, no in zip(rounds[1:], refused, strict=False) if no]
        else:
            wanted = [r.start - 1 + step for r in rounds for step in range(r.accepted + 1)]
        assert state.places == wanted and wanted
        assert state.text == text[: len(state.text)]
        laws = target.laws_along(state.text)
        for place, logits in zip(state.places, state.logits, strict=True):
            torch.testing.assert_close(logits.double(), laws[place], atol=1e-5, rtol=1e-5)


def test_a_diverging_learner_is_taken_back_and_says_so(zoo):
    target, draft = zoo
    drafter = make_method("drafter", "online", rate=0.1, every=8)
    settings = RunSettings(target, prompts()[0].text, drafter, max_new_tokens=40, draft_model=draft)
    run = Run(settings)
    rounds = list(run.rounds())
    said = [r.note for r in rounds if "taken back" in r.note]
    assert said and "smaller rate" in said[0]
    learner = run.drafting.learner
    assert learner.caution == 0.5 ** len(said) and learner.updates == 0
    assert learner.model.fingerprint == draft.fingerprint
    plain = generate(settings.change(drafter="none"))
    assert emitted(rounds) == plain.new_tokens


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_lessons_that_are_not_finite_change_nothing(pair, poison):
    learner = Learner(pair[1])
    before = [w.clone() for w in learner.model.network.parameters()]
    study = learner.study([Lesson([1, 2, 3], [1], torch.full((1, VOCABULARY), poison))], 1e-2)
    assert not study.kept and learner.updates == 0
    for old, new in zip(before, learner.model.network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_weights_of_another_draft_are_not_carried_over(pair):
    target, draft = pair
    drafter = make_method("drafter", "online", every=4, rate=5e-3)
    _, state = stream(drafter, [[1, 2, 3]], target=target, draft=draft)
    other = tiny_network(VOCABULARY, layers=1, seed=7)
    run = Decoding(
        target.session(), drafter, Rejection(), Granted(), Sampling(1.0), 8,
        draft=other.session(), carried=state,
    )  # fmt: skip
    list(decode(run, [1, 2, 3]))
    assert run.drafting.learner.source is other


def test_what_cannot_be_trained_is_refused_by_name(zoo):
    for inner in ("prompt_lookup", "medusa", "online"):
        with pytest.raises(BadKnob, match="choose draft_model"):
            make_method("drafter", "online", inner=inner)
    with pytest.raises(Mismatch, match="needs a draft model"):
        generate(RunSettings(zoo[0], "def f(", "online"))
