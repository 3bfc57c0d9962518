"""What every drafter must satisfy, on toy models with exact laws and on real sessions.

Checks are chosen by what a drafter declares (``needs``) and by what it proposes (drawn or chosen,
chain or tree), never by its name.

Example:
    >>> suite = DrafterSuite(make_method("drafter", "draft_model"))
    >>> suite.check_declared_law(Sampling(temperature=1.0))
"""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from workbench.core.decoding import (
    Budget,
    Context,
    Drafter,
    DraftStep,
    Feedback,
    Need,
    Outcome,
    Verdict,
    Verifier,
)
from workbench.core.sampling import Sampling, draw
from workbench.core.trace import Ms, Round
from workbench.core.tree import DraftTree, shape_of
from workbench.engine.decode import Decoding, decode, prepare
from workbench.models.store import Store
from workbench.testing import oracles
from workbench.testing.oracles import Draft
from workbench.testing.tiny_network import tiny_network
from workbench.testing.toy_models import ToyModel
from workbench.verifiers.exact_match import ExactMatch

PROMPT = [0, 1, 2, 0, 1, 1, 2, 0, 1]
BUDGETS = [
    Budget(depth, nodes, width)
    for depth in (0, 1, 2, 5)
    for nodes in (0, 1, 2, 7, 24)
    for width in (0, 1, 2, 8)
]
NO_TIME = Ms(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Granted:
    """A length policy that grants one budget for ever."""

    grant: Budget = Budget(3, 6, 3)

    def init(self, ctx: Context) -> None:
        return None

    def budget(self, state: None) -> Budget:
        return self.grant

    def go(self, state: None, steps: Sequence[DraftStep]) -> bool:
        return True

    def update(self, state: None, tree: DraftTree, outcome: Outcome) -> None:
        return None


class RefuseFirst:
    """Accepts nothing for some rounds (lossless: the bonus is drawn from p), then passes on."""

    lossless, chains_only, name = True, False, "refuse_first"

    def __init__(self, rounds: int, inner: Verifier):
        self.left, self.inner = rounds, inner

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        if self.left <= 0:
            return self.inner.verify(tree, p)
        self.left -= 1
        stop = torch.zeros(len(tree) + 1, dtype=p.dtype)
        stop[0] = 1
        return Verdict(stop, lambda row: p[row], torch.zeros(len(tree), dtype=p.dtype))


@cache
def toy_store() -> Store:
    """Random documents over three tokens, for drafters that look things up."""
    generator = torch.Generator().manual_seed(5)
    documents = [torch.randint(0, 3, (40,), generator=generator).numpy() for _ in range(6)]
    return Store.of(documents, "toy")


def walks_the_target(drafter: Drafter) -> bool:
    """Whether only a network with real layers can be its target."""
    return bool(drafter.needs & {Need.TARGET, Need.HIDDEN, Need.LEARNER, Need.TWIN})


class Drive:
    """A drafter at work without the engine: a context, a state and the two sessions."""

    def __init__(self, drafter, target, draft, sampling: Sampling, prompt: Sequence[int] = PROMPT):
        self.drafter, self.target = drafter, target.session()
        run = Decoding(
            self.target,
            drafter,
            ExactMatch(),
            Granted(),
            sampling,
            1 << 16,
            draft=draft.session() if Need.DRAFT in drafter.needs else None,
            store=toy_store(),
        )
        self.ctx, self.capture = prepare(run, list(prompt))
        self.state = drafter.init(self.ctx)

    def propose(self, budget: Budget, seed: int | None = None) -> DraftTree:
        """A proposal from a copy of the state, so that asking twice starts from the same place."""
        if seed is not None:
            self.ctx.rng = torch.Generator().manual_seed(seed)
        length = len(self.target)
        tree, _ = self.drafter.propose(self.ctx, copy.deepcopy(self.state), budget)
        assert len(self.target) == length, "propose left tokens in the target's session"
        return tree

    def round(self, budget: Budget, verifier: Verifier) -> DraftTree:
        """One whole round, as the engine does it."""
        ctx = self.ctx
        tree, self.state = self.drafter.propose(ctx, self.state, budget)
        rows = [ctx.tokens[-1], *tree.tokens.tolist()]
        parent = (-1, *(above + 1 for above in tree.parent))
        forward = self.target.forward(rows, parent, capture=self.capture)
        verdict = verifier.verify(tree, ctx.sampling.law(forward.logits))
        uniforms = torch.rand(2, generator=ctx.rng, dtype=torch.float64)
        row = int(draw(verdict.stop.double(), uniforms[0]))
        path, bonus = tree.path_to(row), int(draw(verdict.bonus(row), uniforms[1]))
        emitted = (*(int(tree.tokens[n]) for n in path), bonus)
        kept = [0, *(n + 1 for n in path)]
        self.target.commit(kept)
        outcome = Outcome(tuple(path), bonus, emitted)
        feedback = Feedback(tree, forward.logits, forward.hidden, outcome, ctx.tokens)
        self.state = self.drafter.update(ctx, self.state, feedback)
        ctx.tokens = [*ctx.tokens, *emitted]
        if self.capture:
            ctx.provided[Need.HIDDEN].append(forward.hidden, kept)
        return tree


def run_rounds(
    target,
    drafter: Drafter,
    verifier: Verifier,
    *,
    draft=None,
    sampling: Sampling | None = None,
    prompt: Sequence[int] = PROMPT,
    tokens: int = 40,
    policy=None,
    sessions: tuple | None = None,
    store: Store | None = None,
) -> list[Round]:
    """Decode through the engine; ``sessions`` = (target, draft) reuses them."""
    if sessions is None:
        sessions = (target.session(), draft.session() if Need.DRAFT in drafter.needs else None)
    run = Decoding(
        sessions[0],
        drafter,
        verifier,
        policy or Granted(),
        sampling or Sampling(),
        tokens,
        draft=sessions[1],
        store=store or toy_store(),
    )
    return list(decode(run, list(prompt)))


def emitted(rounds: Sequence[Round]) -> list[int]:
    return [token for done in rounds for token in done.emitted]


def timeless(rounds: Sequence[Round]) -> list[dict]:
    """Rounds without their clocks, comparable."""
    fields = [f for f in Round.__struct_fields__ if f not in ("ms", "forward_ms")]
    return [{name: getattr(done, name) for name in fields} for done in rounds]


class DrafterSuite:
    """The checks of one drafter instance; each raises AssertionError on a breach.

    Args:
        drafter: under test.
        target: a model (toy or loaded) that is decoded.
        draft: for drafters that need a smaller model.
    """

    def __init__(self, drafter: Drafter, target=None, draft=None):
        self.drafter = drafter
        self.network = walks_the_target(drafter)
        self.target = target or (
            tiny_network(3) if self.network else ToyModel.random(3, seed=1, scale=0.7)
        )
        trained = Need.LEARNER in drafter.needs  # a toy has no weights
        self.draft = draft or (
            tiny_network(3, seed=2) if trained else ToyModel.random(3, seed=2, scale=0.7)
        )

    def drives(self, sampling: Sampling, verifier: Verifier) -> Iterator[Drive]:
        """A cold drafter, and one that has heard of a few rounds."""
        yield Drive(self.drafter, self.target, self.draft, sampling)
        warm = Drive(self.drafter, self.target, self.draft, sampling)
        for _ in range(4):
            warm.round(Budget(3, 6, 1), verifier)
        yield warm

    def check_budget(self, verifier: Verifier, budgets: Sequence[Budget] = BUDGETS) -> None:
        """Never more nodes, levels or siblings than granted; well-formed trees at every budget."""
        for sampling in (Sampling(0.0), Sampling(1.0, seed=3)):
            for drive in self.drives(sampling, verifier):
                for budget in budgets:
                    check_tree(drive.propose(budget, seed=5), budget, drive.ctx)

    def check_go(self, verifier: Verifier) -> None:
        """Once the policy says stop, no further level is drafted and it is not asked again."""
        for stop_at in (1, 2):
            heard: list[tuple[int, bool]] = []

            def go(step: DraftStep, stop_at=stop_at, heard=heard) -> bool:
                assert not heard or heard[-1][1], "the policy was asked again after it said stop"
                heard.append((step.depth, step.depth < stop_at))
                return heard[-1][1]

            for drive in self.drives(Sampling(0.0), verifier):
                heard.clear()
                tree = drive.propose(Budget(5, 40, 2, go), seed=1)
                assert heard or Need.DRAFT not in self.drafter.needs, (
                    "a drafter that pays a forward for each level must ask budget.go"
                )
                if heard and not heard[-1][1]:
                    assert max(tree.depth, default=0) <= stop_at, f"went on to {tree.depth}"

    def check_declared_law(self, sampling: Sampling, verifier: Verifier, draws: int = 900) -> None:
        """Drawn tokens follow ``probs``, given the path and the earlier siblings (pitfall 1).

        Every draw is one of a multinomial whose law the drafter itself declared, so the sum of
        the G statistics over all histories is chi-square if, and only if, ``probs`` is true.
        """
        for drive in self.drives(sampling, verifier):
            counts: dict = defaultdict(lambda: defaultdict(int))
            declared: dict = {}
            for seed in range(draws):
                tree = drive.propose(Budget(2, 4, 2), seed=seed)
                if not tree.drawn:
                    if seed == 20 and not declared:
                        break  # a drafter that chooses
                    continue
                for key, law, token in draws_of(tree):
                    known = declared.setdefault(key, law)
                    assert torch.allclose(known, law, atol=1e-9), f"{key}: probs vary by seed"
                    counts[key][token] += 1
            total, freedom = 0.0, 0
            for key, seen in counts.items():
                law, often = declared[key].tolist(), sum(seen.values())
                g, free = oracles.g_statistic(
                    [seen[t] for t in range(len(law))], [often * x for x in law]
                )
                total, freedom = total + g, freedom + free
            if freedom:
                limit = oracles.g_limit(freedom)
                assert total < limit, (
                    f"probs are not the law drawn from: G {total:.1f} > {limit:.1f}"
                )

    def check_exact_output(self, sampling: Sampling, verifier: Verifier, draws: int = 1500) -> None:
        """Law of the first three tokens, exact to 1e-12, by collecting every possible draft.

        Seeds are tried until the drafts found have all the mass that ``probs`` declares; where the
        shape itself is random, ``draws`` seeds.
        """
        budget = Budget(2, 2, 1) if verifier.chains_only else Budget(2, 3, 2)
        for drive in self.drives(sampling, verifier):
            if getattr(self.drafter, "random_shape", False):
                self._check_sampled_output(drive, budget, sampling, verifier, draws)
                continue
            drafts = collect_drafts(drive, budget)
            text, size = tuple(drive.ctx.tokens), self.target.vocab_size

            @oracles.remembered
            def law_of(new: tuple[int, ...], text=text) -> torch.Tensor:
                return sampling.law(self.target.rule([*text, *new]))

            joint = torch.zeros((size,) * 3, dtype=torch.float64)
            for tree, chance in drafts:
                verdict = verifier.verify(tree, oracles.target_laws(tree, law_of))
                joint += chance * oracles.emitted_law(verdict, tree, law_of, size)
            error = float((joint - oracles.joint_law(law_of, size)).abs().max())
            assert error <= 1e-12, f"{sampling}: the output law is off by {error:.3g}"

    def _check_sampled_output(self, drive, budget, sampling, verifier, draws: int) -> None:
        """The same where the shape itself is random: the mean law of many drafts, to 5 sigma.

        Each draft's output law is exact, so only the draft is sampled.
        """
        text, size = tuple(drive.ctx.tokens), self.target.vocab_size

        @oracles.remembered
        def law_of(new: tuple[int, ...]) -> torch.Tensor:
            return sampling.law(self.target.rule([*text, *new]))

        found = []
        for seed in range(draws):
            tree = drive.propose(budget, seed=seed)
            verdict = verifier.verify(tree, oracles.target_laws(tree, law_of))
            found.append(oracles.emitted_law(verdict, tree, law_of, size))
        joint = torch.stack(found)
        off = (joint.mean(0) - oracles.joint_law(law_of, size)).abs()
        sigma = joint.std(0) / draws**0.5
        assert bool((off <= 5 * sigma + 1e-12).all()), f"{sampling}: off by {float(off.max()):.3g}"

    def check_long_run(self, sampling: Sampling, verifier: Verifier, tokens: int = 900) -> None:
        """A long run through the engine: every token follows the toy's law given the text so far.

        Under the exact law each token is a draw given its context, so G summed over contexts (two
        tokens and the position's parity, as the toy distinguishes) is chi-square.
        """
        width = 1 if verifier.chains_only else 3
        tokens = tokens // 3 if self.network else tokens
        rounds = run_rounds(
            self.target,
            self.drafter,
            verifier,
            draft=self.draft,
            sampling=sampling,
            tokens=tokens,
            policy=Granted(Budget(3, 6, width)),
        )
        text = [*PROMPT, *emitted(rounds)]
        assert len(text) == len(PROMPT) + tokens
        if self.network:
            check_counts(sampling.law(self.target.laws_along(text)), text, len(PROMPT))
            return
        counts: dict = defaultdict(lambda: [0] * self.target.vocab_size)
        for place in range(len(PROMPT), len(text)):
            counts[place % 2, text[place - 2], text[place - 1]][text[place]] += 1
        total, freedom = 0.0, 0
        for (parity, *last), seen in counts.items():
            law = sampling.law(self.target.rule([0] * parity + [0, 0, *last])).tolist()
            g, free = oracles.g_statistic(seen, [sum(seen) * x for x in law])
            total, freedom = total + g, freedom + free
        assert freedom, "too few tokens to say anything"
        limit = oracles.g_limit(freedom)
        assert total < limit, f"{sampling}: G {total:.1f} > {limit:.1f} at {freedom} degrees"

    def check_greedy(
        self, verifier: Verifier, wanted: Sequence[int], prompt: Sequence[int], width: int = 3
    ) -> None:
        """Greedy text equals target-only decoding, from cold and after three total rejections."""
        grant = Granted(Budget(4, 8, 1 if verifier.chains_only else width))
        for label, rule in (("cold", verifier), ("after rejection", RefuseFirst(3, verifier))):
            rounds = run_rounds(
                self.target,
                self.drafter,
                rule,
                draft=self.draft,
                prompt=prompt,
                tokens=len(wanted),
                policy=grant,
            )
            check_same_text(emitted(rounds), wanted, f"{label}, {verifier.name}")

    def check_greedy_after_acceptance(self, verifier: Verifier) -> None:
        """A text that every drafter predicts, then one that few do: still the target's own."""
        if self.network:
            return  # no network follows a rule; such a drafter's own tests accept everything
        target = ToyModel.cycle(4, 40, after=ToyModel.random(4, seed=5, scale=2.0))
        draft = ToyModel.cycle(4)
        prompt = [0, 1, 2, 3, 0]
        wanted = oracles.plain_greedy(target.rule, prompt, 70)
        rounds = run_rounds(
            target,
            self.drafter,
            verifier,
            draft=draft,
            prompt=prompt,
            tokens=70,
            policy=Granted(Budget(3, 6, 1 if verifier.chains_only else 2)),
            store=Store.of([torch.arange(60).remainder(4).numpy()]),
        )
        check_same_text(emitted(rounds), wanted, verifier.name)
        drafted = [done for done in rounds if done.tokens]
        whole = [done for done in drafted if done.accepted == max(done.depth)]
        refused = [done for done in drafted if not done.accepted]
        if drafted:
            assert whole, "nothing was ever accepted whole: the check reached no risky branch"
            assert refused, "nothing was ever refused: the check reached no risky branch"

    def check_deterministic(self, verifier: Verifier) -> None:
        """The same seed gives the same rounds, bit by bit (pitfall 19); another seed differs."""
        runs = [self._sampled(verifier, seed) for seed in (11, 11, 12)]
        assert timeless(runs[0]) == timeless(runs[1]), "one seed, two runs"
        assert emitted(runs[0]) != emitted(runs[2]), "the seed changes nothing"

    def _sampled(self, verifier, seed: int, drafter=None, sessions=None, prompt=PROMPT):
        grant = Granted(Budget(3, 6, 1 if verifier.chains_only else 3))
        return run_rounds(
            self.target,
            drafter or self.drafter,
            verifier,
            draft=self.draft,
            sampling=Sampling(1.0, seed=seed),
            policy=grant,
            sessions=sessions,
            prompt=prompt,
        )

    def check_reset(self, verifier: Verifier) -> None:
        """A run leaves nothing behind: neither in the method nor in its module nor in a session."""
        fresh = timeless(self._sampled(verifier, 21))
        needs_draft = Need.DRAFT in self.drafter.needs
        sessions = (self.target.session(), self.draft.session() if needs_draft else None)
        self._sampled(verifier, 22, sessions=sessions, prompt=[2, 2, 1, 0, 2, 1])
        twin = dataclasses.replace(self.drafter) if dataclasses.is_dataclass(self.drafter) else None
        assert timeless(self._sampled(verifier, 21)) == fresh, "the instance remembers a run"
        assert timeless(self._sampled(verifier, 21, twin)) == fresh, "the module remembers a run"
        again = timeless(self._sampled(verifier, 21, sessions=sessions))
        for one, other in zip(again, fresh, strict=True):  # a warm session saves forwards only
            assert {**one, "forwards": 0} == {**other, "forwards": 0}, "a session remembers a run"


def check_counts(laws: torch.Tensor, text: Sequence[int], start: int) -> None:
    """Each token occurs as often as its laws say, to five standard deviations.

    Given the text so far a token is one draw of its law, so count minus summed probability is a
    martingale whose variance is the sum of p(1-p).
    """
    p = laws[start - 1 : -1].double()
    drawn = torch.zeros_like(p)
    drawn[torch.arange(len(p)), torch.tensor(text[start:])] = 1
    spread = (p * (1 - p)).sum(0).sqrt().clamp_min(1e-9)
    off = ((drawn - p).sum(0) / spread).abs()
    assert float(off.max()) < 5, f"counts are off by {off.tolist()} standard deviations"
    assert float(p[drawn.bool()].min()) > 0, "a token that its law cannot give"


def check_tree(tree: DraftTree, budget: Budget, ctx: Context) -> None:
    """The proposal is within its budget and declares its laws in full."""
    deepest, widest = max(tree.depth, default=0), 0
    for children in shape_of(tree.parent).children:
        widest = max(widest, len(children))
    what = f"{len(tree)} nodes, depth {deepest}, width {widest} for {budget}"
    assert len(tree) <= budget.nodes, what
    assert deepest <= budget.depth, what
    assert widest <= budget.width, what
    assert tree.tokens.dtype == torch.long and tree.tokens.device == ctx.device
    if not len(tree):
        return
    low, high = int(tree.tokens.min()), int(tree.tokens.max())
    assert 0 <= low and high < ctx.vocab_size, f"token {low} or {high} is no token of the target"
    if tree.drawn:
        assert tree.probs.shape == (len(tree), ctx.vocab_size)
        assert float(tree.probs.min()) >= 0
        assert torch.allclose(tree.probs.sum(-1), torch.ones(len(tree), dtype=tree.probs.dtype))
        drawn_with = tree.probs[torch.arange(len(tree)), tree.tokens]
        assert float(drawn_with.min()) > 0, "a token that its own law cannot give"
        if ctx.sampling.greedy:
            assert float(drawn_with.min()) == 1, "greedy, yet the declared law is not one-hot"


def draws_of(tree: DraftTree) -> Iterator[tuple[tuple, torch.Tensor, int]]:
    """(history, declared law, token) of each node; history = path and earlier siblings."""
    tokens = tree.tokens.tolist()
    for row, children in enumerate(shape_of(tree.parent).children):
        path = oracles.text_of(tokens, tree.parent, row - 1)
        for place, child in enumerate(children):
            # Drawn independently, siblings do not depend on each other, nor does their law.
            earlier = () if tree.with_replacement else tuple(tokens[c] for c in children[:place])
            yield (path, place, earlier), tree.probs[child], tokens[child]


def collect_drafts(drive: Drive, budget: Budget, most_seeds: int = 6000) -> list[Draft]:
    """Every draft that ``drive`` can propose, with the chance that its ``probs`` declare.

    Raises:
        AssertionError: the declared chances do not add up to 1 over all drafts found.
    """
    found: dict[tuple, Draft] = {}
    mass = 0.0
    for seed in range(most_seeds):
        tree = drive.propose(budget, seed=seed)
        key = (tuple(tree.tokens.tolist()), tree.parent)
        if key not in found:
            chance = 1.0
            if tree.drawn:
                for _, law, token in draws_of(tree):
                    chance *= float(law[token])
            found[key] = Draft(tree, chance)
            mass += chance
        if abs(mass - 1) < 1e-12:
            return list(found.values())
        assert mass < 1 + 1e-9, f"drafts found have a declared mass of {mass}"
    raise AssertionError(f"{most_seeds} seeds found drafts of declared mass {mass}")


def check_same_text(got: Sequence[int], wanted: Sequence[int], label: str) -> None:
    """Token-identical, or the place where they part."""
    for place, (one, other) in enumerate(zip(got, wanted, strict=False)):
        assert one == other, f"{label}: token {place} is {one}, target-only decoding has {other}"
    assert len(got) == len(wanted), f"{label}: {len(got)} tokens instead of {len(wanted)}"
