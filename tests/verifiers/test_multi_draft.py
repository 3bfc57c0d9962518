"""RSD, k-SEQ and their kin beyond the suite: the scale, its limits, and what they reduce to."""

from __future__ import annotations

import itertools

import pytest
import torch

from workbench.core.bounds import optimal_acceptance
from workbench.core.errors import Mismatch
from workbench.core.method import make_method, methods
from workbench.core.sampling import Sampling
from workbench.core.siblings import shrinking
from workbench.core.tree import DraftTree
from workbench.testing.oracles import INDEPENDENT, SCHEMES, WITHOUT, every_draft, target_laws
from workbench.testing.saboteurs import ForgetsToZeroQ, SiblingsInTokenOrder
from workbench.testing.verifier_suite import laws
from workbench.verifiers.spectr import scale

WARM = Sampling(1.0)


def pair(seed: int, size: int = 4, spread: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, size, generator=generator, dtype=torch.float64) * spread
    return tuple(logits.softmax(-1))


@pytest.mark.parametrize("k", [2, 3, 8])
def test_rho_is_the_root(k):
    for seed in range(30):
        p, q = pair(seed)
        rho, beta = scale(p, q, k)
        assert 1 <= rho <= k
        assert 1 - (1 - beta) ** k == pytest.approx(rho * beta, abs=1e-9)
        left = p - torch.minimum(q, p / rho) * (1 - (1 - beta) ** k) / beta
        assert float(left.min()) > -1e-9, "the residual is a law at rho*"
    worse = [
        float((p - torch.minimum(q, p / (0.9 * r)) * (1 - (1 - b) ** k) / b).min())
        for p, q in map(pair, range(30))
        for r in [scale(p, q, k)[0]]
        for b in [float(torch.minimum(q, p / (0.9 * r)).sum())]
    ]
    assert min(worse) < -1e-3, "a smaller scale takes more than p has"


def test_limits_of_the_scale():
    p, q = pair(1)
    assert scale(p, q, 1)[0] == 1.0
    same, beta = scale(p, p, 4)
    assert same == pytest.approx(1.0, abs=1e-4) and beta == pytest.approx(1.0, abs=1e-4)
    apart = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    assert scale(*apart, 3)[1] == 0.0


def siblings_tree(tokens, laws, with_replacement: bool) -> DraftTree:
    tokens = torch.tensor(tokens)
    return DraftTree(tokens, (-1,) * len(tokens), laws, with_replacement=with_replacement)


@pytest.mark.parametrize("rule", ["spectr", "rsd", "multi_round"])
def test_one_draft_is_plain_rejection(rule):
    """Chance and residual are those of the rule for chains, to the last digit that counts."""
    plain, several = make_method("verifier", "rejection"), make_method("verifier", rule)
    for seed, token in itertools.product(range(10), range(4)):
        p, q = pair(seed)
        tree = siblings_tree([token], q[None], True)
        rows = torch.stack((p, p.flip(0)))
        a, b = plain.verify(tree, rows), several.verify(tree, rows)
        assert torch.allclose(a.stop, b.stop, atol=1e-12)
        for row in a.stop.nonzero().flatten().tolist():
            assert torch.allclose(a.bonus(row), b.bonus(row), atol=1e-9)


def test_every_token_drafted_once_is_always_met():
    """RSD with k = v: whatever p is, its draw is among the siblings."""
    rule = make_method("verifier", "rsd")
    for seed, order in itertools.product(range(5), itertools.permutations(range(4))):
        p, q = pair(seed)
        tree = siblings_tree(list(order), shrinking(q, torch.tensor(order)), False)
        assert float(rule.verify(tree, p.expand(5, -1)).stop[0]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_acceptance_lies_between_one_draft_and_the_optimum(k):
    rule = make_method("verifier", "spectr")
    before = None
    for count in range(1, k + 1):
        rates = []
        for seed in range(8):
            p, q = pair(seed)
            rate = sum(
                chance * (1 - float(rule.verify(tree, p.expand(count + 1, -1)).stop[0]))
                for tree, chance in every_draft((-1,) * count, lambda text, q=q: q, INDEPENDENT)
            )
            best = optimal_acceptance(p, q, count, "independent")
            single = float(torch.minimum(p, q).sum())
            assert single - 1e-12 <= rate <= best + 1e-9
            assert rate >= (1 - 1 / torch.e) * best
            rates.append(rate)
        assert before is None or all(a <= b + 1e-12 for a, b in zip(before, rates, strict=True))
        before = rates


def law_of_one(rule, p: torch.Tensor, q: torch.Tensor, k: int) -> torch.Tensor:
    """Law of the emitted token over every ordered draw of k siblings without replacement."""
    law = torch.zeros_like(p)
    for tree, chance in every_draft((-1,) * k, lambda text: q, WITHOUT):
        verdict = rule.verify(tree, p.expand(k + 1, -1))
        for node in range(k):
            law[tree.tokens[node]] += chance * verdict.stop[node + 1]
        if float(verdict.stop[0]):
            law += chance * verdict.stop[0] * verdict.bonus(0)
    return law


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_every_ordered_draw_without_replacement_gives_p(k):
    """Up to all four tokens; q left as it was, or siblings tested in another order, is caught."""
    wrong = {"forgets to zero q": ForgetsToZeroQ(), "in token order": SiblingsInTokenOrder()}
    worst = dict.fromkeys(wrong, 0.0)
    for seed in range(10):
        p, q = pair(seed)
        for name in ("rsd", "multi_round"):
            law = law_of_one(make_method("verifier", name), p, q, k)
            assert torch.allclose(law, p, atol=1e-12), name
        for name, rule in wrong.items():
            off = float((law_of_one(rule, p, q, k) - p).abs().max())
            worst[name] = max(worst[name], off)
    assert all((off > 1e-3) == (k > 1) for off in worst.values()), worst


@pytest.mark.parametrize(
    ("name", "scheme"), [("rsd", WITHOUT), ("multi_round", WITHOUT), ("multi_round", INDEPENDENT)]
)
def test_where_p_is_q_the_first_sibling_is_always_taken(name, scheme):
    rule, (p, _) = make_method("verifier", name), pair(4)
    for tree, _ in every_draft((-1, -1, -1), lambda text: p, scheme):
        assert float(rule.verify(tree, p.expand(4, -1)).accept[0]) == pytest.approx(1)


def test_where_p_is_q_k_seq_always_takes_a_sibling():
    rule, (p, _) = make_method("verifier", "spectr"), pair(4)
    for tree, _ in every_draft((-1, -1, -1), lambda text: p, INDEPENDENT):
        assert float(rule.verify(tree, p.expand(4, -1)).stop[0]) == pytest.approx(0, abs=1e-9)


RENUMBERED = [
    ((-1, -1, 0, 0, 1, 1), (0, 2, 1, 3, 4, 5)),  # breadth first -> the first side goes down first
    ((-1, 0, 0, -1, 3), (0, 3, 1, 2, 4)),  # depth first -> level by level
]
TREE_RULES = [card.make() for card in methods("verifier") if not card.make().chains_only]


def ends(rule, tree: DraftTree, law_of) -> dict[tuple[int, ...], torch.Tensor]:
    """Chance of each token after each accepted text: equal texts are one, whatever their node."""
    verdict, found = rule.verify(tree, target_laws(tree, law_of)), {}
    for row, chance in enumerate(verdict.stop.tolist()):
        text = tuple(tree.tokens[tree.path_to(row)].tolist())
        if chance:
            found[text] = found.get(text, 0) + chance * verdict.bonus(row)
    return found


@pytest.mark.parametrize(("parent", "order"), RENUMBERED, ids=str)
@pytest.mark.parametrize("rule", TREE_RULES, ids=lambda rule: rule.name)
def test_the_numbering_of_nodes_does_not_matter(rule, parent, order):
    """Renumbered with siblings in the order drawn: the same end for every text."""
    target, draft = laws(3, 1, WARM), laws(3, 2, WARM)
    place, taken = {old: new for new, old in enumerate(order)} | {-1: -1}, 0
    for scheme in SCHEMES:
        for tree, _ in itertools.islice(every_draft(parent, draft, scheme), 0, None, 7):
            moved = DraftTree(
                tree.tokens[list(order)],
                tuple(place[parent[old]] for old in order),
                tree.probs[list(order)],
                with_replacement=tree.with_replacement,
            )
            try:
                one, other = ends(rule, tree, target), ends(rule, moved, target)
            except Mismatch:
                break
            taken += 1
            assert one.keys() == other.keys()
            assert all(torch.allclose(one[text], other[text], atol=1e-12) for text in one)
    assert taken, "the rule takes none of these drafts"
