"""Searches: their ranges, what is stored, and a killed search that continues."""

import csv
import os
import signal
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from emotion.errors import DamagedFile, UserError
from tests.sweeps.conftest import wait_for

RANGE = "optimizer.lr=tag(log,interval(1e-5,1e-2))"


def parsed(*arguments: str) -> list:
    return OverridesParser.create().parse_overrides(list(arguments))


def trials_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_ranges_in_hydras_grammar():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from emotion.sweeps.search import search_space

    expected = {
        "interval(0.0,1.5)": FloatDistribution(0, 1.5),
        "int(interval(1,10))": IntDistribution(1, 10),
        "tag(log,interval(1e-5,1e-2))": FloatDistribution(1e-5, 1e-2, log=True),
        "8,24": CategoricalDistribution(("8", "24")),
        "'5','10'": CategoricalDistribution(("5", "10")),
        "range(2,8,2)": CategoricalDistribution(("2", "4", "6")),
    }
    for text, searched in expected.items():
        assert search_space(parsed("a=1", f"x={text}")) == (["a=1"], {"x": searched})
    # A value on the command line replaces a range
    assert search_space(parsed("a=8,9", "x=1,2", "a=8"))[0] == ["a=8"]


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("seed=1", "hparams=optuna"),
        ("lr=interval(2,1)", "lr=interval(2,1)"),
        ("lr=tag(log,interval(0.0,1.0))", "lr=tag(log,interval(0.0,1.0))"),
    ],
)
def test_mistake_names_the_argument(argument: str, key: str):
    from emotion.sweeps.search import search_space

    with pytest.raises(UserError) as refusal:
        search_space(parsed(argument))
    assert key in str(refusal.value)


def test_search_continues_past_failures_and_a_kill(tmp_path: Path, capsys):
    from optuna.distributions import FloatDistribution

    from emotion.sweeps.search import Search

    def hill(jobs: list[list[str]]) -> list[float | None]:
        """Return the distance of x from 0.3, negative; fail below 0.1."""
        values = [float(job[0].removeprefix("x=")) for job in jobs]
        return [None if x < 0.1 else 1 - abs(x - 0.3) for x in values]

    def kill(jobs: list[list[str]]) -> list[float | None]:
        raise KeyboardInterrupt(jobs[0][0])

    searched = {"x": FloatDistribution(0, 1)}
    Search.open(tmp_path, "here", searched, 0).run_trials(3, hill)
    with pytest.raises(KeyboardInterrupt) as killed:
        Search.open(tmp_path, "here", searched, 0).run_trials(1, kill)
    search = Search.open(tmp_path, "here", searched, 0)
    assert len(search.ended) == 3
    for _ in range(20):
        search.run_trials(1, hill)
    xs = [trial.params["x"] for trial in search.ended]
    assert f"x={xs[3]}" == str(killed.value) and len(set(xs)) == 23
    best = search.study.best_trial.params["x"]
    assert abs(best - 0.3) < 0.05
    search.report(["sweep=s", "model=effv2s"])
    assert f"train.py model=effv2s x={best}\n" in capsys.readouterr().out
    for row in trials_of(tmp_path / "trials.csv"):
        expected = hill([[f"x={row['x']}"]])[0]
        assert row["val accuracy"] == ("" if expected is None else str(expected))
    with pytest.raises(UserError, match=r"search\.json"):
        Search.open(tmp_path, "other ranges", searched, 0)
    path = tmp_path / "search.json"
    path.write_text(path.read_text().replace(f"{xs[0]}", "0.5"))
    with pytest.raises(DamagedFile, match=r"search\.json"):
        Search.open(tmp_path, "here", searched, 0)


def test_search_runs_cells_with_what_was_proposed(cells, sweep, tmp_path: Path):
    arguments = ("hparams=optuna", "~hydra.sweeper.params", RANGE, "interval=10,15")
    assert sweep(*arguments, "hydra.sweeper.n_trials=2") == ""
    cells.fails[0] = RuntimeError("broken")  # all cells have seed 0
    assert sweep(*arguments, "hydra.sweeper.n_trials=3") == ""
    trials = trials_of(tmp_path / "sweeps" / "s" / "trials.csv")
    assert len(cells.ran) == len(trials) == 3 and trials[2]["val accuracy"] == ""
    for trial, overrides in zip(trials, cells.overrides, strict=True):
        assert f"optimizer.lr={trial['optimizer.lr']}" in overrides
        assert f"interval='{trial['interval']}'" in overrides
    for row in trials[:2]:
        expected = 1 / (1 + abs(float(row["optimizer.lr"]) - 3e-4))
        assert float(row["val accuracy"]) == pytest.approx(expected)
    assert sweep(*arguments, "hydra.sweeper.n_trials=many").startswith("error: hydra.sweeper.n_tr")
    assert sweep("hparams=optuna", "seed=1").startswith("error: ")  # another search


@pytest.mark.slow
def test_killed_search_continues(start_sweep, tmp_path: Path):
    from emotion.training.record import read_record

    folder, gate = tmp_path / "sweeps" / "s", tmp_path / "gate"
    waits = f"+callbacks.w={{_target_:tests.deadly.Waits,seed:0,of_seed:0,file:{gate}}}"
    arguments = ("hparams=optuna", waits, "hydra.sweeper.n_trials=2")
    gate.touch()
    killed = start_sweep(*arguments)
    wait_for(tmp_path, "gate.reached", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    gate.unlink()
    again = start_sweep(*arguments)
    output, _ = again.communicate(timeout=400)
    assert again.returncode == 0, output
    records = [read_record(path.parent) for path in folder.glob("*/metrics.json")]
    trials = trials_of(folder / "trials.csv")
    assert len(records) == len(list(folder.glob("*/.hydra"))) == 2  # the killed cell is one of them
    assert sorted(float(trial["val accuracy"]) for trial in trials) == sorted(
        record.val_accuracy for record in records
    )
    trained = {str(record.settings["optimizer"]["lr"]) for record in records}
    assert trained == {trial["optimizer.lr"] for trial in trials}
