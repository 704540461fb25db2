"""Optuna searches over the configs of a sweep: the space, the proposals and the results."""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override
from optuna import Study
from optuna.distributions import BaseDistribution as Distribution
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from emotion.errors import UserError
from emotion.tables import write_table

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


def open_study(folder: Path, identity: str, seed: int) -> Study:
    """Open the study in a folder, or create it; queue the trials of a killed process again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{folder / 'study.db'}"
    study = optuna.create_study(
        storage=storage, study_name="study", direction="maximize", load_if_exists=True
    )
    if study.user_attrs.get("identity", identity) != identity:
        raise UserError(f"{storage} has other settings or ranges: use another sweep=NAME")
    study.set_user_attr("identity", identity)
    # Another seed after each start: the same one would propose the same values again
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), constant_liar=True)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def ended_trials(study: Study) -> list[FrozenTrial]:
    """Return the trials that have finished or failed, those of earlier starts included."""
    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, FAILED])


def run_trials(
    study: Study,
    searched: dict[str, Distribution],
    num: int,
    run: Callable[[list[list[str]]], Sequence[float | None]],
) -> None:
    """Propose `num` trials, run them together and store their results.

    `run` runs cells, given their overrides; it returns validation accuracies, None for failed ones.
    """
    trials = [study.ask(searched) for _ in range(num)]
    accuracies = run([[f"{k}={v}" for k, v in trial.params.items()] for trial in trials])
    for trial, accuracy in zip(trials, accuracies, strict=True):
        study.tell(trial, accuracy, state=FAILED if accuracy is None else TrialState.COMPLETE)
        result = "failed" if accuracy is None else f"{accuracy:.2%}"
        print(f"trial {trial.number}: {result} with {trial.params}", flush=True)


def report(study: Study, folder: Path, shared: Sequence[str], searched: Iterable[str]) -> None:
    """Write all trials to `trials.csv`; print the best one and how to run it."""
    ended, path = ended_trials(study), folder / "trials.csv"
    rows = [{"trial": t.number, "val accuracy": t.value} | t.params for t in ended]
    write_table(path, ["trial", "val accuracy", *searched], rows)
    num_failed = sum(trial.state == FAILED for trial in ended)
    if num_failed == len(ended):
        raise UserError(f"all {num_failed} trials failed: see {folder}/*/error.txt")
    best = study.best_trial
    shared = [override for override in shared if not override.startswith(("hparams=", "sweep="))]
    command = ["python", "train.py", *shared, *(f"{k}={v}" for k, v in best.params.items())]
    print(
        f"{len(ended)} trials, {num_failed} of them failed: {path}\n"
        f"best: {best.value:.2%} in trial {best.number}. The best of many validation scores is "
        f"optimistic: evaluate it on the test split\nto run it: {shlex.join(command)}"
    )
