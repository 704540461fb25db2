"""Studies: an Optuna search over a sweep's cells for what validates best.

Thin on purpose: Optuna proposes and remembers, in a SQLite file in the sweep's folder, and a trial
is a cell like any other, with a folder, a record and a config that can be run again.
"""

import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console
from rich.table import Table

from emotion.errors import UserError
from emotion.progress import duration
from emotion.tables import write_table
from emotion.training.record import FinishedRun, RunRecord

FAILED = TrialState.PRUNED  # not FAIL, which the sampler would not learn to avoid
SHOWN = 5  # trials in the printed table


@dataclass(frozen=True)
class Space:
    """What a search varies, and what it leaves alone.

    Attributes:
        fixed: overrides that all trials have.
        searched: for each key, the values to choose from.
    """

    fixed: tuple[str, ...]
    searched: Mapping[str, BaseDistribution]

    @classmethod
    def from_overrides(cls, overrides: Sequence[Override]) -> "Space":
        """Read a space off parsed overrides: every sweep among them is searched.

        Raises:
            UserError: nothing is searched.
        """
        latest = {override.get_key_element(): override for override in overrides}
        searched = {
            key: distribution(override)
            for key, override in latest.items()
            if override.is_sweep_override()
        }
        if not searched:
            raise UserError(
                "hparams=optuna has nothing to search: give a range, such as "
                "'optimizer.lr=tag(log,interval(1e-5,1e-2))'"
            )
        fixed = tuple(
            f"{key}={override.get_value_element_as_str()}"
            for key, override in latest.items()
            if key not in searched
        )
        return cls(fixed, searched)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Give the overrides of a trial with these values."""
        return [*self.fixed, *(f"{key}={value}" for key, value in params.items())]


def distribution(override: Override) -> BaseDistribution:
    """Read what Optuna shall draw from off a sweep in Hydra's grammar.

    `interval(a,b)` is a range of numbers, `int(interval(a,b))` of whole ones, and
    `tag(log,interval(a,b))` is drawn by its logarithm; `range(a,b,step)` excludes b; a list or
    `choice(...)` is a choice.

    Raises:
        UserError: the range is empty, or not one of numbers.
    """
    sweep = override.value()
    try:
        if isinstance(sweep, IntervalSweep):
            whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
            kind = IntDistribution if whole else FloatDistribution
            return kind(sweep.start, sweep.end, log="log" in sweep.tags)
        if isinstance(sweep, RangeSweep) and not sweep.shuffle:
            if not (values := list(override.sweep_iterator())):
                raise ValueError("the range is empty")
            kind = IntDistribution if isinstance(values[0], int) else FloatDistribution
            return kind(values[0], values[-1], step=sweep.step)
        if isinstance(sweep, ChoiceSweep | RangeSweep):
            choices = override.sweep_string_iterator()
            return CategoricalDistribution([re.sub(r"^'(\d+)'$", r"\1", text) for text in choices])
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}") from None
    raise UserError(f"{override.input_line}: a search takes interval(), range() or choice()")


class Study:
    """A search in one folder, which goes on when it is opened again."""

    def __init__(self, folder: Path, space: Space, setting: str, seed: int) -> None:
        """Open the folder's study, or begin one.

        Args:
            folder: of the sweep; holds `study.db`.
            space: what is searched.
            setting: names all else that trials share; another one is another study.
            seed: of the proposals.

        Raises:
            UserError: the folder holds the study of something else.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self.space = space
        self.study = optuna.create_study(
            storage=f"sqlite:///{folder / 'study.db'}",
            study_name="study",
            direction="maximize",
            load_if_exists=True,
        )
        told = self.study.user_attrs.get("setting")
        identity = setting + " " + " ".join(f"{k}: {d}" for k, d in sorted(space.searched.items()))
        if told not in (None, identity):
            raise UserError(
                f"{folder / 'study.db'} is a search with other settings or ranges: "
                "name another sweep"
            )
        self.study.set_user_attr("setting", identity)
        # A sampler begins its random numbers anew, so it must not begin with those it has used
        self.study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(self.study.trials), constant_liar=True
        )
        self._take_up()

    def _take_up(self) -> None:
        """Queue once more the trials that an earlier process was killed at."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self.study.enqueue_trial(trial.params)
            self.study.tell(trial.number, state=TrialState.FAIL)

    @property
    def over(self) -> list[FrozenTrial]:
        """The trials that have ended, whether well or not."""
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, FAILED])

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that have a result, the best one first, and of equals the first."""
        finished = [trial for trial in self.over if trial.state == TrialState.COMPLETE]
        return sorted(finished, key=lambda trial: (-trial.value, trial.number))

    def search(
        self,
        n_trials: int,
        side_by_side: int,
        run: Callable[[list[list[str]]], list[dict | None]],
    ) -> None:
        """Run trials until so many have ended, in this process or an earlier one.

        Args:
            n_trials: how many in all; those that fail count.
            side_by_side: how many to propose before the first of them has ended.
            run: runs cells by their overrides, and gives the record of each.
        """
        start_s, before = time.monotonic(), len(self.over)
        while (open_trials := n_trials - len(self.over)) > 0:
            trials = [self._ask() for _ in range(min(open_trials, side_by_side))]
            records = run([self.space.overrides(trial.params) for trial in trials])
            for trial, record in zip(trials, records, strict=True):
                self._tell(trial, record)
            done = len(self.over)
            left_s = (time.monotonic() - start_s) / (done - before) * (n_trials - done)
            if done < n_trials:
                until = datetime.now() + timedelta(seconds=left_s)
                left = f"about {duration(left_s)} left, until {until:%H:%M}"
                print(f"{done} of {n_trials} trials, {left}")

    def _ask(self) -> Trial:
        """Have a trial proposed."""
        return self.study.ask(dict(self.space.searched))

    def _tell(self, trial: Trial, record: RunRecord | None) -> None:
        """Note what became of a trial, and say so."""
        values = ", ".join(f"{key}={shown(value)}" for key, value in trial.params.items())
        if not isinstance(record, FinishedRun):
            self.study.tell(trial, state=FAILED)
            print(f"trial {trial.number} failed: {values}")
            return
        self.study.tell(trial, record.val_accuracy)
        best = self.finished[0]
        print(
            f"trial {trial.number}: {record['val_accuracy']:.2%} with {values}; "
            f"best: {best.value:.2%} of trial {best.number}"
        )

    def report(self) -> None:
        """Print the best trials and how to run the best one; write all to `trials.csv`.

        Raises:
            UserError: none has finished.
        """
        over = self.over
        keys = list(self.space.searched)
        rows = [
            {"trial": t.number, "val accuracy": "" if t.value is None else t.value} | t.params
            for t in over
        ]
        write_table(self.folder / "trials.csv", ["trial", "val accuracy", *keys], rows)
        if not self.finished:
            raise UserError(f"all {len(over)} trials failed; see error.txt in {self.folder}/*")
        table = Table("trial", "val accuracy, %", *keys, title="the best trials")
        for trial in self.finished[:SHOWN]:
            values = map(shown, trial.params.values())
            table.add_row(str(trial.number), f"{100 * trial.value:.2f}", *values)
        console = Console(soft_wrap=True, highlight=False)
        console.print(table)
        console.print(
            f"{len(over)} trials, {len(over) - len(self.finished)} of them failed; the best of "
            "many is flattered by luck on the validation clips, judge it by the test split"
        )
        command = [
            argument
            for argument in self.space.overrides(self.finished[0].params)
            if argument.partition("=")[0] not in ("hparams", "sweep")
        ]
        console.print(f"the best one: python train.py {shlex.join(command)}", markup=False)
        console.print(f"all trials: {self.folder / 'trials.csv'}")


def shown(value: Any) -> str:
    """Write a value for people: numbers with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
