"""SpecDec++: the stopping rule by hand, its limits, and that it leaves the law alone."""

import dataclasses
import json
import shutil

import pytest
import torch

from workbench.core.decoding import Budget, DraftStep
from workbench.core.errors import Mismatch
from workbench.core.sampling import Sampling
from workbench.core.tree import DraftTree
from workbench.drafters.draft_model import DraftModel
from workbench.engine.run import RunSettings, generate
from workbench.models.attachments import EMBEDDED, load_attachment
from workbench.models.load import load
from workbench.policies.confidence import Confidence
from workbench.policies.fixed import Fixed
from workbench.policies.specdec_pp import AcceptanceHead, SpecDecPP, SpecDecState, survival
from workbench.testing import oracles
from workbench.testing.draft_checks import collect_drafts
from workbench.testing.drafter_runs import Drive
from workbench.testing.oracles import Draft
from workbench.testing.toy_models import ToyModel
from workbench.training.features import Batch, states_of
from workbench.training.specdec_pp import SpecDecPPTask, area
from workbench.verifiers.rejection import Rejection
from workbench.zoo.held_out import prompts

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


CHANCE = [0.9, 0.2, 0.8, 0.3]  # of each of four tokens to be accepted, as an oracle says it
ROOM = Budget(3, 3, 1)


def toy_drive() -> Drive:
    target, draft = ToyModel.random(4, seed=1, scale=0.7), ToyModel.random(4, seed=2, scale=0.3)
    return Drive(DraftModel(), target, draft, Sampling(1.0))


def stopping() -> Budget:
    """The policy's own answers; a step carries the chance of the token that was read before it."""
    policy, state = SpecDecPP(threshold=0.5), SpecDecState(Oracle())
    heard: list[DraftStep] = []

    def go(step: DraftStep) -> bool:
        if step.depth == 1:
            heard.clear()
        read = CHANCE[int(heard[-1].token)] if heard else 0.0
        heard.append(dataclasses.replace(step, hidden=torch.tensor([read])))
        return policy.go(state, heard)

    return dataclasses.replace(ROOM, go=go)


def law_error(drive: Drive, drafts: list[Draft]) -> float:
    """How far the law of the first three tokens is from the target's, over all these drafts."""

    @oracles.remembered
    def law_of(new: tuple[int, ...]) -> torch.Tensor:
        return drive.ctx.sampling.law(drive.target.model.rule([*drive.ctx.tokens, *new]))

    joint = torch.zeros((4,) * 3, dtype=torch.float64)
    for tree, chance in drafts:
        verdict = Rejection().verify(tree, oracles.target_laws(tree, law_of))
        joint += chance * oracles.emitted_law(verdict, tree, law_of, 4)
    assert float(joint.sum()) == pytest.approx(1)
    return float((joint - oracles.joint_law(law_of, 4)).abs().max())


def test_stopping_by_what_was_drafted_leaves_the_law_exact():
    """Every draft of four tokens: the rule looks at drafted tokens only, and before they fail."""
    drive = toy_drive()
    drafts = collect_drafts(drive, stopping())
    assert {len(tree) for tree, _ in drafts} == {2, 3}, "the rule stops some drafts and not others"
    assert law_error(drive, drafts) < 1e-12


def test_dropping_the_doubtful_token_would_change_the_law():
    """The mutation: a token is drafted, looked at, and taken back where it seems weak."""
    drive, taken_back = toy_drive(), []
    for tree, chance in collect_drafts(drive, ROOM):
        weak = [node for node, token in enumerate(tree.tokens.tolist()) if CHANCE[token] < 0.5]
        kept = weak[0] if weak else len(tree)
        cut = DraftTree(tree.tokens[:kept], tree.parent[:kept], tree.probs[:kept])
        taken_back.append(Draft(cut, chance))
    assert law_error(drive, taken_back) > 1e-3


@pytest.fixture(scope="module")
def judged(pair):
    """The embedded head's view of held-out text: logits, labels, and whether each was accepted."""
    target, draft = pair
    text = "\n".join(prompt.text for prompt in prompts())
    ids = target.tokenizer(text, verbose=False)["input_ids"]
    rows = torch.tensor(ids[: len(ids) // 120 * 120]).view(-1, 120)
    head = load_attachment("zoo", "specdec_pp", target).fill(
        AcceptanceHead(draft.network.config.hidden_size), draft.network.lm_head.weight
    )
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        batch = Batch(rows, states_of(target, rows, ("final",)))
        hidden, label, _ = SpecDecPPTask(draft).examples(target, batch, generator)
        return head(hidden), label, torch.rand(label.shape, generator=generator) < label


def test_the_head_tells_accepted_from_refused(pair, judged):
    logits, label, truth = judged
    assert len(label) >= 400
    assert area(logits[:, 1] - logits[:, 0], truth) > 0.6
    task, order = SpecDecPPTask(pair[1]), torch.Generator().manual_seed(2)
    shuffled = label[torch.randperm(len(label), generator=order)]
    assert float(task.weighted(logits, label)) < float(task.weighted(logits, shuffled)) - 0.05


@pytest.mark.xfail(
    strict=True,
    reason="the embedded head was measured below that baseline when it was trained; see its card",
)
def test_the_head_ranks_better_than_the_drafts_own_probability():
    card = json.loads((EMBEDDED / "specdec_pp" / "card.json").read_text())
    assert card["auc"] > card["auc_of_q"]


def test_a_head_for_another_draft_is_refused(pair, tmp_path):
    folder = shutil.copytree(EMBEDDED / "specdec_pp", tmp_path / "head")
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "draft": "0123456789abcdef"}))
    with pytest.raises(Mismatch, match=rf"draft.*0123456789abcdef.*{pair[1].fingerprint}"):
        run(pair, SpecDecPP(heads=str(folder)))
