"""How a CUDA graph is taken down, on a stand-in for ``torch.cuda`` that writes down what it did."""

from __future__ import annotations

import inspect
import warnings
from contextlib import contextmanager

import pytest
import torch

from workbench.models.recording import CalledAgain, CudaGraphs, waits


class StandIn:
    """The calls of ``torch.cuda`` that a recording makes; ``said`` keeps their order."""

    def __init__(self):
        self.said: list[str] = []
        self.mode, self.here = 0, "main"

    def install(self, monkeypatch) -> None:
        outer = self

        class Stream:
            def __init__(self, device=None):
                self.name = "side" if device else "main"

            def wait_stream(self, other):
                outer.said.append(f"{self.name} waits for {other.name}")

        class Graph:
            def replay(self):
                outer.said.append("replay")

        main = Stream()

        @contextmanager
        def on(stream):
            before, outer.here = outer.here, stream.name
            yield
            outer.here = before

        @contextmanager
        def capture(graph, pool=None, stream=None, capture_error_mode="global"):
            outer.said.append(f"capture in {pool} on {stream.name}, {capture_error_mode}")
            yield

        for name, value in {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "graph": capture,
            "stream": on,
            "device": lambda device: on(main),
            "current_stream": lambda: main,
            "graph_pool_handle": lambda: "a pool",
            "get_sync_debug_mode": lambda: self.mode,
            "set_sync_debug_mode": lambda mode: setattr(self, "mode", mode),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def work(self) -> tuple[torch.Tensor, ...]:
        self.said.append(f"work on {self.here}" + (", waiting warns" if self.mode else ""))
        return (torch.ones(2),)


def test_a_graph_is_warmed_up_apart_and_captured_once(monkeypatch):
    cuda = StandIn()
    cuda.install(monkeypatch)
    recorder = CudaGraphs(torch.device("cuda"))
    recorded = recorder(cuda.work)
    assert cuda.said == [
        "side waits for main",
        "work on side",
        "work on side, waiting warns",
        "main waits for side",
        "capture in a pool on side, thread_local",
        "work on main",
    ]
    first, again = recorded.replay(), recorded.replay()
    assert first is again, "the same memory every time"
    assert cuda.said[-2:] == ["replay", "replay"]
    recorder(cuda.work)
    assert cuda.said.count("capture in a pool on side, thread_local") == 2


def warning(cuda: StandIn, times: int):
    """Work that waits, as torch says it, so many times."""
    left = iter(range(times))

    def work():
        if cuda.mode and next(left, None) is not None:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return cuda.work()

    return work


def test_a_pass_that_waits_is_refused_before_the_capture(monkeypatch):
    cuda = StandIn()
    cuda.install(monkeypatch)
    with pytest.raises(RuntimeError, match="waits for the device"):
        CudaGraphs(torch.device("cuda"))(warning(cuda, 9))
    assert cuda.mode == 0, "the mode is that of before"
    assert not any(line.startswith("capture") for line in cuda.said)


def test_what_another_thread_waits_for_is_no_refusal(monkeypatch):
    cuda = StandIn()
    cuda.install(monkeypatch)
    CudaGraphs(torch.device("cuda"))(warning(cuda, 1))
    assert any(line.startswith("capture") for line in cuda.said)


def test_the_mode_comes_back_after_an_error(monkeypatch):
    cuda = StandIn()
    cuda.install(monkeypatch)

    def fails():
        raise ValueError("anything")

    with pytest.raises(ValueError, match="anything"):
        waits(fails)
    assert cuda.mode == 0


def test_the_calls_are_those_that_torch_has():
    assert list(inspect.signature(torch.cuda.graph.__init__).parameters)[1:5] == [
        "cuda_graph",
        "pool",
        "stream",
        "capture_error_mode",
    ]
    assert "device" in inspect.signature(torch.cuda.Stream.__new__).parameters
    for name in ("graph_pool_handle", "get_sync_debug_mode", "set_sync_debug_mode"):
        assert callable(getattr(torch.cuda, name))


def test_a_plain_recording_writes_into_the_same_outputs():
    numbers = iter(range(9))
    recorded = CalledAgain(lambda: (torch.tensor([next(numbers)]),))
    first = recorded.replay()[0]
    assert first.tolist() == [1]
    assert recorded.replay()[0] is first
    assert first.tolist() == [2]
