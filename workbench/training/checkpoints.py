"""transformers' Trainer with checkpoints that hold no pickles: safetensors and JSON only."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import Trainer


class PlainTrainer(Trainer):
    """Saves weights and optimiser moments as safetensors and the schedule as JSON.

    A subclass chooses by :meth:`kept` what of the model is saved.
    """

    def kept(self) -> dict[str, torch.Tensor]:
        """Tensors of the model that a checkpoint holds."""
        return self.model.state_dict()

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        from safetensors.torch import save_file

        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().cpu().contiguous() for k, v in self.kept().items()}
        save_file(state, folder / "model.safetensors")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        from safetensors.torch import save_file

        slots = {
            f"{index}.{key}": torch.as_tensor(value).detach().cpu().contiguous()
            for index, values in self.optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }
        save_file(slots, Path(output_dir) / "optimiser.safetensors")
        (Path(output_dir) / "schedule.json").write_text(json.dumps(self.lr_scheduler.state_dict()))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        from safetensors.torch import load_file

        if checkpoint is None:
            return
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in load_file(Path(checkpoint) / "optimiser.safetensors").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        schedule = json.loads((Path(checkpoint) / "schedule.json").read_text())
        self.lr_scheduler.load_state_dict(schedule)
        for group, rate in zip(self.optimizer.param_groups, schedule["_last_lr"], strict=True):
            group["lr"] = rate

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing random is left after the order of rows, which the seed decides."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        return None
