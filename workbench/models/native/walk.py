"""The compiled pass: the fused walk's arithmetic in one call, where all parts are plain."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from workbench.core.sampling import Sampling
from workbench.core.span import Span
from workbench.models.anatomy import Anatomy
from workbench.models.cache import HeldStores, KeyValueCache
from workbench.models.native.build import Ends, RowBlock, Store, kernel
from workbench.models.native.laws import Chain
from workbench.models.native.packed import Packed, address, pointer
from workbench.models.native.panels import multiplied
from workbench.models.rows import Rows
from workbench.models.walk import Activations
from workbench.models.watch import WatchedWalk

# Beyond this many rows a pass is bound by arithmetic, and torch's own products are as good.
MOST_ROWS = 256
# Different spans and taps whose order of steps is remembered.
_PLANS = 64
_SINGLE = torch.empty(1, 1)  # tells the rotary module the precision


class NativeWalk(WatchedWalk):
    """Runs whole stretches of layers in one call of the compiled kernel.

    The weights are packed in advance, so it is in use only while the network is as it was then.
    """

    most_rows = MOST_ROWS

    def __init__(self, anatomy: Anatomy):
        super().__init__(anatomy)
        self._plans: dict[tuple, list[_Step]] = {}

    def check(self) -> None:
        """Look at the weights themselves; called when a session begins."""
        if self._made is not None and not (self._made.current() and self._made.unchanged()):
            self._try_soon()
            if self._made.current():
                self._made = None

    def _make(self) -> Packed:
        packed = Packed(self.anatomy)
        self._plans.clear()
        return packed

    @property
    def bytes(self) -> int:
        """Memory that the packed copy takes."""
        return self._made.bytes if self._made is not None else 0

    def __call__(
        self, rows: Rows, cache: KeyValueCache, span: Span | None, capture, stream=None
    ) -> Activations:
        """As the fused walk; call it only when :meth:`ready`.

        Raises:
            IndexError: a token that has no embedding.
        """
        packed = self._made
        assert packed is not None  # ready() said so
        steps, taps = self._plan(span, capture), {}
        stores, block = Addresses.of(cache, packed).table, self._block(rows)
        hidden, ends = self._entered(rows, stream, steps)
        for step in steps:
            if step.kind == "tap":
                taps[str(step.first)] = hidden.clone()
            elif step.kind == "torch":
                hidden += self._torch_mlp(step.first, hidden)
            else:
                if step is steps[-1]:
                    ends.norm, ends.eps = packed.final_norm, packed.final_eps
                self._run(step, stores, block, ends, hidden)
                ends.table = None
        if not ends.norm:
            self._normed(hidden)
        length = rows.past + block.count
        for index, layer in enumerate(cache.layers):
            if span is None or index in span.attention:
                layer.length = length
        if "final" in capture:
            taps["final"] = hidden
        return Activations(hidden, taps, self.logits)

    def _entered(self, rows: Rows, stream, steps: list[_Step]) -> tuple[torch.Tensor, Ends]:
        """The stream to run in ``[n d]``, filled, or with the embedding left to the first step."""
        table = self._made.embedding
        if stream is not None:
            return stream.clone(), Ends()
        if table is None or not steps or steps[0].kind != "layers":
            return self.anatomy.embed(rows.ids), Ends()
        hidden = torch.empty(len(rows.ids), self._made.embedding_shape[1])
        return hidden, self._ends(rows.ids)

    def _run(self, step: _Step, stores, block: RowBlock, ends: Ends, hidden: torch.Tensor) -> None:
        """One stretch of layers, and what stands before and after it."""
        bad = kernel().wb_layers(
            self._made.layers_at,
            address(stores),
            address(block),
            address(ends),
            step.first,
            step.last,
            step.attend,
            step.feed,
            hidden.data_ptr(),
        )
        if bad:
            raise _unknown(ends)

    def _block(self, rows: Rows) -> RowBlock:
        """The rows as the kernel wants them; what it points to lives as long as ``rows``."""
        n, biased = len(rows.ids), rows.bias is not None
        cos, sin = self.rotary_tables(_SINGLE, rows.past + n)
        return RowBlock(
            n,
            rows.past,
            cos.data_ptr(),
            sin.data_ptr(),
            pointer(rows.depth),
            pointer(rows.mask if biased else rows.block),
            0 if biased else rows.origin,
            rows.origin,
            torch.get_num_threads(),
        )

    @property
    def whole(self) -> bool:
        """Whether nothing between a token and its logits is left to torch; once :meth:`ready`."""
        packed = self._made
        return packed.embedding is not None and all(map(packed.feeds, range(len(packed.layers))))

    def chain(
        self,
        cache: KeyValueCache,
        ids: torch.Tensor,
        steps: int,
        sampling: Sampling,
        uniforms: Sequence[float],
    ) -> Chain | None:
        """Feed ``ids [n]`` after what ``cache`` holds, then draw ``steps`` tokens one by one.

        The cache needs room for them; it holds all but the last drawn one afterwards.

        Args:
            uniforms: one a step; not read at temperature 0.

        Returns:
            None where a logit is not finite; call it only when :meth:`ready` and :attr:`whole`.

        Raises:
            IndexError: a token that has no embedding.
        """
        packed, past, n = self._made, cache.layers[0].length, len(ids)
        assert packed is not None  # ready() said so
        tables = self.rotary_tables(_SINGLE, past + n + steps)
        cos, sin = (table.data_ptr() for table in tables)
        block = RowBlock(n, past, cos, sin, None, None, 0, 0, torch.get_num_threads())
        ends = self._ends(ids)
        ends.norm, ends.eps = packed.final_norm, packed.final_eps
        logits, laws = torch.empty(2, steps, ends.vocabulary).unbind()
        tokens, chances = (ctypes.c_int64 * steps)(), torch.empty(steps)
        draws = (ctypes.c_double * steps)(*uniforms)  # named: it must live as long as its address
        done = kernel().wb_chain(
            packed.layers_at,
            len(packed.layers),
            address(Addresses.of(cache, packed).table),
            address(block),
            address(ends),
            address(packed.head),
            sampling.temperature,
            address(draws),
            steps,
            logits.data_ptr(),
            laws.data_ptr(),
            chances.data_ptr(),
            address(tokens),
        )
        if done < 0:
            raise _unknown(ends)
        for layer in cache.layers:
            layer.length = past + n + steps - 1
        return Chain(tokens[:], laws, chances) if done == steps else None

    def _ends(self, ids: torch.Tensor) -> Ends:
        """What embeds these ids; they have to live as long as it does."""
        vocabulary, _ = self._made.embedding_shape
        return Ends(self._made.embedding.data_ptr(), ids.data_ptr(), vocabulary)

    def logits(self, final: torch.Tensor) -> torch.Tensor:
        """The head's logits of normed states ``[n d]``."""
        head = self._made.head
        return multiplied(head, final, torch.empty(len(final), head.outputs))

    def _normed(self, hidden: torch.Tensor) -> None:
        """The last norm, in place."""
        packed, at = self._made, hidden.data_ptr()
        kernel().wb_norm(packed.final_norm, packed.final_eps, *hidden.shape, at, at)

    def _torch_mlp(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        layer = self.anatomy.layers[index]
        mixed = layer.mlp(layer.post_attention_layernorm(hidden)[None])
        return (mixed[0] if isinstance(mixed, tuple) else mixed).view_as(hidden)

    def _plan(self, span: Span | None, capture: tuple[str, ...]) -> list[_Step]:
        key = (span, tuple(capture))
        if key not in self._plans:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[key] = list(self._steps(span, capture))
        return self._plans[key]

    def _steps(self, span: Span | None, capture: tuple[str, ...]) -> Iterator[_Step]:
        """Taps, stretches of layers alike, and MLPs that stay with torch, in order."""
        count, run = len(self.anatomy.layers), None
        for index in range(count + 1):
            attend = index < count and (span is None or index in span.attention)
            feed = index < count and (span is None or index in span.mlp)
            apart = feed and not self._made.feeds(index)
            alike = run is not None and (run.attend, run.feed) == (attend, feed) and not apart
            tapped = str(index) in capture
            if run is not None and (not alike or tapped or index == count):
                yield run
                run = None
            if tapped:
                yield _Step("tap", index)
            if apart:
                yield _Step("layers", index, index + 1, attend, False)
                yield _Step("torch", index)
            elif attend or feed:
                run = _Step("layers", run.first if run else index, index + 1, attend, feed)


def _unknown(ends: Ends) -> IndexError:
    return IndexError(f"tokens: an id is outside of the {ends.vocabulary} embeddings")


class _Step(NamedTuple):
    kind: str
    first: int
    last: int = 0
    attend: bool = False
    feed: bool = False


class Addresses(HeldStores):
    """Where the keys and values of one session's cache lie, as the kernel wants to know it."""

    def __init__(self, cache: KeyValueCache, packed: Packed):
        for layer, shape in zip(cache.layers, packed.layers, strict=True):
            if layer.key_store is None:
                empty = torch.empty(1, shape.kv_heads, 0, shape.size)
                layer.allocate(empty, empty)
        super().__init__(cache)
        places = [(*(x.data_ptr() for x in pair), pair[0].shape) for pair in self.stores]
        self.table = (Store * len(places))(
            *(Store(keys, values, shape[2], *shape[1::2]) for keys, values, shape in places)
        )

    @staticmethod
    def of(cache: KeyValueCache, packed: Packed) -> Addresses:
        """Those known already, or looked up anew where the cache has moved."""
        known = cache.addresses
        if not isinstance(known, Addresses) or not known.hold(cache):
            known = cache.addresses = Addresses(cache, packed)
        return known

    def move(self, start: int, sources: list[int]) -> None:
        """Copy the slots ``sources``, which rise, to ``start`` onwards in every layer."""
        array = (ctypes.c_int64 * len(sources))(*sources)
        kernel().wb_move(address(self.table), len(self.table), start, address(array), len(array))
