"""Models whose next-token law is written down, and tiny random checkpoints on disk.

A :class:`ToySession` has the interface of :class:`workbench.models.session.Session`, so drafters
and the engine run on it unchanged while every probability is known to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from workbench.core.span import Span
from workbench.models.session import Forward

Rule = Callable[[Sequence[int]], torch.Tensor]


@dataclass(frozen=True, eq=False)
class ToyModel:
    """A next-token law given as a rule: committed tokens -> logits ``[v]`` in float64.

    Args:
        rule: sees the whole text, so a toy may depend on anything.
        vocab_size: width of the logits.
        context_tokens: as of a real model.
    """

    rule: Rule
    vocab_size: int
    context_tokens: int = 1 << 20
    name: str = "toy"

    def session(self) -> ToySession:
        return ToySession(self)

    @staticmethod
    def random(vocab_size: int, seed: int = 0, scale: float = 1.0) -> ToyModel:
        """Logits that depend on the last two tokens and on the position modulo two.

        The position makes a wrong offset visible, the second token a wrong parent.
        """
        generator = torch.Generator().manual_seed(seed)
        shape = (2, vocab_size + 1, vocab_size, vocab_size)
        table = torch.randn(shape, generator=generator, dtype=torch.float64) * scale

        def rule(tokens: Sequence[int]) -> torch.Tensor:
            before = tokens[-2] if len(tokens) > 1 else vocab_size
            return table[len(tokens) % 2, before, tokens[-1]]

        return ToyModel(rule, vocab_size, name=f"toy:random{seed}")

    @staticmethod
    def cycle(vocab_size: int, steps: int = 1 << 20, after: ToyModel | None = None) -> ToyModel:
        """Token t is followed by t+1, then t+2, ... in order of likelihood (modulo v).

        After ``steps`` tokens of text the law of ``after`` takes over: everything was accepted
        until then, little is from there on.
        """
        ranks = torch.arange(vocab_size, dtype=torch.float64)

        def rule(tokens: Sequence[int]) -> torch.Tensor:
            if after is not None and len(tokens) >= steps:
                return after.rule(tokens)
            return -4.0 * (ranks - tokens[-1] - 1).remainder(vocab_size)

        return ToyModel(rule, vocab_size, name="toy:cycle")

    def padded(self, vocab_size: int, level: float = -1.0) -> ToyModel:
        """The same law with further ids whose logits are ``level`` (padding that is not silent)."""

        def rule(tokens: Sequence[int]) -> torch.Tensor:
            known = [token % self.vocab_size for token in tokens]
            extra = torch.full((vocab_size - self.vocab_size,), level, dtype=torch.float64)
            return torch.cat((self.rule(known), extra))

        return ToyModel(rule, vocab_size, self.context_tokens, f"{self.name}+padding")


class ToySession:
    """The session interface over a :class:`ToyModel`: no cache, every row is computed afresh."""

    def __init__(self, model: ToyModel):
        self.model = model
        self.tokens: list[int] = []
        self._pending: list[int] = []
        self._above: list[int] = []
        self.forwards = 0
        self.partial_forwards = 0
        self.timings: list[tuple] = []
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.tokens)

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
        """Score rows; ids outside the vocabulary raise as an embedding would."""
        assert span is None, "a toy has no layers; use testing.tiny_network"
        began = time.perf_counter()
        rows = [int(token) for token in tokens]
        for token in rows:
            if not 0 <= token < self.model.vocab_size:
                raise IndexError(f"{self.model.name}: token {token} has no embedding")
        above = list(range(-1, len(rows) - 1)) if parent is None else list(parent)
        new = len(rows)
        if grow:
            rows, above = [*self._pending, *rows], [*self._above, *above]
        logits = []
        for row in range(len(rows) - new, len(rows)):
            path, at = [], row
            while at >= 0:
                path.append(rows[at])
                at = above[at]
            logits.append(self.model.rule([*self.tokens, *path[::-1]]))
        stacked = torch.stack(logits)[-1:] if last_only else torch.stack(logits)
        self._pending, self._above = rows, above
        self.forwards += 1
        self.timings.append((began, time.perf_counter()))
        return Forward(stacked, dict.fromkeys(capture, stacked), self.timings[-1])

    def commit(self, rows: Sequence[int], tokens: Sequence[int] | None = None) -> None:
        self.tokens.extend(self._pending[row] for row in rows)
        self._pending, self._above = [], []

    def runs_on(self, sampling: object, steps: int) -> bool:
        """No compiled pass, so no chain in one call."""
        return False

    def crop(self, length: int) -> None:
        del self.tokens[length:]
        self._pending, self._above = [], []

    def sync(self, tokens: Sequence[int], *, capture: tuple[str, ...] = ()) -> Forward | None:
        """Make the stored tokens equal ``tokens``; the forward of the last one, if any was new."""
        common = 0
        for mine, wanted in zip(self.tokens, tokens, strict=False):
            if mine != wanted:
                break
            common += 1
        self.crop(common)
        if common == len(tokens):
            return None
        piece = list(tokens[common:])
        last = self.forward(piece, capture=capture, last_only=True)
        self.commit(range(len(piece)))
        return last

    @contextmanager
    def scratch(self) -> Iterator[ToySession]:
        length = len(self.tokens)
        try:
            yield self
        finally:
            self.crop(length)

    def take_timings_ms(self) -> float:
        total = sum((ended - began) * 1e3 for began, ended in self.timings)
        self.timings.clear()
        return total


def tiny_checkpoint(
    folder: Path,
    *,
    words: int = 48,
    vocab_size: int | None = None,
    layers: int = 2,
    seed: int = 0,
    std: float = 0.15,
) -> Path:
    """Write a random Llama with a whitespace tokenizer to ``folder``.

    Args:
        words: tokens ``w0``, ``w1``, ... that the tokenizer knows.
        vocab_size: rows of the embedding (more than ``words`` = padding).
        std: of the weights; the usual 0.02 would make every law nearly uniform.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="w0").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=vocab_size or words,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=std,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
