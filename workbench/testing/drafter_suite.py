"""What every drafter must satisfy, on toy models with exact laws and on real sessions.

Checks are chosen by what a drafter declares (``needs``) and by what it proposes (drawn or chosen,
chain or tree), never by its name.

Example:
    >>> suite = DrafterSuite(make_method("drafter", "draft_model"))
    >>> suite.check_declared_law(Sampling(temperature=1.0))
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch

from workbench.core.decoding import (
    Budget,
    Drafter,
    DraftStep,
    Need,
    Verifier,
)
from workbench.core.sampling import Sampling
from workbench.models.store import Store
from workbench.testing import oracles
from workbench.testing.draft_checks import (
    check_counts,
    check_same_text,
    check_tree,
    collect_drafts,
    draws_of,
)
from workbench.testing.drafter_runs import (
    PROMPT,
    Drive,
    Granted,
    RefuseFirst,
    emitted,
    run_rounds,
    timeless,
    walks_the_target,
)
from workbench.testing.oracles import Draft
from workbench.testing.tiny_network import tiny_network
from workbench.testing.toy_models import ToyModel
from workbench.verifiers.exact_match import ExactMatch

BUDGETS = [
    Budget(depth, nodes, width)
    for depth in (0, 1, 2, 5)
    for nodes in (0, 1, 2, 7, 24)
    for width in (0, 1, 2, 8)
]


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
        # A toy has no weights. This network is one whose every draft is found with few seeds: none
        # is rarer than 1 in 120.
        trained = Need.LEARNER in drafter.needs
        self.draft = draft or (
            tiny_network(3, seed=4, std=0.25) if trained else ToyModel.random(3, seed=2, scale=0.7)
        )
        self._found: dict = {}  # drafts by what they were asked for with

    def drives(self, sampling: Sampling, verifier: Verifier) -> Iterator[Drive]:
        """A cold drafter, and one that has heard of a few rounds."""
        yield Drive(self.drafter, self.target, self.draft, sampling, recalls=True)
        warm = Drive(self.drafter, self.target, self.draft, sampling, recalls=True)
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
        size = self.target.vocab_size
        for text, drafts in self._drafts(sampling, budget, draws):

            @oracles.remembered
            def law_of(new: tuple[int, ...], text=text) -> torch.Tensor:
                return sampling.law(self.target.rule([*text, *new]))

            if getattr(self.drafter, "random_shape", False):
                self._check_sampled_output(drafts, law_of, sampling, verifier)
                continue
            joint = torch.zeros((size,) * 3, dtype=torch.float64)
            for tree, chance in drafts:
                verdict = verifier.verify(tree, oracles.target_laws(tree, law_of))
                joint += chance * oracles.emitted_law(verdict, tree, law_of, size)
            error = float((joint - oracles.joint_law(law_of, size)).abs().max())
            assert error <= 1e-12, f"{sampling}: the output law is off by {error:.3g}"

    def _drafts(self, sampling: Sampling, budget: Budget, draws: int) -> list:
        """(text, drafts) of a cold drafter and a warm one; found once for all rules that meet them.

        A rule is given drafts and no more, so that it need not have warmed the drafter itself.
        """
        key = (sampling, budget, draws)
        if key not in self._found:
            found = []
            for drive in self.drives(sampling, ExactMatch()):
                if getattr(self.drafter, "random_shape", False):
                    drafts = [
                        Draft(drive.propose(budget, seed), 1 / draws) for seed in range(draws)
                    ]
                else:
                    drafts = collect_drafts(drive, budget)
                found.append((tuple(drive.ctx.tokens), drafts))
            self._found[key] = found
        return self._found[key]

    def _check_sampled_output(self, drafts, law_of, sampling: Sampling, verifier: Verifier) -> None:
        """The same where the shape itself is random: the mean law of many drafts, to 5 sigma.

        Each draft's output law is exact, so only the draft is sampled.
        """
        size, found = self.target.vocab_size, []
        for tree, _ in drafts:
            verdict = verifier.verify(tree, oracles.target_laws(tree, law_of))
            found.append(oracles.emitted_law(verdict, tree, law_of, size))
        joint = torch.stack(found)
        off = (joint.mean(0) - oracles.joint_law(law_of, size)).abs()
        sigma = joint.std(0) / len(found) ** 0.5
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
