"""Optuna searches over the configs of a sweep: the space, the proposals and the results.

The trials are kept in a sealed record, because a damaged database would change a search silently.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override
from optuna import Study
from optuna.distributions import BaseDistribution as Distribution
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, TypeAdapter

from emotion.errors import DamagedFile, UserError
from emotion.files import read_sealed, write_sealed
from emotion.tables import write_table

TRIALS_FILE = "search.json"
FAILED = TrialState.PRUNED  # unlike FAIL, the sampler learns to avoid it


def search_space(overrides: Sequence[Override]) -> tuple[list[str], dict[str, Distribution]]:
    """Split parsed overrides into those that all trials share, and what Optuna searches."""
    latest = {override.get_key_element(): override for override in overrides}
    searched = {key: distribution(o) for key, o in latest.items() if o.is_sweep_override()}
    if not searched:
        raise UserError(
            "hparams=optuna needs a range to search, such as "
            "'optimizer.lr=tag(log,interval(1e-5,1e-2))'"
        )
    shared = {key: o.get_value_element_as_str() for key, o in latest.items() if key not in searched}
    return [f"{key}={value}" for key, value in shared.items()], searched


def distribution(override: Override) -> Distribution:
    """Return Optuna's distribution for a sweep in Hydra's grammar.

    `interval(a,b)` is a range of floats, `int(interval(a,b))` of integers;
    `tag(log,interval(a,b))` is sampled on a log scale. All else is categorical.
    """
    sweep = override.value()
    try:
        if isinstance(sweep, IntervalSweep):
            is_int = isinstance(sweep.start, int) and isinstance(sweep.end, int)
            kind = IntDistribution if is_int else FloatDistribution
            return kind(sweep.start, sweep.end, log="log" in sweep.tags)
        choices = override.sweep_string_iterator()
        return CategoricalDistribution([re.sub(r"^'(\d+)'$", r"\1", text) for text in choices])
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}") from None


class Trial(BaseModel, extra="forbid", allow_inf_nan=False):
    """What was proposed, and what came of it; a trial that runs is run again if it is killed."""

    params: dict[str, str | int | float]
    state: Literal["running", "finished", "failed"]
    accuracy: float | None  # on validation stacks, of a finished trial


class Trials(BaseModel, extra="forbid"):
    """The content of the file."""

    identity: str  # the config and ranges of the search
    trials: tuple[Trial, ...]


_ADAPTER = TypeAdapter(Trials)


@dataclass(frozen=True)
class Search:
    """A search in a folder; `study` is Optuna's, in memory."""

    folder: Path
    identity: str
    searched: dict[str, Distribution]
    study: Study

    @classmethod
    def open(
        cls, folder: Path, identity: str, searched: dict[str, Distribution], seed: int
    ) -> "Search":
        """Begin a search, or continue the one in the folder."""
        path = folder / TRIALS_FILE
        try:
            record = read_sealed(path, _ADAPTER)
        except FileNotFoundError:
            record = Trials(identity=identity, trials=())
        except DamagedFile as error:
            raise DamagedFile(f"{error}: move it away to begin the search again") from None
        if record.identity != identity:
            raise UserError(f"{path} has other settings or ranges: use another sweep=NAME")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Another seed after each start: the same one would propose the same values again
        seed += len(record.trials)
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in record.trials:
            if trial.state == "running":
                study.enqueue_trial(trial.params)
            else:
                state = FAILED if trial.state == "failed" else TrialState.COMPLETE
                done = {"params": trial.params, "distributions": searched, "state": state}
                study.add_trial(optuna.trial.create_trial(value=trial.accuracy, **done))
        return cls(folder, identity, searched, study)

    def save(self) -> None:
        """Write all trials that have been proposed."""
        names = {TrialState.COMPLETE: "finished", FAILED: "failed"}
        trials = []
        for trial in self.study.trials:
            params = trial.params or trial.system_attrs["fixed_params"]  # of one that waits
            state = names.get(trial.state, "running")
            trials.append(Trial(params=params, state=state, accuracy=trial.value))
        record = Trials(identity=self.identity, trials=tuple(trials))
        write_sealed(self.folder / TRIALS_FILE, _ADAPTER, record)

    @property
    def ended(self) -> list[FrozenTrial]:
        """The trials that have finished or failed, those of earlier starts included."""
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, FAILED])

    def run_trials(
        self, num: int, run: Callable[[list[list[str]]], Sequence[float | None]]
    ) -> None:
        """Propose `num` trials, run them together and store their results.

        `run` runs cells, given their overrides; it returns validation accuracies, None for failed
        ones.
        """
        trials = [self.study.ask(self.searched) for _ in range(num)]
        self.save()
        accuracies = run([[f"{k}={v}" for k, v in trial.params.items()] for trial in trials])
        for trial, accuracy in zip(trials, accuracies, strict=True):
            state = FAILED if accuracy is None else TrialState.COMPLETE
            self.study.tell(trial, accuracy, state=state)
            result = "failed" if accuracy is None else f"{accuracy:.2%}"
            print(f"trial {trial.number}: {result} with {trial.params}", flush=True)
        self.save()

    def report(self, shared: Sequence[str]) -> None:
        """Write all trials to `trials.csv`; print the best one and how to run it."""
        ended, path = self.ended, self.folder / "trials.csv"
        rows = [{"trial": t.number, "val accuracy": t.value} | t.params for t in ended]
        write_table(path, ["trial", "val accuracy", *self.searched], rows)
        num_failed = sum(trial.state == FAILED for trial in ended)
        if num_failed == len(ended):
            raise UserError(f"all {num_failed} trials failed: see {self.folder}/*/error.txt")
        best = self.study.best_trial
        shared = [each for each in shared if not each.startswith(("hparams=", "sweep="))]
        command = ["python", "train.py", *shared, *(f"{k}={v}" for k, v in best.params.items())]
        print(
            f"{len(ended)} trials, {num_failed} of them failed: {path}\n"
            f"best: {best.value:.2%} in trial {best.number}. The best of many validation scores "
            "is optimistic: evaluate it on the test split\n"
            f"to run it: {shlex.join(command)}"
        )
