"""Kangaroo: both exits, what each layer runs, and the adapter against a bare early exit."""

import pytest
import torch
from oracle_heads import PROMPT

from workbench.core.decoding import Budget
from workbench.core.errors import Mismatch
from workbench.core.sampling import Sampling
from workbench.drafters.kangaroo import Kangaroo, KangarooAdapter
from workbench.engine.run import RunSettings, generate
from workbench.models.attachments import load_attachment
from workbench.policies.fixed import Fixed
from workbench.testing import oracles
from workbench.testing.drafter_runs import Drive, Granted, emitted, run_rounds
from workbench.testing.tiny_network import tiny_network
from workbench.verifiers.exact_match import ExactMatch
from workbench.verifiers.rejection import Rejection

CODE = "class Reader:\n    def __init__(self, path):\n"


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.01])
def test_the_text_is_the_targets_wherever_it_stops(tiny, greedy_answer, eta):
    drafter = Kangaroo(heads="untrained", eta=eta)
    rounds = run_rounds(
        tiny, drafter, ExactMatch(), prompt=PROMPT, tokens=40, policy=Granted(Budget(4, 4, 1))
    )
    assert emitted(rounds) == greedy_answer[len(PROMPT) :][:40]
    lengths = {len(done.tokens) for done in rounds[:-2]}  # the last ones have less room
    if eta == 0:
        assert lengths == {4}, "never unsure"
    if eta > 1:
        assert lengths == {1}, "the first token is drafted and verified, however unsure"


def test_it_stops_after_the_first_unsure_token(tiny):
    drafter = Kangaroo(heads="untrained", eta=0.5)
    rounds = run_rounds(
        tiny, drafter, ExactMatch(), prompt=PROMPT, tokens=60, policy=Granted(Budget(6, 6, 1))
    )
    stopped = 0
    for done in rounds[:-1]:
        sure = done.report["confidence"]
        assert len(sure) == len(done.tokens)
        assert all(value >= 0.5 for value in sure[:-1])
        stopped += sure[-1] < 0.5
    assert 0 < stopped


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_exit_behind_the_last_layer_is_always_right(tiny, temperature):
    """Whole depth, an adapter that adds nothing, the target's norm: the target drafts itself."""
    rounds = run_rounds(
        tiny,
        Kangaroo(heads="untrained", exit_layer=6, eta=0.0),
        Rejection(),
        prompt=PROMPT,
        tokens=40,
        sampling=Sampling(temperature, seed=3),
        policy=Granted(Budget(3, 3, 1)),
    )
    assert {len(done.emitted) for done in rounds[:-2]} == {4}


def test_every_layer_runs_as_often_as_it_must():
    """Deep layers once a round; shallow layers once for the root and once for each draft."""
    model = tiny_network(5, layers=6, seed=2)
    rows = [0] * 6

    def counting(layer):
        def count(module, args, kwargs):
            rows[layer] += (args[0] if args else kwargs["hidden_states"]).shape[1]

        return count

    for index, layer in enumerate(model.network.model.layers):
        layer.register_forward_pre_hook(counting(index), with_kwargs=True)
    model.mode = "walk"  # layer modules are called, so that hooks count
    drive = Drive(
        Kangaroo(heads="untrained", exit_layer=2, eta=0.0), model, None, Sampling(0.0), PROMPT
    )
    drive.round(Budget(3, 3, 1), ExactMatch())
    for layers in (2, 4):
        assert len(set(rows[layers:])) == 1
    rows[:] = [0] * 6
    before, drafted = (drive.target.forwards, drive.target.partial_forwards), 0
    for _ in range(5):
        drafted += len(drive.round(Budget(3, 3, 1), ExactMatch()))
    assert rows[:2] == [drafted + 5] * 2, "verification must not run the shallow layers again"
    assert rows[2:] == [drafted + 5] * 4
    assert drive.target.forwards - before[0] == 5, "one pass through the deep layers a round"
    assert drive.target.partial_forwards - before[1] == drafted + 5


def test_an_adapter_for_another_exit_is_refused(zoo_target):
    with pytest.raises(Mismatch, match="exit_layer=3.*behind layer 2"):
        generate(RunSettings(zoo_target, CODE, Kangaroo(exit_layer=3), max_new_tokens=4))


def adapter(zoo_target, trained: bool) -> KangarooAdapter:
    made = KangarooAdapter(zoo_target.network.config)
    made.norm.weight.data.copy_(zoo_target.anatomy.norm.weight)
    spec = "zoo" if trained else "untrained"
    attachment = load_attachment(spec, "kangaroo", zoo_target)
    return attachment.fill(made, zoo_target.anatomy.embed.weight)


@torch.inference_mode()
def test_training_raises_agreement_above_a_bare_exit(zoo_target, held_out):
    hidden = zoo_target.session().sync(held_out, capture=("2", "final")).hidden
    p = zoo_target.anatomy.logits(hidden["final"]).softmax(-1)
    top_one, overlap = [], []
    for trained in (True, False):
        stream = adapter(zoo_target, trained)(hidden["2"][None])[0]
        q = zoo_target.anatomy.logits(stream).softmax(-1)
        top_one.append(float((q.argmax(-1) == p.argmax(-1)).float().mean()))
        overlap.append(float(torch.minimum(p, q).sum(-1).mean()))
    assert top_one[0] > top_one[1] + 0.05, top_one
    assert overlap[0] > overlap[1] + 0.05, overlap


@torch.inference_mode()
def test_overlap_is_the_acceptance_that_is_measured(zoo_target):
    """At T = 1 each drafted token is kept with probability sum min(p, q), position by position."""
    settings = RunSettings(
        zoo_target,
        CODE,
        Kangaroo(eta=0.0),
        verifier="rejection",
        policy=Fixed(depth=2, nodes=2, width=1),
        sampling=Sampling(1.0, seed=4),
        max_new_tokens=240,
    )
    trace = generate(settings)
    tested = accepted = promised = 0.0
    text = [*trace.prompt_tokens]
    made = adapter(zoo_target, True)
    for done in trace.rounds[:-1]:
        hidden = zoo_target.session().sync([*text, *done.tokens], capture=("2", "final")).hidden
        q = zoo_target.anatomy.logits(made(hidden["2"][None])[0]).softmax(-1)
        p = zoo_target.anatomy.logits(hidden["final"]).softmax(-1)
        both = torch.minimum(p, q).sum(-1)[len(text) - 1 :]
        for place in range(min(done.accepted + 1, len(done.tokens))):
            tested += 1
            promised += float(both[place])
        accepted += done.accepted
        text += done.emitted
    error = (promised / tested * (1 - promised / tested) / tested) ** 0.5
    assert tested > 150
    assert accepted / tested == pytest.approx(promised / tested, abs=3 * error)


def test_any_adapter_leaves_the_text_alone(tiny):
    wanted = oracles.plain_greedy(tiny.rule, PROMPT, 30)
    for seed in range(4):

        class Random(Kangaroo):
            def init(self, ctx, seed=seed):
                state = super().init(ctx)
                generator = torch.Generator().manual_seed(seed)
                for weight in state.adapter.parameters():
                    weight.copy_(torch.randn(weight.shape, generator=generator).double())
                return state

        rounds = run_rounds(tiny, Random(heads="untrained"), ExactMatch(), prompt=PROMPT, tokens=30)
        assert emitted(rounds) == wanted
