"""SpecDec++: the stopping rule by hand, its limits, and that it leaves the text alone."""

import pytest
import torch

from workbench.core.decoding import DraftStep
from workbench.core.errors import Mismatch
from workbench.core.sampling import Sampling
from workbench.engine.run import RunSettings, generate
from workbench.models.load import load
from workbench.policies.confidence import Confidence
from workbench.policies.fixed import Fixed
from workbench.policies.specdec_pp import AcceptanceHead, SpecDecPP, SpecDecState, survival
from workbench.training.specdec_pp import area

PROMPT = "def write(self, data):\n    "


class Oracle(torch.nn.Module):
    """Reads the acceptance chance off the hidden state itself."""

    def accepted(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[..., 0]


def steps(chances: list[float]) -> list[DraftStep]:
    """Step k carries the state after reading token k-1; that of step 1 is the root's."""
    states = [torch.tensor([c]) for c in (0.0, *chances)]
    return [DraftStep(depth + 1, hidden=state) for depth, state in enumerate(states)]


@pytest.fixture(scope="module")
def pair():
    return load("zoo:target"), load("zoo:draft")


def run(pair, policy, tokens=40, temperature=0.0, drafter="draft_model"):
    target, draft = pair
    sampling, verifier = Sampling(temperature, seed=3), "multi_round"
    settings = RunSettings(
        target, PROMPT, drafter, verifier, policy, sampling, tokens, draft_model=draft
    )
    return generate(settings)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.9])
def test_it_stops_where_the_hand_stops(threshold):
    chances = [0.95, 0.9, 0.8, 0.6, 0.9, 0.3]
    policy, state = SpecDecPP(threshold=threshold, most=8), SpecDecState(Oracle())
    every = steps(chances)
    product, wanted = 1.0, len(every)
    for k in range(1, len(every) + 1):  # after drafting token k, tokens 1..k-1 have been read
        product *= 1.0 if k == 1 else chances[k - 2]
        if 1 - product > threshold:
            wanted = k
            break
    answers = [policy.go(state, every[:k]) for k in range(1, len(every) + 1)]
    assert answers[: wanted - 1] == [True] * (wanted - 1)
    assert wanted == len(every) or not answers[wanted - 1]
    assert survival(Oracle(), every) == pytest.approx(
        [1.0, *torch.tensor(chances).cumprod(0).tolist()]
    )


def test_threshold_one_is_a_fixed_length(pair):
    fixed = run(pair, Fixed(depth=4, nodes=16, width=8))
    never = run(pair, SpecDecPP(threshold=1.0, most=4, nodes=16, width=8))
    assert never.text == fixed.text
    assert [r.tokens for r in never.rounds] == [r.tokens for r in fixed.rounds]
    assert [r.forwards for r in never.rounds] == [r.forwards for r in fixed.rounds]


def test_threshold_zero_drafts_two(pair):
    trace = run(pair, SpecDecPP(threshold=0.0))
    assert {len(r.tokens) for r in trace.rounds[:-2]} == {2}
    three = run(pair, SpecDecPP(threshold=0.0, least=3))
    assert {len(r.tokens) for r in three.rounds[:-3]} == {3}


def test_the_text_is_the_same_whatever_it_stops(pair):
    plain = run(pair, "fixed", drafter="none")
    for policy in (SpecDecPP(threshold=0.4), Confidence(threshold=0.5), "entropy"):
        assert run(pair, policy).text == plain.text


def test_the_record_holds_the_staircase(pair):
    trace = run(pair, SpecDecPP(threshold=0.6), temperature=1.0)
    for done in trace.rounds:
        stairs = done.report.get("survival", [])
        assert stairs == sorted(stairs, reverse=True)
        assert len(stairs) <= len(done.tokens)
    assert any(len(done.report["survival"]) > 1 for done in trace.rounds if done.report)


def test_drafters_without_a_draft_model_are_refused(pair):
    with pytest.raises(Mismatch, match=r"hidden states.*choose the drafter draft_model"):
        steps_without = [DraftStep(1), DraftStep(2)]
        SpecDecPP(most=8).go(SpecDecState(Oracle()), steps_without)
    target, _ = pair
    with pytest.raises(Mismatch, match="policy='specdec_pp' needs a draft model"):
        generate(RunSettings(target, PROMPT, "prompt_lookup", "exact_match", "specdec_pp"))


@pytest.mark.parametrize("layers", [1, 3, 7])
def test_layers_share_their_weights(layers):
    head, d = AcceptanceHead(24, layers), 24
    assert sum(p.numel() for p in head.parameters()) == d * d + d + 2 * d + 2


def test_area_under_the_curve_by_hand():
    score = torch.tensor([0.1, 0.4, 0.4, 0.8])
    truth = torch.tensor([False, True, False, True])
    assert area(score, truth) == pytest.approx((1 + 0.5 + 2) / 4)  # pairs won, ties count half
