"""Adapters on disk, as peft writes them: read with care, refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

import workbench.models.tuners  # noqa: F401 - registers our own types
from workbench.core.errors import Mismatch, ModelError, closest

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def read_adapter(folder: str | Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """The configuration and the tensors of a folder that peft wrote.

    Raises:
        ModelError: no such folder, missing, damaged or pickled files, or an unknown type.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    place = Path(folder).expanduser()
    where = f"adapter={str(folder)!r}"
    if not (place / CONFIG_FILE).is_file():
        raise ModelError(f"{where}: no {CONFIG_FILE} there; name a folder that peft wrote")
    if not (place / WEIGHTS_FILE).is_file():
        pickled = sorted(p.name for kind in ("*.bin", "*.pt") for p in place.glob(kind))
        if pickled:
            raise ModelError(
                f"{where}: {pickled[0]} is a pickle, which can run code when loaded, so it is"
                " refused. Convert it where you trust it: save_pretrained(FOLDER) writes"
                " safetensors."
            )
        raise ModelError(f"{where}: {WEIGHTS_FILE} is missing; copy the adapter again")
    try:
        values = json.loads((place / CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(place / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{where}: its files are damaged ({error}); copy them again") from None
    return _config(values, where), tensors


def _config(values: Any, where: str) -> Any:
    kind = values.get("peft_type") if isinstance(values, dict) else None
    known = [str(getattr(name, "value", name)) for name in PEFT_TYPE_TO_CONFIG_MAPPING]
    if kind not in known:
        raise ModelError(
            f"{where}: peft_type={kind!r} is not known here.{closest(str(kind), known)}"
            f" Known: {', '.join(sorted(known))}"
        )
    try:
        config = PeftConfig.from_peft_type(**values)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(f"{where}: {CONFIG_FILE} contradicts itself ({error})") from None
    config.inference_mode = True
    return config


def write_adapter(folder: str | Path, config: Any, tensors: dict[str, torch.Tensor]) -> Path:
    """Write what plain peft loads; a half-written file never replaces a whole one."""
    from safetensors.torch import save_file

    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    partial = place / (WEIGHTS_FILE + ".partial")
    save_file(kept, partial, metadata={"format": "pt"})
    partial.replace(place / WEIGHTS_FILE)
    config.save_pretrained(str(place))
    return place


def check_fit(
    name: str, own: dict[str, torch.Tensor], given: dict[str, torch.Tensor], config: Any, base: str
) -> None:
    """Refuse tensors that were made for another base.

    Args:
        own: the tensors of the freshly attached adapter.
        given: those that are to be loaded into it.

    Raises:
        Mismatch: naming the first tensor whose shape differs, or what is missing.
    """
    made = getattr(config, "base_model_name_or_path", None)
    said = f" (it says it was made for {made!r})" if made else ""
    for key in sorted(set(own) & set(given)):
        if own[key].shape != given[key].shape:
            raise Mismatch(
                f"adapter={name!r} was made for another base{said}: {_plain(key)} is"
                f" {tuple(given[key].shape)} there and would have to be {tuple(own[key].shape)} for"
                f" {base!r}; load it on the model that it was trained on"
            )
    extra, missing = sorted(set(given) - set(own)), sorted(set(own) - set(given))
    if extra or missing:
        which = _plain((extra or missing)[0])
        shape = tuple((given | own)[(extra or missing)[0]].shape)
        what = f"{base!r} has no place for" if extra else "its file lacks"
        raise Mismatch(
            f"adapter={name!r} was made for another base{said}: {what} {which} {shape}"
            f" ({len(extra)} tensors too many, {len(missing)} missing)"
        )


def _plain(key: str) -> str:
    return key.removeprefix("base_model.model.")
