"""Ctrl-C at any moment: the models, their sessions and the next run are as good as new."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time

import pytest
import torch
from scripted import greedy_text

from workbench.core.sampling import Sampling
from workbench.drafters.draft_model import DraftModel
from workbench.engine import decode as decode_module
from workbench.engine.run import Run, RunSettings, generate
from workbench.models.cache import KeyValueCache, PreallocatedLayer
from workbench.models.session import Session
from workbench.verifiers.exact_match import ExactMatch

TEXT, COUNT = "abcabcabca", 16
PLACES = [
    (Session, "forward"),
    (Session, "run_on"),
    (Session, "_run"),
    (Session, "commit"),
    (Session, "crop"),
    (Session, "sync"),
    (KeyValueCache, "keep"),
    (KeyValueCache, "reserve"),
    (KeyValueCache, "set_length"),
    (PreallocatedLayer, "update"),
    (PreallocatedLayer, "move"),
    (PreallocatedLayer, "grow"),
    (Sampling, "law"),
    (DraftModel, "propose"),
    (DraftModel, "update"),
    (ExactMatch, "verify"),
    (decode_module, "record_round"),
    (decode_module, "draw_outcome"),
]


class Countdown:
    """Counts what happens in a run and raises KeyboardInterrupt at one of the events."""

    def __init__(self, patch, at: int | None = None):
        self.seen, self.at, self.names = 0, at, set()
        for owner, name in PLACES:
            patch.setattr(owner, name, self._wrap(getattr(owner, name), name))

    def _wrap(self, real, name: str):
        def counted(*args, **kwargs):
            self._tick(name)
            result = real(*args, **kwargs)
            self._tick(name)
            return result

        return counted

    def _tick(self, name: str) -> None:
        self.seen += 1
        self.names.add(name)
        if self.seen == self.at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def settings(loaded) -> RunSettings:
    model, draft = loaded("llama"), loaded("llama", num_hidden_layers=2, seed=0)
    return RunSettings(model, TEXT, "draft_model", max_new_tokens=COUNT, draft_model=draft)


@pytest.fixture(scope="module")
def answer(settings) -> list[int]:
    return greedy_text(settings.model, settings.model.encode(TEXT), COUNT)


def small_cache(model, capacity: int = 4) -> None:
    """Sessions of this run start small, so that growth is among the interrupted operations."""
    model.session = lambda: Session(model, capacity)


@pytest.fixture(autouse=True)
def growing(settings):
    small_cache(settings.model)
    small_cache(settings.draft_model)
    yield
    del settings.model.session, settings.draft_model.session


def survives(run: Run, settings: RunSettings, answer: list[int]) -> None:
    """What is kept is a beginning of the answer; the same sessions and a new run both go on."""
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    trace = run.trace()
    assert trace.new_tokens == answer[: len(trace.new_tokens)]
    decoding = run.decoding
    text = [*run.prompt_tokens, *answer]
    for session in (decoding.target, decoding.draft):
        wanted = session.model.session().sync(text).logits
        session.sync(text[:3])
        got = session.sync(text).logits
        assert session.tokens == text
        assert float((got - wanted).abs().max()) < 1e-4
    for model in (settings.model, settings.draft_model):
        assert model.lock.acquire(timeout=5)  # from this thread; the next check is from another
        model.lock.release()
        free = []
        other = threading.Thread(target=lambda m=model, f=free: f.append(m.lock.acquire(timeout=5)))
        other.start()
        other.join()
        assert free == [True], "an interrupted run kept a model's lock"
        model.lock = type(model.lock)()  # the thread that took it is gone
    assert generate(settings).new_tokens == answer


def events_of_a_run(settings) -> tuple[int, set]:
    with pytest.MonkeyPatch.context() as patch:
        count = Countdown(patch)
        for _ in Run(settings).rounds():
            pass
    return count.seen, count.names


def test_the_counter_meets_every_place(settings):
    seen, names = events_of_a_run(settings)
    assert seen > 300
    assert names >= {name for _, name in PLACES} - {"move"}  # a chain is never moved


@pytest.mark.parametrize("batch", range(4))
def test_an_interrupt_at_25_random_points(settings, answer, batch):
    seen, _ = events_of_a_run(settings)
    points = random.Random(batch).sample(range(1, seen + 1), 25)
    for point in points:
        run = Run(settings)
        with pytest.MonkeyPatch.context() as patch:
            Countdown(patch, point)
            with pytest.raises(KeyboardInterrupt):
                for _ in run.rounds():
                    pass
        survives(run, settings, answer)


def test_a_signal_at_30_random_moments(settings, answer):
    """A real Ctrl-C, which lands between any two steps of the interpreter."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    began = time.perf_counter()
    generate(settings)
    usual_s = time.perf_counter() - began
    before = signal.signal(signal.SIGALRM, interrupt)
    caught, moments = 0, random.Random(3)
    try:
        for _ in range(30):
            run = Run(settings)
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-4, moments.random() * usual_s))
                for _ in run.rounds():
                    pass
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                caught += 1
            survives(run, settings, answer)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught >= 10


def test_closing_after_any_round(settings, answer):
    for rounds in range(5):
        run = Run(settings)
        steps = run.rounds()
        for _ in range(rounds):
            next(steps)
        steps.close()
        assert len(run.trace().rounds) == rounds
        survives(run, settings, answer)


def test_an_interrupt_in_what_listens(settings, answer):
    """``on_round`` may be what was interrupted: the generator is closed with the frame."""
    run = Run(settings)
    with contextlib.suppress(KeyboardInterrupt):
        for _ in run.rounds():
            raise KeyboardInterrupt
    survives(run, settings, answer)
