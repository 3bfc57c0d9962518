"""Tune drafter, tree and length for this machine and these prompts, and keep the result.

*Idea*: a trial is a configuration, its value the median over prompts of tokens/s over plain
decoding's, measured in turns; a trial that lags behind the others is pruned after a few prompts.
The best of many noisy values is too good to be true, so the finalists are measured once more, with
other seeds, and the preset holds what came out then.

*Paper*: Optuna, Akiba et al. 2019 (arXiv 1907.10902): its tree-structured Parzen sampler and
median pruner, as they are.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from workbench.bench import summary
from workbench.bench.grid import Cell, Grid, cell_from_json, plain_cell
from workbench.bench.journal import cut_torn_line, held
from workbench.bench.machine import alike, this_machine, words
from workbench.bench.measurement import Block, measure_block
from workbench.bench.preset import Preset
from workbench.bench.search import Search
from workbench.bench.sweep import Sweep, SweepProgress
from workbench.core.errors import BadInput, BadKnob

LOG = "trials.log"
CONFIRMED_SEED = 7_000_003  # so far from the search's that no draw is seen twice


class Tuner:
    """A search in a folder: kill it and start it again, it goes on.

    Raises:
        BadInput: a folder of another search or another machine, or in use.
    """

    def __init__(self, search: Search, folder: str | Path, command: str = "workbench bench tune"):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.folder, self.command = search, Path(folder).expanduser(), command
        self.machine = this_machine()
        self.preset: Preset | None = None
        self._held = held(self.folder)
        try:
            self._study = self._opened(optuna)
        except BaseException:
            self._held.close()
            raise
        self._line = ""
        self._spent: list[float] = []  # seconds of each trial

    # ---- reading, at any time --------------------------------------------------------------------

    def history(self) -> list[dict[str, Any]]:
        """One row a trial: number, state, ratio, the best so far, drafter, what was chosen."""
        rows, best = [], None
        for trial in self._study.get_trials(deepcopy=False):
            state = trial.state.name.lower()
            if state == "fail" and "reason" not in trial.user_attrs:
                continue  # was interrupted, and is back in the queue
            if state in ("waiting", "running"):
                continue
            value = trial.value if state == "complete" else None
            if value is not None:
                best = value if best is None else max(best, value)
            rows.append(
                {
                    "trial": len(rows),
                    "state": state,
                    "ratio": value,
                    "best": best,
                    "label": trial.user_attrs.get("label", ""),
                    "reason": trial.user_attrs.get("reason", ""),
                    **trial.params,
                }
            )
        return rows

    def progress(self) -> SweepProgress:
        """Trials done of those wanted."""
        rows = self.history()
        failed = sum(row["state"] == "fail" for row in rows)
        left = max(0, self.search.trials - len(rows))
        eta = statistics.fmean(self._spent) * left if self._spent else None
        return SweepProgress(len(rows), max(len(rows), self.search.trials), eta, failed, self._line)

    # ---- searching -------------------------------------------------------------------------------

    def steps(self) -> Generator[SweepProgress, None, None]:
        """Try what is left, then confirm; one step a measured prompt. Not calling next pauses."""
        while len(self.history()) < self.search.trials:
            began = time.monotonic()
            yield from self._try(self._study.ask())
            self._spent.append(time.monotonic() - began)
            yield self.progress()
        yield from self._confirm()

    def close(self) -> None:
        """Let another process have the folder."""
        self._held.close()

    def _try(self, trial: Any) -> Generator[SweepProgress, None, None]:
        """Measure one configuration prompt by prompt, until it is done, pruned or broken."""
        from optuna.trial import TrialState

        try:
            cell = self.search.cell(trial)
        except BadKnob as error:
            self._tell(trial, TrialState.FAIL, reason=str(error))
            return
        trial.set_user_attr("label", cell.label)
        ratios: list[float] = []
        for place, prompt in enumerate(self.search.prompts.prompts):
            cells = (plain_cell(*cell.group), cell)
            pending = frozenset((one.id, prompt.name) for one in cells)
            block = Block(self.search.setting, cells, ((place, prompt),), trial.number, pending)
            records = list(measure_block(block))
            wrong = next((r for r in records if r["state"] != "done"), None)
            if wrong is not None:
                self._tell(trial, TrialState.FAIL, reason=wrong["error"])
                return
            rows = summary.paired(records, {one.id: one.to_json() for one in cells})
            ratios += [row["ratio"] for row in rows if row["cell"] == cell.id]
            value = statistics.median(ratios)
            self._line = f"trial {trial.number + 1}: {cell.label}: {value:.2f} x plain"
            trial.report(value, place)
            yield self.progress()
            if place + 1 < len(self.search.prompts.prompts) and trial.should_prune():
                self._tell(trial, TrialState.PRUNED, reason=f"{value:.2f} x after {place + 1}")
                return
        trial.set_user_attr("cell", cell.to_json())
        self._study.tell(trial, statistics.median(ratios))

    def _tell(self, trial: Any, state: Any, reason: str) -> None:
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=state)
        self._line = f"trial {trial.number + 1}: {state.name.lower()}: {reason}"

    def _finalists(self) -> dict[str, Cell]:
        """The best cells of the search by id."""
        done = [t for t in self._study.get_trials(deepcopy=False) if "cell" in t.user_attrs]
        best: dict[str, Cell] = {}
        for trial in sorted((t for t in done if t.value is not None), key=lambda t: -t.value):
            cell = cell_from_json(trial.user_attrs["cell"])
            if len(best) < self.search.finalists:
                best.setdefault(cell.id, cell)
        if not best:
            raise BadInput(
                "no trial could be measured to its end; see the reasons in the history, and choose"
                " other drafters or policies"
            )
        return best

    def _confirm(self) -> Generator[SweepProgress, None, None]:
        """Measure the finalists again and write the preset."""
        best = self._finalists()
        grid = Grid(
            self.search.prompts,
            targets=(self.search.target,),
            drafters=("none",),
            samplings=(self.search.sampling,),
            extra=tuple(best.values()),
            repeats=self.search.repeats,
            setting=dataclasses.replace(self.search.setting, seed=CONFIRMED_SEED),
        )
        sweep = Sweep(grid, self.folder / f"confirmed-{'-'.join(sorted(best))}-{grid.repeats}")
        try:
            for seen in sweep.steps():
                self._line = f"confirming, {seen.done} of {seen.total}: {seen.line}"
                yield self.progress()
            labels = {cell.id: cell.label for cell in sweep.cells}
            cells = {cell.id: cell.to_json() for cell in sweep.cells}
            table = summary.summarise(sweep.records, cells, labels)
        finally:
            sweep.close()
        rows = [row for row in table if row["cell"] in best and row["ratio"] is not None]
        if not rows:
            raise BadInput(f"the finalists could not be measured again; see {self.folder}")
        self._write(best[rows[0]["cell"]], rows[0])
        yield self.progress()

    def _write(self, cell: Cell, row: dict[str, Any]) -> None:
        low, high = row["ratio_interval"]
        self.preset = Preset(
            cell,
            row["ratio"],
            (low, high),
            self.machine,
            self.search.prompts.describe(),
            dict(vars(self.search.setting)),
            len(self.history()),
            self.command,
        )
        path = self.folder / "preset.json"
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.preset.to_json(), indent=1), encoding="utf-8")
        partial.replace(path)
        self._line = f"{cell.label}: {row['ratio']:.2f} x plain [{low:.2f}, {high:.2f}], in {path}"

    # ---- opening ---------------------------------------------------------------------------------

    def _opened(self, optuna: Any) -> Any:
        """The study of the folder, its interrupted trials put back in the queue."""
        path = self.folder / LOG
        if path.exists():
            cut_torn_line(path)
        for left in self.folder.glob(f"{LOG}.lock*"):  # of a killed process; the folder is ours
            left.unlink()
        journal = optuna.storages.journal.JournalFileBackend(str(path))
        try:
            study = optuna.create_study(
                storage=optuna.storages.JournalStorage(journal),
                study_name="tune",
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
            )
        except (ValueError, LookupError, AssertionError) as error:
            raise BadInput(f"{path} is damaged ({error}); name another folder") from None
        trials = study.get_trials(deepcopy=False)
        seed = self.search.setting.seed + len(trials)  # a resumed search must not repeat itself
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)
        self._agree(study)
        for trial in trials:
            if trial.state == optuna.trial.TrialState.RUNNING:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                study.enqueue_trial(trial.params)
        return study

    def _agree(self, study: Any) -> None:
        """Begin the study with what it is about, or refuse one that is about something else."""
        wanted, known = self.search.to_json(), study.user_attrs
        if "search" not in known:
            for guess in self.search.first_guesses():
                study.enqueue_trial(guess)
            study.set_user_attr("machine", self.machine)
            study.set_user_attr("search", wanted)
            return
        differs = [k for k in wanted if known["search"].get(k) != wanted[k]]
        if differs:
            told = "; ".join(f"{k} {known['search'].get(k)} there, {wanted[k]}" for k in differs)
            raise BadInput(
                f"folder={str(self.folder)!r} holds another search ({told} asked for). Name"
                " another folder, or repeat the command that began this one"
            )
        if not alike(known["machine"], self.machine):
            raise BadInput(
                f"folder={str(self.folder)!r} holds a search on {words(known['machine'])}; this is"
                f" {words(self.machine)}, and times of two machines do not compare. Name another"
                " folder to tune anew"
            )
