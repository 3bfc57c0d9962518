"""The contracts of speculative decoding: Drafter, Verifier, LengthPolicy and what passes between.

One round: a policy grants a :class:`Budget`, a drafter proposes a :class:`DraftTree`, the target
scores it in one pass, a verifier turns the scores into a :class:`Verdict` (a law over where the
accepted path ends), the engine makes the one random draw, and everybody hears the
:class:`Feedback`. Methods are frozen; what changes is the state value ``S`` they hand back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float

from workbench.core.errors import UndeclaredNeed
from workbench.core.sampling import Sampling
from workbench.core.transfer import Crossings
from workbench.core.tree import DraftTree, shape_of

if TYPE_CHECKING:
    from workbench.models.learner import Learner
    from workbench.models.session import Session
    from workbench.models.store import Store
    from workbench.models.twin import Twin

S = TypeVar("S")


class Need(Enum):
    """A context field that costs something to provide, so a drafter declares it."""

    TARGET = "target"  # the target's own session (self-drafting)
    DRAFT = "draft"  # the session of a smaller model
    HIDDEN = "hidden"  # the target's hidden states of the committed tokens
    STORE = "store"  # a corpus to look things up in
    LEARNER = "learner"  # a copy of the draft model that is trained while decoding
    TWIN = "twin"  # a copy of the target that may be changed and drafted with


@dataclass
class Context:
    """What a drafter may look at. Reading a needed field that was not declared raises.

    Args:
        tokens: committed token ids, prompt included; the last one is the root.
        sampling: applied to p and q alike.
        rng: the CPU generator of the run; every random number of a drafter comes from it.
        vocab_size: number of tokens that both models share.
        device: where the target's logits live; trees are built there.
        provided: values of the declared needs.
        reported: what the methods said about this round, for its record (:meth:`report`).
        notes: sentences about this round (:meth:`say`).
        crossings: what went from one model's device to the other's in this round.
    """

    tokens: list[int]
    sampling: Sampling
    rng: torch.Generator
    vocab_size: int
    device: torch.device
    provided: dict[Need, Any] = field(default_factory=dict)
    reported: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    crossings: Crossings = field(default_factory=Crossings)

    def report(self, key: str, value: Any) -> None:
        """Put a small JSON-able value into this round's record, for the method's own picture."""
        self.reported[key] = value

    def say(self, sentence: str) -> None:
        """Put a sentence that a person should read into this round's note."""
        self.notes.append(sentence)

    def take_reports(self) -> tuple[dict[str, Any], str]:
        """What was reported, said and carried since the last call."""
        told, note = self.reported | self.crossings.take(), " ".join(self.notes)
        self.reported, self.notes = {}, []
        return told, note

    def _get(self, need: Need) -> Any:
        if need not in self.provided:
            raise UndeclaredNeed(
                f"context.{need.value} was read but the drafter's needs do not list"
                f" Need.{need.name}; add it to `needs`"
            )
        return self.provided[need]

    @property
    def target(self) -> Session:
        return self._get(Need.TARGET)

    @property
    def draft(self) -> Session:
        return self._get(Need.DRAFT)

    @property
    def hidden(self) -> dict[str, torch.Tensor]:
        """The target's hidden states ``[len(tokens)-1 d]``, by tap: all but the root's."""
        return self._get(Need.HIDDEN)

    @property
    def store(self) -> Store:
        """The corpus that the drafter's ``corpus`` (name, limit in tokens) stands for."""
        return self._get(Need.STORE)

    @property
    def learner(self) -> Learner:
        """A copy of the draft model, made when first used, whose weights may be trained."""
        return self._get(Need.LEARNER)

    @property
    def twin(self) -> Twin:
        """A copy of the target, made when first used, that may be pruned, adapted or cut."""
        return self._get(Need.TWIN)

    def here(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the target's device: what a draft elsewhere made crosses here, counted."""
        return self.crossings.carried(tensor, self.device)

    def uniform(self, *shape: int, device: torch.device | None = None) -> Float[torch.Tensor, ...]:
        """Fresh uniforms in [0, 1) from the run's generator, on the target's device or another.

        The generator is the CPU's. A draft on the CPU has its uniforms at once; those of a draft
        on a GPU cross to it where the target is not there too.
        """
        made = torch.rand(shape, generator=self.rng, dtype=torch.float64)
        if device is None or device == self.device:
            return made.to(self.device)
        return self.crossings.carried(made, device)


@dataclass(frozen=True)
class DraftStep:
    """What a drafter tells the policy after drafting one more level.

    Args:
        depth: of the level just drafted (1 = children of the root).
        law: the draft's law ``[v]`` there, or None where the drafter has none.
        logits: what the law was made of, before temperature ``[v]``.
        token: the drafted token of the main path (a 0-d tensor).
        hidden: the draft's final hidden state ``[d]`` of the pass that gave this law, so after
            reading the token *before* this one; only where ``budget.hidden`` asks for it.
    """

    depth: int
    law: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    token: torch.Tensor | None = None
    hidden: torch.Tensor | None = None


@dataclass(frozen=True)
class Budget:
    """What one round may spend: at most ``nodes`` nodes, ``depth`` levels, ``width`` siblings.

    ``go`` is asked after each level; with ``hidden`` a draft model's steps carry hidden states.
    ``steady``: it would never say no, so that levels can be drafted without asking.
    """

    depth: int
    nodes: int
    width: int
    go: Callable[[DraftStep], bool] = field(default=lambda step: True, repr=False)
    hidden: bool = False
    steady: bool = False


@dataclass(frozen=True)
class Outcome:
    """The end of a round: nodes accepted (root outwards), the extra token, what was emitted."""

    path: tuple[int, ...]
    bonus: int
    emitted: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Feedback:
    """Everything a round revealed. ``logits[i+1]`` is the target's view after node i.

    The tree is the one that was verified: where drafters were fused, not the one a part proposed.
    """

    tree: DraftTree
    logits: Float[torch.Tensor, "rows v"]
    hidden: dict[str, torch.Tensor]
    outcome: Outcome
    tokens: Sequence[int]  # committed tokens before this round, root last


@dataclass(frozen=True, eq=False)
class Verdict:
    """A law over outcomes.

    Args:
        stop: probability that the accepted path ends at each row; sums to 1.
        bonus: row -> law of the next token there.
        accept: probability that the walk moves on to each node once its parent is reached.

    Shapes: stop ``[n+1]``, bonus(row) ``[v]``, accept ``[n]``.
    """

    stop: Float[torch.Tensor, "rows"]
    bonus: Callable[[int], Float[torch.Tensor, "v"]]
    accept: Float[torch.Tensor, "n"]

    @staticmethod
    def at_root(p: Float[torch.Tensor, "rows v"]) -> Verdict:
        """The verdict of a tree without nodes: the next token is drawn from the root's law."""
        stop, accept = _certain(p.dtype)
        return Verdict(stop, p.__getitem__, accept)

    @staticmethod
    def from_accept(
        tree: DraftTree, accept: Float[torch.Tensor, "n"], bonus: Callable[[int], torch.Tensor]
    ) -> Verdict:
        """The verdict of a walk from the root that moves to child i with probability accept[i]."""
        chances = accept.tolist()
        reach, stop = [1.0], [0.0] * (len(tree) + 1)
        for node, parent in enumerate(tree.parent):
            reach.append(reach[parent + 1] * chances[node])
        for row, children in enumerate(shape_of(tree.parent).children):
            stop[row] = reach[row] * max(0.0, 1.0 - sum(chances[c] for c in children))
        return Verdict(torch.tensor(stop, dtype=accept.dtype), bonus, accept)

    def reach(self, tree: DraftTree) -> list[float]:
        """Probability that each row is on the accepted path (row 0: 1)."""
        mass = self.stop.tolist()
        for node in range(len(tree) - 1, -1, -1):
            mass[tree.parent[node] + 1] += mass[node + 1]
        return mass

    def expected_emitted(self, tree: DraftTree) -> float:
        """Expected tokens of the round: accepted nodes plus the extra one."""
        return sum(self.reach(tree))


@lru_cache(maxsize=4)
def _certain(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(1, dtype=dtype), torch.zeros(0, dtype=dtype)


@runtime_checkable
class Drafter(Protocol[S]):
    """Proposes draft trees. Stateless; ``S`` is whatever it wants carried from round to round.

    Two optional members: ``taps(layer_count) -> tuple[str, ...]`` names the hidden states wanted
    (default ``("final",)``; ``"k"`` = the stream after k layers), and ``resume(ctx, state) -> S``
    starts a run from the state that an earlier run ended with.
    """

    needs: frozenset[Need]

    def init(self, ctx: Context) -> S: ...

    def propose(self, ctx: Context, state: S, budget: Budget) -> tuple[DraftTree, S]: ...

    def update(self, ctx: Context, state: S, feedback: Feedback) -> S: ...


def resumed(drafter: Any, ctx: Context, state: Any) -> Any:
    """The drafter's state for a new text: carried over where it can resume, else new."""
    resume = getattr(drafter, "resume", None)
    return drafter.init(ctx) if resume is None else resume(ctx, state)


@runtime_checkable
class Verifier(Protocol):
    """Pure: no randomness, no model.

    ``verify(tree, p)`` takes the target's laws ``p [n+1 v]`` (after temperature, top-k, top-p).
    ``chains_only`` verifiers refuse trees that branch.
    """

    lossless: bool
    chains_only: bool

    def verify(self, tree: DraftTree, p: Float[torch.Tensor, "rows v"]) -> Verdict: ...


@runtime_checkable
class LengthPolicy(Protocol[S]):
    """Decides how much to draft. ``update`` hears the tree and the outcome of each round.

    ``go`` sees every step of the round so far, the level just drafted last. Optional members:
    ``needs`` (what ``init`` reads from the context), ``wants_hidden`` (steps carry hidden states),
    ``steady = True`` (``go`` never says no, so nobody has to ask) and ``report(state, steps)`` (a
    dict for the round's record).
    """

    def init(self, ctx: Context) -> S: ...

    def budget(self, state: S) -> Budget: ...

    def go(self, state: S, steps: Sequence[DraftStep]) -> bool: ...

    def update(self, state: S, tree: DraftTree, outcome: Outcome) -> S: ...


@runtime_checkable
class Schedule(Protocol):
    """In which order drafting and verifying happen; yields the rounds of a run."""

    def decode(self, run: Any, prompt: list[int]) -> Iterator[Any]: ...
