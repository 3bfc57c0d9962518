"""The trace of a run: frozen, schema-numbered JSON that needs no model to be shown.

An untrusted file can only fail with a clear error: msgspec decodes it into these types and every
cross-reference (parents, paths, row counts) is checked before anything is shown.

The four things called acceptance, each under its own name:
``accepted`` = draft tokens kept in a round; ``emitted`` = accepted + the extra token;
``acceptance_ratio`` = tokens kept / deepest level drafted; ``node_ratio`` = tokens kept / nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from workbench.core.crossed import Transfer
from workbench.core.errors import TraceError

SCHEMA = 1
NO_TOKEN = -1  # a round that ended without an extra token (its law was not known yet)

Fate = Literal["accepted", "bonus", "corrected"]
NodeFate = Literal["accepted", "rejected", "untested"]


class Top(msgspec.Struct, frozen=True):
    """The most likely tokens of one law, most likely first; the rest of the mass is not kept."""

    ids: list[int]
    probs: list[float]


class Limits(msgspec.Struct, frozen=True):
    """The budget that the policy granted."""

    depth: int
    nodes: int
    width: int


class Ms(msgspec.Struct, frozen=True):
    """Where the milliseconds of a round went; ``other`` is everything outside model forwards."""

    draft: float
    verify: float
    commit: float
    other: float

    @property
    def total(self) -> float:
        return self.draft + self.verify + self.commit + self.other


class Forwards(msgspec.Struct, frozen=True):
    """Model forwards spent in a round."""

    target: int
    draft: int


class Lane(msgspec.Struct, frozen=True):
    """A stretch of work on one device or thread, in milliseconds since the run's first round."""

    lane: str
    start_ms: float
    end_ms: float
    label: str
    fate: Literal["kept", "wasted", "idle", "in_flight"] = "kept"
    simulated: bool = False


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One draft-verify-commit cycle. Rows: 0 is the root, row i+1 is node i."""

    index: int
    start: int  # committed tokens before the round, root included
    root: int
    tokens: list[int]  # [n]
    parent: list[int]  # [n], -1 = root
    drawn: Literal["chosen", "with_replacement", "without_replacement"]
    accept: list[float]  # [n] probability of moving to the node once its parent is reached
    stop: list[float]  # [n+1] probability that the accepted path ends at the row
    uniform: float  # the draw that decided where the path ended
    path: list[int]  # accepted nodes, root outwards
    bonus: int  # the extra token that verification produced, or NO_TOKEN
    emitted: list[int]  # tokens that joined the text (cut at EOS and at the limit)
    budget: Limits
    ms: Ms
    forwards: Forwards
    forward_ms: float = 0.0  # milliseconds of the round inside model forwards, target and draft
    p_node: list[float]  # [n] target probability of the node's token at its parent
    q_node: list[float] | None = None  # [n] probability it was drawn with; None = chosen
    score: list[float] | None = None  # [n] the drafter's own score
    p_top: list[Top] = []  # [n+1] target law after each row
    q_top: list[Top] = []  # [n] law each node was drawn from
    p_bits: list[float] = []  # [n+1] entropy of the target law after each row
    q_bits: list[float] = []  # [n] entropy of the law each node was drawn from
    note: str = ""
    report: dict[str, Any] = {}  # what the methods said about themselves, for their own pictures
    lanes: list[Lane] = []  # of schedules that overlap work

    def __post_init__(self) -> None:
        n = len(self.tokens)
        for name, wanted in (("parent", n), ("accept", n), ("stop", n + 1), ("p_node", n)):
            if len(getattr(self, name)) != wanted:
                raise ValueError(f"round {self.index}: {name} needs {wanted} entries")
        optional = {"q_node": n, "score": n, "p_top": n + 1, "q_top": n, "q_bits": n}
        for name, wanted in {**optional, "p_bits": n + 1}.items():
            value = getattr(self, name)
            if value and len(value) != wanted:
                raise ValueError(f"round {self.index}: {name} needs {wanted} entries")
        for node, parent in enumerate(self.parent):
            if not -1 <= parent < node:
                raise ValueError(f"round {self.index}: parent[{node}]={parent} must precede it")
        above = -1
        for node in self.path:
            if not (0 <= node < n and self.parent[node] == above):
                raise ValueError(f"round {self.index}: path {self.path} leaves the tree")
            above = node

    @property
    def accepted(self) -> int:
        """Draft tokens kept."""
        return len(self.path)

    @property
    def depth(self) -> list[int]:
        """Depth of each node; children of the root have depth 1."""
        depth: list[int] = []
        for parent in self.parent:
            depth.append(1 if parent < 0 else depth[parent] + 1)
        return depth

    @property
    def end_fate(self) -> Fate:
        """``bonus`` where every drafted token on the way was kept, else ``corrected``."""
        end = self.path[-1] if self.path else -1
        return "corrected" if end in self.parent else "bonus"

    @property
    def fates(self) -> list[Fate]:
        """Fate of each emitted token."""
        kept = min(len(self.path), len(self.emitted))
        return ["accepted"] * kept + [self.end_fate] * (len(self.emitted) - kept)

    @property
    def node_fates(self) -> list[NodeFate]:
        """Accepted; rejected = a sibling tested at a node of the path and refused; else untested.

        Siblings after an accepted one in draw order were never tested.
        """
        on_path, found = set(self.path), []
        closed: set[int] = set()
        for node, parent in enumerate(self.parent):
            tested = (parent < 0 or parent in on_path) and parent not in closed
            if node in on_path:
                found.append("accepted")
                closed.add(parent)
            else:
                found.append("rejected" if tested else "untested")
        return found

    @property
    def transfer(self) -> Transfer | None:
        """What crossed between two devices; None where nothing did."""
        return Transfer.told(self.report)

    @property
    def expected_emitted(self) -> float:
        """Expected tokens of the round under the verifier's law (not what the draw gave)."""
        mass = list(self.stop)
        for node in range(len(self.parent) - 1, -1, -1):
            mass[self.parent[node] + 1] += mass[node + 1]
        return sum(mass)


class Method(msgspec.Struct, frozen=True):
    """A method's registered name and its knob values."""

    name: str
    knobs: dict[str, Any] = {}


class Baseline(msgspec.Struct, frozen=True):
    """Plain decoding measured in the same session: tokens and the milliseconds they took."""

    tokens: int
    ms_per_token: float
    ms_low: float  # 5 % and 95 % of the bootstrapped mean
    ms_high: float


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run: settings, prompt, rounds and the text pieces of every token id in it."""

    schema: int = SCHEMA
    model: str
    device: str
    dtype: str
    drafter: Method
    verifier: Method
    policy: Method
    schedule: Method = Method("sequential")
    sampling: dict[str, float]
    prompt: str
    prompt_tokens: list[int]
    rounds: list[Round] = []
    pieces: dict[int, str] = {}
    draft_model: str = ""
    draft_device: str = ""  # of the draft model, where there is one
    prefill_ms: float = 0.0
    max_new_tokens: int = 0
    finish: str = ""  # "", "length", "eos", "stopped", "context"
    baseline: Baseline | None = None
    versions: dict[str, str] = {}
    vocab_size: int = 0  # width of the laws; 0 = not recorded

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is not {SCHEMA}, the one this version reads")

    def piece(self, token: int) -> str:
        """Text of one token id; an id without a stored piece shows as ``<id>``, none as nothing."""
        if token == NO_TOKEN:
            return ""
        return self.pieces.get(token, f"<{token}>")

    @property
    def new_tokens(self) -> list[int]:
        return [token for r in self.rounds for token in r.emitted]

    @property
    def text(self) -> str:
        """Generated text, piece by piece (characters split over tokens show as replacement)."""
        return "".join(self.piece(token) for token in self.new_tokens)

    @property
    def total_ms(self) -> float:
        """Milliseconds of all rounds; the prompt's prefill is in ``prefill_ms``."""
        return sum(r.ms.total for r in self.rounds)

    @property
    def transfer(self) -> Transfer | None:
        """What crossed between two devices in all rounds; None where nothing did."""
        return Transfer.total(r.transfer for r in self.rounds)

    @property
    def summary(self) -> dict[str, float]:
        """new_tokens, rounds, mean_emitted, mean_accepted, ratios, tokens_per_s, ms."""
        rounds, emitted = len(self.rounds), len(self.new_tokens)
        kept = sum(r.accepted for r in self.rounds)
        levels = sum(max(r.depth, default=0) for r in self.rounds)
        nodes = sum(len(r.tokens) for r in self.rounds)
        total = self.total_ms
        inside = sum(r.forward_ms for r in self.rounds)
        return {
            "new_tokens": emitted,
            "rounds": rounds,
            "mean_emitted": emitted / rounds if rounds else 0.0,
            "mean_accepted": kept / rounds if rounds else 0.0,
            "acceptance_ratio": kept / levels if levels else 0.0,
            "node_ratio": kept / nodes if nodes else 0.0,
            "tokens_per_s": emitted / total * 1e3 if total else 0.0,
            "ms": total,
            "outside_forward_ratio": 1 - inside / total if total else 0.0,
        }

    def with_(self, **changes: Any) -> Trace:
        """A copy with some fields replaced."""
        return msgspec.structs.replace(self, **changes)

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    def save(self, path: str | Path) -> Path:
        """Write JSON; a half-written file never replaces a whole one."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(self.to_json())
        return partial.replace(path)

    @staticmethod
    def from_json(data: bytes | str, source: str = "trace") -> Trace:
        """Decode and validate.

        Raises:
            TraceError: not JSON, another schema, a missing field, or rows that contradict.
        """
        try:
            return msgspec.json.decode(data, type=Trace)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise TraceError(
                f"{source}: not a trace of this workbench ({error}). Save one with"
                " `workbench generate ... --trace FILE` or the lab's export."
            ) from None

    @staticmethod
    def load(path: str | Path) -> Trace:
        """Read a saved trace; see :meth:`from_json` for what can go wrong."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise TraceError(f"trace={str(path)!r}: cannot be read ({error.strerror})") from None
        return Trace.from_json(data, str(path))

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dictionary per round, for tables."""
        rows = []
        for r in self.rounds:
            moved = r.transfer or Transfer(0.0, 0)
            rows.append(
                {
                    "round": r.index,
                    "start": r.start,
                    "nodes": len(r.tokens),
                    "depth": max(r.depth, default=0),
                    "accepted": r.accepted,
                    "emitted": len(r.emitted),
                    "expected_emitted": r.expected_emitted,
                    "end": r.end_fate,
                    "text": "".join(self.piece(t) for t in r.emitted),
                    "draft_ms": r.ms.draft,
                    "verify_ms": r.ms.verify,
                    "commit_ms": r.ms.commit,
                    "other_ms": r.ms.other,
                    "forward_ms": r.forward_ms,
                    "transfer_ms": moved.ms,
                    "transfer_bytes": moved.bytes,
                    "target_forwards": r.forwards.target,
                    "draft_forwards": r.forwards.draft,
                }
            )
        return rows

    def to_pandas(self):
        """One row per round (needs pandas)."""
        import pandas

        return pandas.DataFrame(self.to_rows())

    def to_parquet(self, path: str | Path) -> Path:
        """The table of rounds as parquet (needs pandas and pyarrow)."""
        self.to_pandas().to_parquet(path)
        return Path(path)
