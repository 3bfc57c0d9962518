"""What would wait for a device in a round, counted on a device that is only pretended."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from gpu.pretend import Far, Pretending

from workbench.core.decoding import Budget
from workbench.core.sampling import Sampling
from workbench.drafters import eagle, medusa
from workbench.drafters.eagle import Eagle
from workbench.drafters.hydra import Hydra
from workbench.drafters.medusa import Medusa
from workbench.engine.decode import Decoding, decode
from workbench.models.graphs import GraphWalk
from workbench.models.model import Model
from workbench.models.recording import CalledAgain
from workbench.testing.drafter_runs import Granted
from workbench.verifiers.exact_match import ExactMatch

BRANCHING, CHAIN, FLAT = Budget(3, 8, 3), Budget(3, 8, 1), Budget(1, 4, 4)
SMALL = {"num_hidden_layers": 1}
PROMPT = [1, 2, 3, 1, 2, 3, 1, 2]
# What a round of the engine reads and sends besides, with ``exact_match``: docs/decisions/011.
ENGINE_READS, ENGINE_UPLOADS = 3, 0
STATIC = (
    (Medusa(heads="untrained"), BRANCHING),
    (Hydra(heads="untrained"), BRANCHING),
    (Eagle(heads="untrained"), CHAIN),
    (Eagle(heads="untrained"), FLAT),
)


class Listening:
    """A part of a run; the counts of each of its calls are kept apart."""

    def __init__(self, inner, pretending: Pretending, *names: str):
        self._inner, self._pretending, self._names = inner, pretending, names
        self.waits: dict[str, Counter] = {}

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str):
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        def call(*args, **options):
            before = self._pretending.reads + self._pretending.uploads
            try:
                return found(*args, **options)
            finally:
                after = self._pretending.reads + self._pretending.uploads
                self.waits[name] = after - before

        return call


@pytest.fixture
def far(loaded, elsewhere) -> Model:
    """A tiny target on the pretended device, whose passes are recorded ones."""
    model = elsewhere(loaded("llama", **SMALL))
    model.__dict__["graphs"] = GraphWalk(model.anatomy, CalledAgain)
    model.graphs.refused = ""
    return model


def after_some(model, drafter, budget, pretending):
    """A run in which only the fourth round is counted; its parts, and all its rounds so far."""
    session = Listening(model.session(), pretending, "forward", "commit")
    parts = Listening(drafter, pretending, "propose", "update"), session
    verifier = Listening(ExactMatch(), pretending, "verify")
    run = Decoding(session, parts[0], verifier, Granted(budget), Sampling(), 40)
    rounds, going = [], decode(run, PROMPT)
    for _ in range(4):
        pretending.forget()
        rounds.append(next(going))
    assert not model.graphs.refused and model.graphs.ready(1), model.graphs.reason
    return parts, rounds


@pytest.mark.parametrize(("drafter", "budget"), STATIC)
def test_nothing_waits_from_the_draft_to_the_logits(far, loaded, pretending, drafter, budget):
    """Later the numbers of laws and tree are read once, then the rule's own, then a token."""
    (drafted, session), rounds = after_some(far, drafter, budget, pretending)
    assert rounds[-1].tokens, "a tree was drafted"
    assert not drafted.waits["propose"]
    assert not drafted.waits["update"]
    assert not session.waits["forward"]
    assert not session.waits["commit"]
    assert sum(pretending.reads.values()) <= ENGINE_READS, pretending.reads
    assert sum(pretending.uploads.values()) <= ENGINE_UPLOADS, pretending.uploads
    here = loaded("llama", **SMALL).session()
    wanted = decode(Decoding(here, drafter, ExactMatch(), Granted(budget), Sampling(), 40), PROMPT)
    for far_round, near_round in zip(rounds, wanted, strict=False):
        assert far_round.emitted == near_round.emitted
        assert far_round.tokens == near_round.tokens


def test_a_tree_that_grows_by_its_numbers_is_read_once(far, pretending):
    (drafted, session), _ = after_some(far, Eagle(heads="untrained"), BRANCHING, pretending)
    assert sum(drafted.waits["propose"].values()) == 1
    assert not session.waits["forward"]


# -- the counting itself --------------------------------------------------------------------------

READS = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x.sum()),
    "a question": lambda x: bool((x > 0).all()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "a mask as an index": lambda x: x[x > 0],
}
UPLOADS = {
    "torch.tensor": lambda x: torch.tensor([1, 2], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "a list as an index": lambda x: x[[0, 1]],
    "a list to write at": lambda x: x.__setitem__([0, 1], 0),
}
FREE = {
    "a slice": lambda x: x[1:].clone(),
    "a fill": lambda x: torch.full((2,), 7, device=x.device),
    "an index that is there": lambda x: x[torch.arange(2, device=x.device)],
    "sent without waiting": lambda x: torch.ones(2).to(x.device, non_blocking=True),
    "a number written": lambda x: x.__setitem__(0, 3.0),
}


@pytest.mark.parametrize("name", [*READS, *UPLOADS, *FREE])
def test_every_kind_is_counted(pretending, name):
    x = Far(torch.arange(4.0))
    ({**READS, **UPLOADS, **FREE})[name](x)
    found = sum(pretending.reads.values()), sum(pretending.uploads.values())
    assert found == (int(name in READS), int(name in UPLOADS))


def test_two_devices_in_one_operation_are_refused(pretending):
    with pytest.raises(AssertionError, match="a tensor of the host"):
        Far(torch.arange(4.0)) + torch.arange(4.0)


def test_a_drafter_that_reads_is_seen(far, pretending, monkeypatch):
    honest = medusa.grown_template

    def nosy(*args):
        far.network.model.norm.weight.sum().item()
        return honest(*args)

    monkeypatch.setattr(medusa, "grown_template", nosy)
    (drafted, _), _ = after_some(far, Medusa(heads="untrained"), BRANCHING, pretending)
    assert sum(drafted.waits["propose"].values()) == 1


@pytest.mark.parametrize("nodes", [1, 3, 5, 9])
@pytest.mark.parametrize("fan", [1, 4])
def test_eagles_fixed_trees_are_the_likeliest(nodes, fan):
    """What is not read is what reading would have found."""
    levels = 5 if fan == 1 else 1
    scores = torch.linspace(-0.5, -3, fan * levels)
    tokens = torch.arange(10, 10 + len(scores))
    parents = torch.arange(-1, levels - 1) if fan == 1 else torch.full((fan,), -1)
    wanted = eagle._best(tokens, parents, scores, nodes)
    found = eagle._fixed(tokens, scores, nodes, fan)
    assert found.parent == wanted.parent
    assert torch.equal(found.tokens, wanted.tokens)
    assert torch.equal(found.score, wanted.score)
