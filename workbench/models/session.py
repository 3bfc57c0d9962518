"""One model, one key/value cache, one device: the only mutable thing in decoding.

Convention: ``tokens`` are those whose keys and values are stored. A forward scores further rows
without storing them for good; ``commit`` keeps a path of them and drops the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from workbench.core.clock import elapsed_ms, now
from workbench.core.errors import BadInput, ModelError, NotFinite
from workbench.core.inference import inference_mode
from workbench.core.sampling import Sampling
from workbench.core.span import Span
from workbench.core.transfer import sent
from workbench.models import walk
from workbench.models.account import Account
from workbench.models.anatomy import first_bad_layer, longest_list
from workbench.models.cache import KeyValueCache
from workbench.models.forward import Ascent, Forward, common_prefix, tree_block
from workbench.models.native.laws import Chain, plain
from workbench.models.places import PassOf
from workbench.models.rows import Rows

# Nobody can stop a chain of steps in between; longer ones go step by step.
_LONGEST_CHAIN_MS = 100.0


class Session(Account):
    """Scores rows of tokens with one model and remembers the committed ones.

    Virtual tokens of the model stand in front of the text and are none of ``tokens``; a session
    keeps those that it began with, also where the model gets others meanwhile.

    Args:
        model: a loaded :class:`workbench.models.model.Model`.
        capacity: tokens to make room for at first; the cache grows by doubling.
    """

    def __init__(self, model, capacity: int = 512):
        super().__init__()
        self.model = model
        self.tokens: list[int] = []
        front = model.virtual_keys()
        self._cache = KeyValueCache(model.layer_count, capacity, front.layers if front else ())
        self._bias = front.bias if front else None
        self._pending: list[int] | torch.Tensor = []
        self._pending_parent: tuple[int, ...] = ()
        self._ascended: Ascent | None = None
        self._pass_ms = math.inf  # the last pass; known on a CPU, where asking does not wait

    @property
    def device(self) -> torch.device:
        return self.model.torch_device

    def __len__(self) -> int:
        return len(self.tokens)

    @inference_mode()
    def forward(
        self,
        tokens: Sequence[int] | torch.Tensor,
        parent: Sequence[int] | None = None,
        *,
        span: Span | None = None,
        capture: tuple[str, ...] = (),
        last_only: bool = False,
        grow: bool = False,
    ) -> Forward:
        """Score ``n`` rows that follow the stored tokens.

        Args:
            tokens: ids of the rows; row 0 is the root.
            parent: row that each row follows, -1 for the stored tokens; None = a chain.
            span: sub-layers to run (None = all); needs a walkable family.
            capture: hidden states to keep: ``"final"`` (after the last norm) or ``"k"`` = the
                stream after k layers.
            last_only: run the output head on the last row only.
            grow: the rows hang below those of the last forward, which are not committed yet;
                ``parent`` then counts all of them, and only the new rows are computed.

        A chain that begins with the rows of :meth:`ascend` goes on from where those ended.

        Shapes: logits ``[n v]`` (``[1 v]`` with ``last_only``), hidden ``[n d]`` each.

        Raises:
            BadInput: no rows, or more than the context holds.
            ModelError: a span or a tree that this family cannot do, or no memory left.
        """
        n = len(tokens)
        if n == 0:
            raise BadInput("forward: tokens is empty; pass at least one row")
        above = tuple(range(-1, n - 1)) if parent is None else tuple(parent)
        if grow and len(self._pending):
            tokens = torch.cat([torch.as_tensor(self._pending), torch.as_tensor(tokens)])
            above = (*self._pending_parent, *above)
        self.check_room(len(above))
        if span is not None:
            self._check_span(span)
        below = None if grow or span else self._prepared(tokens, above, capture)
        began, rows = now(self.device), self._rows(tokens, above, n)
        logits, hidden = self._guarded(rows, len(above), span, capture, last_only, below)
        self._pending, self._pending_parent = tokens, above
        self._ascended = None
        if span is None:
            self.forwards += 1
        else:
            self.partial_forwards += 1
        forward = Forward(logits, hidden, (began, now(self.device)))
        self.timings.append(forward.marks)
        if self.device.type == "cpu":
            self._pass_ms = forward.ms
        return forward

    @inference_mode()
    def ascend(self, tokens: Sequence[int] | torch.Tensor, depth: int) -> torch.Tensor:
        """Run a chain through the first ``depth`` layers only, and keep it prepared.

        The rows follow the stored tokens and the rows ascended before; the next full forward of a
        chain that begins with them resumes at layer ``depth`` (Kangaroo, arXiv 2404.18911).

        Returns:
            The stream after ``depth`` layers, ``[n d]``.
        """
        so_far = self._ascended
        if so_far is None or so_far.depth != depth:
            so_far = Ascent([], None, depth)
        span = Span.first(depth)
        self._check_span(span)
        new = [int(t) for t in tokens]
        every, n = [*so_far.tokens, *new], len(new)
        self.check_room(len(every))
        above = tuple(range(-1, len(every) - 1))
        began, rows = now(self.device), self._rows(every, above, n)
        _, taps = self._guarded(rows, len(every), span, (str(depth),), None, None)
        stream = taps[str(depth)]
        joined = stream if so_far.stream is None else torch.cat((so_far.stream, stream))
        self._ascended = Ascent(every, joined, depth, (*so_far.passes, rows))
        self._pending, self._pending_parent = [], ()
        self.partial_forwards += 1
        self.timings.append((began, now(self.device)))
        return stream

    def runs_on(self, sampling: Sampling, steps: int) -> bool:
        """Whether :meth:`run_on` can draw by ``sampling`` here, and soon enough to be stopped.

        What a step takes is known from the last pass, so there has to be one.
        """
        native = self.model.native if self._bias is None else None
        if native is None or steps * self._pass_ms > _LONGEST_CHAIN_MS or not plain(sampling):
            return False
        return native.ready(1) and native.whole

    @inference_mode()
    def run_on(
        self, tokens: Sequence[int], steps: int, sampling: Sampling, uniforms: Sequence[float]
    ) -> Chain | None:
        """Make the stored tokens ``tokens``, of which one at least is new, and draw more of them.

        All of it is one call; only where :meth:`runs_on`.

        Args:
            steps: tokens to draw, from ``uniforms`` (one each; not read at temperature 0).

        Returns:
            The drawn tokens, of which all but the last are stored too. None where a logit was not
            finite.
        """
        tokens = list(tokens)
        self.crop(common_prefix(self.tokens, tokens))
        past = len(self.tokens)
        self.check_room(len(tokens) - past + steps)
        self._cache.reserve(len(tokens) + steps)
        ids = torch.tensor(tokens[past:], device=self.device)
        began = now(self.device)
        chain = self.model.native.chain(self._cache, ids, steps, sampling, uniforms)
        self.tokens = [*tokens, *(chain.tokens[:-1] if chain else ())]
        self._cache.set_length(len(self.tokens))
        self.forwards += steps
        self.timings.append((began, now(self.device)))
        self._pass_ms = elapsed_ms(*self.timings[-1]) / steps
        return chain

    def _check_span(self, span: Span) -> None:
        name = self.model.name
        if not self.model.spans:
            raise ModelError(f"{name}: layers cannot be skipped, {self.model.reason}")
        if span.attention != span.mlp and self.model.mode != "fused":
            raise ModelError(
                f"{name}: attention and MLP cannot be skipped apart, only whole layers can,"
                f" because {self.model.reason or 'its layers are no plain pre-norm blocks'}"
            )

    def _prepared(self, tokens, above, capture) -> Ascent | None:
        """These rows up to the ascended depth, where they begin with ascended ones."""
        done = self._ascended
        if done is None or above != tuple(range(-1, len(above) - 1)):
            return None
        rows = [int(t) for t in tokens]
        early = any(tap != "final" and int(tap) < done.depth for tap in capture)
        if early or rows[: len(done.tokens)] != done.tokens:
            return None
        if len(rows) > len(done.tokens):
            self.ascend(rows[len(done.tokens) :], done.depth)
        return self._ascended

    def _guarded(self, rows, total, span, capture, last_only, below: Ascent | None):
        """Run the last of ``total`` rows; running out of memory leaves the session as it was."""
        past = len(self.tokens)
        self._cache.set_length(past + total - len(rows.ids))
        try:
            self._cache.reserve(past + total)
            with PassOf(rows, self._cache.front_tokens, below.passes if below else ()):
                if below is not None:
                    self._cache.set_length(past)
                    return self._resumed(rows, below, capture, last_only)
                return self._run(rows, span, capture, last_only)
        except (torch.OutOfMemoryError, MemoryError) as error:
            self._cache.set_length(past)
            self._ascended = None
            raise ModelError(
                f"{self.model.name}: out of memory at {past + total} tokens; use a shorter prompt,"
                f" a smaller draft tree or a smaller model ({error})"
            ) from None

    def _resumed(self, rows, below: Ascent, capture, last_only):
        rest = Span.of(range(below.depth, self.model.layer_count))
        done = self._walk(rows, rest, capture, below.stream)
        for layer in self._cache.layers[: below.depth]:
            layer.length = rows.past + len(rows.ids)
        return self._headed(done, last_only)

    def _run(self, rows, span, capture, last_only):
        model = self.model
        if model.mode == "stock":
            return walk.stock_pass(model.network, rows, self._cache, capture, last_only)
        return self._headed(self._walk(rows, span, capture, None), last_only)

    def _walk(self, rows, span, capture, stream) -> walk.Activations:
        model = self.model
        if model.mode == "fused":
            return model.walker(rows.ids.shape[0])(rows, self._cache, span, capture, stream)
        return walk.walk_pass(model.anatomy, rows, self._cache, span, capture, stream)

    def _headed(self, done: walk.Activations, last_only: bool | None):
        """The head's logits of every row, of the last one only, or of none (``None``)."""
        if last_only is None:
            return None, done.taps
        return done.logits(done.final[-1:] if last_only else done.final), done.taps

    def _rows(self, tokens, parent: tuple[int, ...], n: int) -> Rows:
        total, origin = len(parent), len(self.tokens) + self._cache.front_tokens
        ids = tokens[-n:]
        ids = ids.to(self.device, torch.long) if torch.is_tensor(ids) else sent(ids, self.device)
        dtype, past = self.model.torch_dtype, origin + total - n
        chain = parent == tuple(range(-1, total - 1))
        if chain and (n == total or n == 1):
            return Rows(ids, past, origin, None, None, self._bias, dtype)
        if not self.model.trees and not chain:
            raise ModelError(
                f"{self.model.name}: a branching tree cannot be scored, {self.model.reason}; use a"
                " drafter that proposes one chain (prompt_lookup), or a width of 1"
            )
        block, depth = tree_block(parent, dtype, str(self.device))
        return Rows(ids, past, origin, depth[-n:], block[-n:], self._bias, dtype)

    def check_room(self, n: int) -> None:
        """Raise where ``n`` more rows do not fit the context."""
        limit, used = self.model.context_tokens, len(self.tokens)
        if used + n > limit:
            raise BadInput(
                f"context: {used} stored + {n} new tokens exceed the {limit} that"
                f" {self.model.name} can hold ({self.model.context_reason}); shorten the prompt"
                " or ask for fewer new tokens"
            )

    def commit(self, rows: Sequence[int], tokens: Sequence[int] | None = None) -> None:
        """Keep these rows of the last forward (a path from its first row), drop the others.

        ``tokens`` are those of all its rows, where somebody has read them from the device already.
        """
        kept, pending = list(rows), self._pending if tokens is None else tokens
        if torch.is_tensor(pending):
            pending = pending.tolist()
        if kept and not 0 <= min(kept) <= max(kept) < len(pending):
            raise BadInput(f"commit: rows {kept} are not among the {len(pending)} rows just scored")
        self._forget_rows()
        self._cache.keep(len(self.tokens), kept)
        self.tokens.extend(int(pending[row]) for row in kept)

    def crop(self, length: int) -> None:
        """Forget everything after the first ``length`` stored tokens."""
        del self.tokens[length:]
        self._cache.set_length(len(self.tokens))
        self._forget_rows()

    def _forget_rows(self) -> None:
        self._pending, self._pending_parent, self._ascended = [], (), None

    def sync(
        self, tokens: Sequence[int], *, capture: tuple[str, ...] = (), chunk_tokens: int = 2048
    ) -> Forward | None:
        """Make the stored tokens equal ``tokens``: crop to the common prefix, feed the rest.

        Returns:
            The last forward (``logits [1 v]`` of the last row, hidden states of every row fed), or
            None where nothing was missing.
        """
        tokens = list(tokens)
        common = common_prefix(self.tokens, tokens)
        self.crop(common)
        last, hidden = None, []
        for start in range(common, len(tokens), chunk_tokens):
            piece = tokens[start : start + chunk_tokens]
            last = self.forward(piece, capture=capture, last_only=True)
            self.commit(range(len(piece)))
            hidden.append(last.hidden)
        if len(hidden) > 1:
            joined = {name: torch.cat([part[name] for part in hidden]) for name in capture}
            last = Forward(last.logits, joined, last.marks)
        return last

    @contextmanager
    def scratch(self) -> Iterator[Session]:
        """Whatever is committed inside is forgotten on exit; the stored prefix stays."""
        length = len(self.tokens)
        try:
            yield self
        finally:
            self.crop(length)

    def explain_not_finite(self, tokens: Sequence[int]) -> NotFinite:
        """The error to raise after NaN or infinite logits; names the layer that made the first."""
        self._cache.wipe(len(self.tokens))
        name, network = self.model.name, self.model.network
        ids = torch.tensor([list(tokens)], device=self.device)
        layers = self.model.anatomy.layers if self.model.anatomy else longest_list(network)
        with inference_mode():
            where = first_bad_layer(network, layers, lambda: network(input_ids=ids))
        return NotFinite(
            f"{name}: logits are not finite; the first NaN or infinity comes from {where}."
            " Load the model in another dtype (dtype='float32'), or undo the last change to it."
        )
