"""What the matrices of a network hear on calibration text, block by block.

*Idea*: one pass of the dense network shows what every block is called with; from then on blocks are
called one at a time, so a block that was just pruned can be run again and the next one hears what
it will really hear (Wanda and SparseGPT; pruning every layer from dense activations is another
method).
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch.nn import functional as F

from workbench.core.errors import BadInput
from workbench.core.pruning import Stats
from workbench.models.corpus import part_of, read_corpus
from workbench.models.model import Model
from workbench.models.store import SUFFIXES
from workbench.models.units import Matrix, layers_of, matrices

_BATCH_ROWS = 8
_LETTERS_A_TOKEN = 6  # more than any tokeniser needs on most text


def calibration_rows(
    model: Model, texts: list[str], *, row_tokens: int = 128, rows: int = 16
) -> Int[torch.Tensor, "b t"]:
    """Calibration text as rows of equal length.

    Raises:
        BadInput: no text, or less than one row of 16 tokens: statistics of a line or two would
            rank weights by what that line happens to say.
    """
    stream: list[int] = []
    for text in texts:
        stream += model.encode_all(text) if text else []
        if len(stream) >= rows * row_tokens:
            break
    length = min(row_tokens, len(stream), model.context_tokens)
    if length < 16:
        raise BadInput(
            f"calibration text: holds {len(stream)} tokens; give at least 16, better some thousand"
            " (or choose magnitude, which needs none)"
        )
    count = min(rows, len(stream) // length)
    return torch.tensor(stream[: count * length]).view(count, length)


def spread_rows(
    model: Model, texts: list[str], *, row_tokens: int = 128, rows: int = 16, seed: int = 0
) -> Int[torch.Tensor, "b t"]:
    """Rows to train on, from places all over the texts and in a random order.

    Neighbouring rows are of a few files, and a training would learn those. Where there is too
    little text for that, neighbouring ones it is.

    Raises:
        BadInput: as in :func:`calibration_rows`.
    """
    length = min(row_tokens, model.context_tokens)
    span = _LETTERS_A_TOKEN * length
    places = [(text, at) for text in texts for at in range(0, len(text) - span + 1, span)]
    found: list[list[int]] = []
    for index in torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)):
        text, at = places[int(index)]
        ids = model.encode_all(text[at : at + span])
        if len(ids) >= length:
            found.append(ids[:length])
        if len(found) == rows:
            return torch.tensor(found)
    return calibration_rows(model, texts, row_tokens=row_tokens, rows=rows)


def standard_texts(least_letters: int = 60_000) -> list[str]:
    """Files of the standard library that the embedded models were trained on, in a fixed order.

    Only as many are read as are needed.

    Args:
        least_letters: in all of them.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = {path.relative_to(root).as_posix(): path for path in root.glob("*.py")}
    chosen = [path for path in paths if part_of(path) == "train"]
    chosen.sort(key=lambda path: hashlib.sha256(path.encode()).digest())
    texts: list[str] = []
    for path in chosen:
        texts.append(paths[path].read_text(encoding="utf-8", errors="replace"))
        if sum(map(len, texts)) >= least_letters:
            break
    return texts


def texts_from(place: str) -> list[str]:
    """Text of a file, or of every text file in a folder.

    Raises:
        BadInput: neither, or nothing in it that is text.
    """
    path = Path(place).expanduser()
    if path.is_file():
        try:
            return [path.read_text(encoding="utf-8")]
        except UnicodeDecodeError:
            raise BadInput(f"text={place!r}: is no UTF-8 text; name another file") from None
    if not path.is_dir():
        raise BadInput(f"text={place!r}: no such file or folder; leave it empty for the library")
    try:
        return [file.text for file in read_corpus(path, SUFFIXES)]
    except FileNotFoundError as error:
        raise BadInput(f"text={place!r}: {error}") from None


class Walk:
    """Calibration rows on their way through the blocks.

    Args:
        rows: token ids.

    Shapes: rows ``[b t]``; ``hidden`` one ``[b t d]`` a batch.
    """

    @torch.no_grad()
    def __init__(self, model: Model, rows: Int[torch.Tensor, "b t"]):
        self.model, self.layers = model, layers_of(model)
        self.tokens = rows.numel()
        self.hidden: list[torch.Tensor] = []
        self._calls: list[list[tuple[tuple, dict]]] = [[] for _ in self.layers]
        self._by_layer: dict[int, list[Matrix]] = {}
        for one in matrices(model).values():
            self._by_layer.setdefault(one.layer, []).append(one)
        handles = [
            layer.register_forward_pre_hook(self._noting(index), with_kwargs=True)
            for index, layer in enumerate(self.layers)
        ]
        try:
            for batch in rows.split(_BATCH_ROWS):
                model.network(input_ids=batch.to(model.torch_device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()

    def _noting(self, index: int) -> Callable[..., None]:
        def note(module: Any, args: tuple, kwargs: dict) -> None:
            rest = {k: v for k, v in kwargs.items() if k != "hidden_states"}
            self._calls[index].append((args[1:], rest))
            if index == 0:
                self.hidden.append(args[0] if args else kwargs["hidden_states"])

        return note

    def called(self, index: int, batch: int, block: Any = None) -> torch.Tensor:
        """What a block makes of one batch of what has come so far, with its gradients.

        Args:
            block: of another network, called as this one's is.
        """
        args, kwargs = self._calls[index][batch]
        out = (block or self.layers[index])(self.hidden[batch], *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out

    @torch.no_grad()
    def output(self, index: int, block: Any = None) -> list[torch.Tensor]:
        """The same of every batch, without gradients."""
        return [self.called(index, batch, block) for batch in range(len(self.hidden))]

    def listen(self, index: int, gram: bool) -> tuple[dict[str, Stats], list[torch.Tensor]]:
        """Run a block and note what each of its matrices hears.

        Returns:
            Statistics by name of matrix, those of the whole block under ``layers.<index>``; and
            the block's output.
        """
        ears = {one.name: _Ear(one.weight, gram) for one in self._by_layer.get(index, ())}
        with _listening(self._by_layer.get(index, ()), ears):
            out = self.output(index)
        turn = cosine = 0.0
        for before, after in zip(self.hidden, out, strict=True):
            cos = F.cosine_similarity(before.double(), after.double(), dim=-1).clamp(-1, 1)
            turn += float((cos.arccos() / torch.pi).sum())
            cosine += float(cos.sum())
        found = {name: ear.stats() for name, ear in ears.items()}
        none = torch.zeros(0, dtype=torch.double)
        found[f"layers.{index}"] = Stats(self.tokens, none, None, turn, cosine / self.tokens)
        return found, out


def hear(
    model: Model,
    rows: Int[torch.Tensor, "b t"],
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Stats]:
    """Input norms of every matrix, and what each layer turns, in the network as it is."""
    walk, found = Walk(model, rows), {}
    for index in range(len(walk.layers)):
        stats, walk.hidden = walk.listen(index, gram=False)
        found |= stats
        progress((index + 1) / len(walk.layers))
    return found


class _Ear:
    """Sums over the tokens that one matrix hears."""

    def __init__(self, weight: torch.Tensor, gram: bool):
        wide, place = weight.shape[1], weight.device
        self.tokens = 0
        self.square = torch.zeros(wide, dtype=torch.double, device=place)
        self.gram = torch.zeros(wide, wide, device=place) if gram else None

    def hear(self, x: torch.Tensor) -> None:
        flat = x.reshape(-1, x.shape[-1])
        self.tokens += len(flat)
        self.square += flat.double().square().sum(0)
        if self.gram is not None:
            self.gram += flat.float().T @ flat.float()

    def stats(self) -> Stats:
        return Stats(self.tokens, self.square, self.gram)


@contextmanager
def _listening(places: Any, ears: dict[str, _Ear]) -> Iterator[None]:
    handles = []
    experts: dict[int, list[Matrix]] = {}
    for one in places:
        if one.expert is None:

            def hook(module: Any, args: tuple, ear: _Ear = ears[one.name]) -> None:
                ear.hear(args[0])

            handles.append(one.module.register_forward_pre_hook(hook))
        else:
            experts.setdefault(id(one.module), []).append(one)
    for group in experts.values():

        def routed(module: Any, args: tuple, group: list[Matrix] = group) -> None:
            _hear_experts(module, args, group, ears)

        handles.append(group[0].module.register_forward_pre_hook(routed))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hear_experts(module: Any, args: tuple, group: list[Matrix], ears: dict[str, _Ear]) -> None:
    """Fused experts call no linear layer: hear the tokens that the router sends to each slice."""
    hidden, chosen = args[0].reshape(-1, args[0].shape[-1]), args[1]
    slices = {(one.role, one.expert): one for one in group}
    for expert in dict.fromkeys(one.expert for one in group):
        rows = hidden[(chosen == expert).any(-1)]
        first, second = (slices[role, expert] for role in ("gate_up_proj", "down_proj"))
        ears[first.name].hear(rows)
        gate, up = F.linear(rows, first.weight).chunk(2, dim=-1)
        ears[second.name].hear(module.act_fn(gate) * up)
