"""The recorded pass: the fused walk replayed from a recording, one for each bucket of rows.

On a GPU a pass over a few rows is mostly the launching of some 25 kernels a layer; a CUDA graph
launches them all at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from workbench.core.span import Span
from workbench.models import agreement
from workbench.models.anatomy import Anatomy
from workbench.models.cache import HeldStores, KeyValueCache
from workbench.models.native.build import Unavailable
from workbench.models.recording import Outputs, Recording, Work
from workbench.models.rows import Rows
from workbench.models.static_pass import ROWS, Bucket, StaticPass, rows_of
from workbench.models.walk import Activations
from workbench.models.watch import Watch, WatchedWalk

# Recordings of one session; the one that was not used for longest goes.
MOST_KEPT = 24
UNPROVEN = "not compared with the model's own forward yet"
# Switches recordings off, to compare.
SWITCH = "WORKBENCH_GRAPHS"
_TRUSTED = ("torch", "transformers")


class GraphWalk(WatchedWalk):
    """Records a pass when a bucket is met for the first time, and replays it from then on.

    A recording has addresses in it: of the weights, whose changes in place it follows, and of one
    session's cache, so it is dropped when that grows. The output head stays outside, which keeps
    its logits as many as there are rows. A new recording is compared with the same pass called
    plainly; one that differs, or a pass that cannot be recorded, ends them all: ``refused`` says
    why, and the walk runs. A span, a resumed stream, a biased cache or a prompt is the walk's, too.

    Args:
        anatomy: of a model in the "fused" mode.
        recorder: what takes a pass down.
    """

    most_rows = ROWS[-1]

    def __init__(self, anatomy: Anatomy, recorder: Callable[[Work], Recording]):
        super().__init__(anatomy)
        self.refused = UNPROVEN
        self._recorder = recorder

    def ready(self, rows: int) -> bool:
        """Whether a pass over so many rows may be a recorded one."""
        return not self.refused and super().ready(rows)

    def check(self) -> None:
        """Look where the weights lie; called when a session begins."""
        if self._made is None or not (self._made.current() and self._made.unmoved()):
            self._try_soon()
            if self._made is not None and self._made.current():
                self._made = None

    def _make(self) -> _Ground:
        return _Ground(self.anatomy)

    def __call__(
        self, rows: Rows, cache: KeyValueCache, span: Span | None, capture, stream=None
    ) -> Activations:
        """As the fused walk; call it only when :meth:`ready`."""
        apart = span is not None or stream is not None or rows.bias is not None
        if apart or rows.causal or cache.layers[0].key_store is None:
            return super().__call__(rows, cache, span, capture, stream)
        recorded = self._recorded(rows, cache, tuple(capture))
        if recorded is None:
            return super().__call__(rows, cache, span, capture, stream)
        final, *taps = recorded.replayed(rows)
        for layer in cache.layers:
            layer.length = rows.past + len(rows.ids)
        return Activations(final, dict(zip(capture, taps, strict=True)), self.anatomy.logits)

    def _recorded(
        self, rows: Rows, cache: KeyValueCache, taps: tuple[str, ...]
    ) -> _Recorded | None:
        """The recording for these rows, made now where there is none; None where it cannot be."""
        count = len(rows.ids)
        cache.reserve(rows.past + rows_of(count) - cache.front_tokens)
        kept = _Kept.of(cache, self._made)
        bucket = Bucket.of(count, rows.past, cache.capacity, taps)
        found = kept.passes.get(bucket)
        if found is None:
            try:
                found = self._record(bucket, rows, kept)
            except Exception as problem:  # whatever a network has that no recording can hold
                self.refused = f"a pass cannot be recorded ({type(problem).__name__}: {problem})"
            if found is None:
                return None
            kept.passes[bucket] = found
        kept.passes.move_to_end(bucket)
        if len(kept.passes) > MOST_KEPT:
            kept.passes.popitem(last=False)
        return found

    def _record(self, bucket: Bucket, rows: Rows, kept: _Kept) -> _Recorded | None:
        static = StaticPass(self, bucket, kept, rows.dtype)
        static.fill(rows)
        count = len(rows.ids)
        wanted = self.anatomy.logits(static.run()[0][:count])
        if not bool(torch.isfinite(wanted).all()):
            return None  # nothing to compare with; the walk's numbers are not finite either
        recorded = _Recorded(static, self._recorder(static.run))
        found = self.anatomy.logits(recorded.replayed(rows)[0])
        differs = agreement.deviation(found, wanted)
        if not differs <= agreement.limit(rows.dtype):
            self.refused = f"a recorded pass differs by {differs:.2g} of the logits' spread"
            return None
        return recorded


class _Recorded:
    """A static pass and its recording."""

    def __init__(self, static: StaticPass, recording: Recording):
        self._static, self._recording = static, recording

    def replayed(self, rows: Rows) -> Outputs:
        """Final states and taps ``[n d]`` of these rows, which are the caller's to keep."""
        self._static.fill(rows)
        return tuple(states[: len(rows.ids)].clone() for states in self._recording.replay())


class _Kept(HeldStores):
    """The recordings of one session, for its stores and the network as they are."""

    def __init__(self, cache: KeyValueCache, ground: _Ground):
        super().__init__(cache)
        self._ground = ground
        self.passes: OrderedDict[Bucket, _Recorded] = OrderedDict()

    @staticmethod
    def of(cache: KeyValueCache, ground: _Ground) -> _Kept:
        """Those there are, or none where the cache or the network is another by now."""
        kept = cache.recorded
        if not isinstance(kept, _Kept) or kept._ground is not ground or not kept.hold(cache):
            kept = cache.recorded = _Kept(cache, ground)
        return kept


class _Ground:
    """What recordings stand on: modules of torch and transformers, and weights where they lie.

    Raises:
        Unavailable: a module of anybody else (an adapter, a gate, a quantised matrix), whose Python
            may decide anew at every pass; or a hook.
    """

    def __init__(self, anatomy: Anatomy):
        self._watch = Watch()
        for module in (anatomy.layers, anatomy.norm, anatomy.embed):
            self._watch.note(module)
            self._note_children(module)
        self._watch.seal()
        self._addresses = self._where()
        # A recording must never read memory that somebody else was given since.
        self._held = [weight.untyped_storage() for weight in self._watch.weights]

    def _note_children(self, parent: nn.Module) -> None:
        for name, module in parent._modules.items():
            if module is None:
                continue
            if type(module).__module__.partition(".")[0] not in _TRUSTED:
                raise Unavailable(f"{type(module).__name__} is no module of transformers or torch")
            self._watch.child(parent, name)
            self._note_children(module)

    def _where(self) -> list[int]:
        return [weight.data_ptr() for weight in self._watch.weights]

    def current(self) -> bool:
        """Whether modules, hooks and weights are as they were; changes in place do not matter."""
        return self._watch.standing()

    def unmoved(self) -> bool:
        """Whether the weights lie where they did; ``weight.data = x`` leaves no other trace."""
        return self._where() == self._addresses
