"""The estimate of a sweep: against real runs, and when it is told."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from emotion.cli import REPOSITORY
from emotion.models.stack_classifier import StackClassifier
from emotion.stacks.cache import Cache
from emotion.sweeps.estimate import cell_seconds, stack_passes, time_stack

pytestmark = pytest.mark.slow

SMALL = ["experiment=smoke", "loader.image_px=96"]


def config(compose, demo_cache: Cache, *overrides: str) -> DictConfig:
    return compose("train", [f"paths.cache={demo_cache.directory.parents[1]}", *SMALL, *overrides])


def test_passes_count_epochs_and_a_third_of_validation(compose, demo_cache: Cache):
    cfg = config(compose, demo_cache, "trainer.max_epochs=6")  # 10 stacks each in train and val
    assert abs(stack_passes(cfg) - 6 * (10 + 10 / 3)) < 1e-9


def test_what_is_short_is_not_timed(compose, demo_cache: Cache):
    cfg = config(compose, demo_cache)
    start_s = time.perf_counter()
    assert cell_seconds([cfg] * 9, negligible_s=3600) is None
    assert time.perf_counter() - start_s < 1


def test_estimate_is_near_the_time_of_the_real_steps(compose, demo_cache: Cache):
    cfg = config(compose, demo_cache, "trainer.max_epochs=3")
    twice = config(compose, demo_cache, "trainer.max_epochs=6")
    seconds = cell_seconds([cfg, twice], negligible_s=0)
    assert abs(seconds[1] / seconds[0] - 2) < 1e-6
    network = StackClassifier(cfg.model.backbone, 9, 5).to(memory_format=torch.channels_last)
    stacks = torch.rand(4, 9, 96, 96).to(memory_format=torch.channels_last)
    times_s = []
    for _ in range(4):
        start_s = time.perf_counter()
        network(stacks).sum().backward()
        times_s.append(time.perf_counter() - start_s)
    step_s = min(times_s)
    assert 0.3 < seconds[0] / (stack_passes(cfg) * step_s / 4) < 3  # other work on the machine


def test_timing_leaves_the_random_numbers_of_cells_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    time_stack("mobilenetv3_large_100", "early", 6, 32, True, "cpu")
    assert torch.equal(torch.rand(3), expected)


def test_cell_that_cannot_be_built_is_left_to_say_so(compose, demo_cache: Cache):
    cfg = config(compose, demo_cache, "model.backbone=nonsense")
    assert cell_seconds([cfg], negligible_s=0) is None


def test_long_sweep_says_so_at_once_and_names_the_smaller_recipe(demo_cache: Cache, tmp_path: Path):
    run = subprocess.Popen(
        [sys.executable, "train.py", "-m", "interval=15", "seed=range(9)", "sweep=s",
         "trainer.max_epochs=9000", "data.max_clips_per_class=2", "model.pretrained=false",
         f"paths.cache={demo_cache.directory.parents[1]}", f"paths.output={tmp_path}"],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said = []
        for line in run.stdout:
            said.append(line)
            if "cells on this machine" in line or "epoch" in line:
                break
    finally:
        run.kill()
        run.communicate()
    assert " h for 9 cells on this machine; experiment=small makes it about " in said[-1], said
    assert not list(tmp_path.glob("sweeps/s/*/metrics.json"))
