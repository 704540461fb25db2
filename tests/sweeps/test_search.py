"""Searches: what is drawn, what is remembered, and a killed one that goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from emotion.cli import REPOSITORY
from emotion.errors import UserError
from emotion.stacks.cache import Cache
from emotion.sweeps.search import Space, Study

pytestmark = pytest.mark.slow


def space_of(*arguments: str) -> Space:
    return Space.from_overrides(OverridesParser.create().parse_overrides(list(arguments)))


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ("interval(0.0,1.5)", FloatDistribution(0, 1.5)),
        ("int(interval(1,10))", IntDistribution(1, 10)),
        ("tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
        ("range(2,10,2)", IntDistribution(2, 8, step=2)),
        ("8,24", CategoricalDistribution(("8", "24"))),
        ("choice(seed,strong)", CategoricalDistribution(("seed", "strong"))),
        ("'5','10'", CategoricalDistribution(("5", "10"))),
    ],
)
def test_ranges_in_hydras_grammar(values: str, drawn):
    space = space_of("model=effv2s", f"x.y={values}")
    assert space.searched == {"x.y": drawn} and space.fixed == ("model=effv2s",)


def test_a_value_on_the_command_line_takes_the_place_of_a_range():
    space = space_of("a=interval(0,1)", "b=interval(0,1)", "a=0.5")
    assert list(space.searched) == ["b"] and space.overrides({"b": 0.25}) == ["a=0.5", "b=0.25"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seed=1", "nothing to search: give a range"),
        ("lr=interval(2,1)", "lr=interval(2,1): "),
        ("lr=tag(log,interval(0.0,1.0))", "lr=tag(log,interval(0.0,1.0)): "),
        ("lr=range(5,5)", "lr=range(5,5): the range is empty"),
        ("group=glob(*)", "a search takes interval(), range() or choice()"),
    ],
)
def test_mistakes_name_the_argument(argument: str, message: str):
    with pytest.raises(UserError) as refusal:
        space_of(argument)
    assert message in str(refusal.value)


def hill(jobs: list[list[str]]) -> list[dict | None]:
    """Judge x by its distance from 0.3; fail below 0.1, and say nothing above 0.95."""
    records = []
    for job in jobs:
        x = float(job[-1].removeprefix("x="))
        finished = {"status": "finished", "val_accuracy": 1 - abs(x - 0.3)}
        records.append({"status": "failed"} if x < 0.1 else None if x > 0.95 else finished)
    return records


def test_search_finds_the_hill_past_trials_that_fail(tmp_path: Path, capsys):
    study = Study(tmp_path, space_of("x=interval(0.0,1.0)"), "here", seed=0)
    study.search(40, 2, hill)
    study.report()
    said = capsys.readouterr().out
    assert len(study.over) == 40 and 0 < 40 - len(study.finished) < 8
    assert abs(study.finished[0].params["x"] - 0.3) < 0.02
    assert f"the best one: python train.py x={study.finished[0].params['x']}\n" in said
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    for row in rows:
        expected = hill([[f"x={row['x']}"]])[0] or {}
        assert row["val accuracy"] == str(expected.get("val_accuracy", ""))


def test_search_goes_on_and_proposes_nothing_twice(tmp_path: Path):
    space = space_of("x=interval(0.0,1.0)")
    Study(tmp_path, space, "here", seed=0).search(3, 1, hill)
    cut_off = Study(tmp_path, space, "here", seed=0).study.ask(dict(space.searched))
    asked = []

    def watch(jobs):
        asked.extend(float(job[-1].removeprefix("x=")) for job in jobs)
        return hill(jobs)

    study = Study(tmp_path, space, "here", seed=0)
    study.search(6, 1, watch)
    assert asked[0] == cut_off.params["x"] and len(asked) == 3
    assert len({trial.params["x"] for trial in study.over}) == len(study.over) == 6
    Study(tmp_path, space, "here", seed=0).search(6, 1, lambda jobs: pytest.fail("all are over"))


def test_study_of_something_else_is_refused(tmp_path: Path):
    Study(tmp_path, space_of("x=interval(0.0,1.0)"), "here", seed=0)
    for space, setting in ((space_of("x=interval(0.0,2.0)"), "here"),
                           (space_of("x=interval(0.0,1.0)"), "there")):  # fmt: skip
        with pytest.raises(UserError, match="name another sweep"):
            Study(tmp_path, space, setting, seed=0)


def test_search_where_all_fail_says_where_to_look(tmp_path: Path):
    study = Study(tmp_path, space_of("x=interval(0.0,0.05)"), "here", seed=0)
    study.search(2, 1, hill)
    with pytest.raises(UserError, match=r"all 2 trials failed; see error\.txt"):
        study.report()


def test_killed_search_goes_on_with_its_study(demo_cache: Cache, tmp_path: Path):
    gate, folder = tmp_path / "gate", tmp_path / "sweeps" / "s"
    wait = f"+callbacks.w={{_target_:tests.deadly.Waits,seed:0,of_seed:0,file:{gate}}}"

    def search(n_trials: int) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "train.py", "hparams=optuna", "interval=10,15", "experiment=smoke",
             "logger=none", "sweep=s", wait, f"hydra.sweeper.n_trials={n_trials}",
             f"paths.cache={demo_cache.directory.parents[1]}", f"paths.output={tmp_path}"],
            cwd=REPOSITORY, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    first = search(1)
    said, _ = first.communicate(timeout=200)
    assert first.returncode == 0 and "the best one: python train.py" in said, said
    gate.touch()
    killed = search(3)
    end_s = time.monotonic() + 100
    while len(list(folder.glob("*/.hydra/config.yaml"))) < 2:
        assert time.monotonic() < end_s and killed.poll() is None
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    (half,) = (p for p in folder.iterdir() if p.is_dir() and not (p / "metrics.json").exists())
    gate.unlink()
    again = search(3)
    said, _ = again.communicate(timeout=200)
    assert again.returncode == 0 and "1 of 3 trials are over" in said, said
    records = [json.loads(path.read_text()) for path in folder.glob("*/metrics.json")]
    assert len(records) == 3 and (half / "metrics.json").exists()
    with open(folder / "trials.csv", newline="") as file:
        trials = list(csv.DictReader(file))
    assert sorted(float(t["val accuracy"]) for t in trials) == sorted(
        record["val_accuracy"] for record in records
    )
    told = {key: {t[key] for t in trials} for key in ("optimizer.lr", "augmentation.strength")}
    for record in records:  # what was trained is what was proposed
        assert str(record["settings"]["optimizer"]["lr"]) in told["optimizer.lr"]
        assert str(record["settings"]["augmentation"]["strength"]) in told["augmentation.strength"]
        accuracy = record["scores"]["val"]["stacks"]["accuracy"]
        assert record["val_accuracy"] == pytest.approx(accuracy)
