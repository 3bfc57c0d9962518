"""How a pass in fixed buffers is taken down and run again: as a CUDA graph, or by calling it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

Outputs = tuple[torch.Tensor, ...]
Work = Callable[[], Outputs]
# Once is enough where no other thread uses the GPU.
_TRIALS = 3


@runtime_checkable
class Recording(Protocol):
    """A pass that reads and writes the same memory at every replay."""

    def replay(self) -> Outputs:
        """Run it again; the next replay overwrites what is returned."""
        ...


class CalledAgain:
    """A recording for any device: the pass is called again, into the same outputs.

    It shares with a graph that outputs are overwritten, so what works with it works with one.
    """

    def __init__(self, work: Work):
        self._work, self._outputs = work, work()

    def replay(self) -> Outputs:
        """Call it again."""
        for mine, new in zip(self._outputs, self._work(), strict=True):
            mine.copy_(new)
        return self._outputs


class CudaGraphs:
    """Takes passes down as CUDA graphs, one after another, in one pool of memory.

    Graphs of one pool may use the same memory in between. Here that is safe in any order: their
    outputs are kept, inputs lie outside the pool, and results are copied before the next replay.

    Args:
        device: where the passes run.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._pool: Any = None

    def __call__(self, work: Work) -> Recording:
        """Warm up on a side stream, then capture.

        Raises:
            RuntimeError: an operation that waits for the device, or that cannot be captured.
        """
        with torch.cuda.device(self._device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
                self._stream = torch.cuda.Stream(self._device)
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                work()  # handles, workspaces and kernels are made at first use
                if all(waits(work) for _ in range(_TRIALS)):
                    raise RuntimeError("an operation of the pass waits for the device")
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(  # other threads may use the GPU meanwhile
                graph, self._pool, self._stream, capture_error_mode="thread_local"
            ):
                outputs = work()
        return _CudaGraph(graph, outputs)


class _CudaGraph:
    def __init__(self, graph: Any, outputs: Outputs):
        self._graph, self._outputs = graph, outputs

    def replay(self) -> Outputs:
        self._graph.replay()
        return self._outputs


def waits(work: Callable[[], object]) -> bool:
    """Whether something in a call waits for the GPU, which would spoil a capture.

    Torch warns of it, and of what other threads do meanwhile as well; hence a yes is no proof.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return any("called a synchronizing" in str(one.message) for one in said)
