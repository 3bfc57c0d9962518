"""Which pass may be trusted for a model: measured at load, never assumed from its name."""

from __future__ import annotations

import torch

from workbench.core.errors import ModelError, WorkbenchError
from workbench.core.inference import inference_mode
from workbench.models import agreement
from workbench.models.model import Model

# A prefix, then a tree in an order that is not depth-first: root, two children, ...
_PREFIX_TOKENS = 6
_PARENT = (-1, 0, 0, 1, 2, 2, 3)


def _path(row: int) -> list[int]:
    rows = []
    while row >= 0:
        rows.append(row)
        row = _PARENT[row]
    return rows[::-1]


@inference_mode()
def _reference(model: Model, prefix: list[int], tree: list[int]) -> torch.Tensor:
    """Logits of every row by plain forwards of prefix + path, no cache, no mask: ``[rows v]``."""
    rows = []
    for row in range(len(tree)):
        ids = prefix + [tree[r] for r in _path(row)]
        ids = torch.tensor([ids], device=model.torch_device)
        rows.append(model.network(input_ids=ids, use_cache=False).logits[0, -1])
    return torch.stack(rows)


def _error(model: Model, prefix: list[int], tree: list[int], wanted: torch.Tensor) -> float:
    """Largest deviation of a session from the reference, in units of the logits' spread.

    After the tree a path of it is committed and one more row is scored, so that compaction counts.
    """
    session = model.session()
    session.sync(prefix)
    got = session.forward(tree, _PARENT).logits
    error = (got - wanted).abs().max()
    session.commit(_path(5))
    after = session.forward([tree[6]]).logits[-1]
    ids = prefix + [tree[r] for r in _path(5)] + [tree[6]]
    ids = torch.tensor([ids], device=model.torch_device)
    with inference_mode():
        plain = model.network(input_ids=ids, use_cache=False).logits[0, -1]
    error = torch.maximum(error, (after - plain).abs().max())
    spread = wanted.float().std().clamp_min(1e-6)
    return float(error / spread)


def choose_mode(model: Model) -> None:
    """Set ``mode``, ``trees`` and ``reason`` to the fastest pass that agrees with the model.

    Raises:
        ModelError: a model whose stored state does not even reproduce a chain.
    """
    generator = torch.Generator().manual_seed(7)
    top = min(model.vocab_size, len(model.tokenizer))
    ids = torch.randint(0, top, (_PREFIX_TOKENS + len(_PARENT),), generator=generator).tolist()
    prefix, tree = ids[:_PREFIX_TOKENS], ids[_PREFIX_TOKENS:]
    try:
        wanted = _reference(model, prefix, tree)
    except Exception as problem:  # a network whose own code cannot run its own weights
        raise ModelError(
            f"model={model.name!r}: its own forward fails ({type(problem).__name__}: {problem});"
            " the configuration contradicts itself or needs another version of transformers"
        ) from None
    if not bool(torch.isfinite(wanted).all()):
        return  # the first use explains which layer is to blame
    limit = agreement.limit(model.network.dtype)
    notes = []
    for mode in _candidates(model):
        model.mode = mode
        try:
            error = _error(model, prefix, tree, wanted)
        except WorkbenchError:
            raise
        except Exception as problem:  # any failure of a family's own code only rules the pass out
            notes.append(f"{mode} pass failed ({type(problem).__name__}: {problem})")
            continue
        if error <= limit:
            unlisted = "" if model.anatomy else "its family is not in the anatomy table"
            model.reason = "; ".join(filter(None, [unlisted, *notes]))
            try_graphs(model, prefix, tree, wanted)
            return
        notes.append(f"{mode} pass differs by {error:.2g} of the logits' spread")
    model.mode, model.trees = "stock", False
    model.reason = "; ".join(notes)
    if _chain_error(model, prefix, tree) > limit:
        raise ModelError(
            f"model={model.name!r}: cached decoding does not reproduce its plain forward"
            f" ({model.reason}); this family cannot be decoded here"
        )


def try_graphs(model: Model, prefix: list[int], tree: list[int], wanted: torch.Tensor) -> None:
    """Let recorded passes run where they agree, too; ``model.graphs.refused`` says why not."""
    graphs = model.graphs if model.mode == "fused" else None
    if graphs is None:
        return
    graphs.refused = ""
    try:
        error = _error(model, prefix, tree, wanted)
    except Exception as problem:  # what a GPU cannot record, it can still walk
        graphs.refused = f"recorded pass failed ({type(problem).__name__}: {problem})"
        return
    if not graphs.refused and not error <= agreement.limit(model.network.dtype):
        graphs.refused = f"recorded pass differs by {error:.2g} of the logits' spread"


def _candidates(model: Model) -> list[str]:
    anatomy = model.anatomy
    if anatomy is None or not anatomy.walkable:
        return ["stock"]
    return ["fused", "walk", "stock"] if anatomy.fusable else ["walk", "stock"]


def _chain_error(model: Model, prefix: list[int], tree: list[int]) -> float:
    try:
        session = model.session()
        session.sync(prefix)
        got = session.forward(tree).logits[-1]
    except WorkbenchError:
        raise
    except Exception:  # a family whose own code rejects our cache cannot be decoded
        return float("inf")
    ids = torch.tensor([prefix + tree], device=model.torch_device)
    with inference_mode():
        plain = model.network(input_ids=ids, use_cache=False).logits[0, -1]
    return float((got - plain).abs().max() / plain.float().std().clamp_min(1e-6))
