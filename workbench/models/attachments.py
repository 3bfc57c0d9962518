"""Trained heads: small tensors that belong to one target, kept beside it and never inside it.

A head is a folder with ``head.safetensors`` and ``card.json``. The card names the fingerprint of
the target it was trained for; on another target its guesses would be noise, so it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from workbench.core.errors import Mismatch, ModelError
from workbench.models.model import Model
from workbench.models.native.linear import compiled

M = TypeVar("M", bound=torch.nn.Module)
EMBEDDED = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "heads"
WEIGHTS_FILE, CARD_FILE = "head.safetensors", "card.json"


class Attachment(NamedTuple):
    """Tensors by name, and the card; both empty for ``untrained``."""

    tensors: dict[str, torch.Tensor]
    card: dict[str, Any]

    @property
    def trained(self) -> bool:
        return bool(self.tensors)

    def fill(self, module: M, like: torch.Tensor) -> M:
        """Load the tensors into ``module`` and move it to the device and dtype of ``like``.

        Frozen, and multiplied by the compiled kernel where there is one.

        Raises:
            ModelError: tensors that the module does not have, or of other shapes.
        """
        if self.tensors:
            try:
                module.load_state_dict(self.tensors)
            except RuntimeError as error:
                raise ModelError(
                    f"head {self.card.get('name')!r} does not fit {type(module).__name__}:"
                    f" {' '.join(str(error).split())[:300]}; train it again"
                ) from None
        return compiled(module.to(like.device, like.dtype).eval().requires_grad_(False))


def load_attachment(spec: str, name: str, model: Model) -> Attachment:
    """The head ``name`` for ``model``.

    Args:
        spec: ``"zoo"`` = the embedded one, ``"untrained"`` = none, else a folder.

    Raises:
        ModelError: no such head, or damaged files.
        Mismatch: a head that was trained for another target.
    """
    if spec == "untrained":
        return Attachment({}, {})
    folder = EMBEDDED / name if spec == "zoo" else Path(spec).expanduser()
    if not (folder / CARD_FILE).is_file():
        raise ModelError(
            f"heads={spec!r}: no trained {name} head in {folder.name!r}; train one with"
            f" `workbench zoo train {name}`, name the folder of another, or use heads='untrained'"
            " (exact as well, but nothing it drafts is any good)"
        )
    return read_attachment(folder, name, model)


def read_attachment(folder: Path, name: str, model: Model) -> Attachment:
    """A head from its folder, checked against its target; see :func:`load_attachment`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"heads={folder.name!r}: its files are damaged or half-written ({error}); copy them"
            f" again or train with `workbench zoo train {name}`"
        ) from None
    if not isinstance(card, dict) or card.get("name") != name:
        raise ModelError(f"heads={folder.name!r}: its card is not that of a {name} head")
    if card.get("target") != model.fingerprint:
        raise Mismatch(
            f"heads={folder.name!r} was trained for the target with fingerprint"
            f" {card.get('target')}, but {model.name!r} has {model.fingerprint}: its guesses would"
            f" be noise. Train one for this model (`workbench zoo train {name}`), or use"
            " heads='untrained'"
        )
    return Attachment({key: value.float() for key, value in tensors.items()}, card)


def save_attachment(
    folder: Path, module: torch.nn.Module | Mapping[str, torch.Tensor], card: dict[str, Any]
) -> Path:
    """Write a module, or tensors by name, in bf16 and its card.

    A half-written file never replaces a whole one.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = module.state_dict() if isinstance(module, torch.nn.Module) else module
    tensors = {
        key: value.detach().to("cpu", torch.bfloat16).contiguous() for key, value in state.items()
    }
    partial = folder / (WEIGHTS_FILE + ".partial")
    save_file(tensors, partial)
    partial.replace(folder / WEIGHTS_FILE)
    (folder / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return folder
