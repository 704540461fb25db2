"""Recognizing: a clip's stacks are those of training, and its probabilities the model's own."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy.special import softmax

from emotion import EmotionRecognizer
from emotion.clips import Clip
from emotion.cutting import Cutter
from emotion.datamodule import StackDataModule
from emotion.augmentation import Augmentation
from emotion.errors import UserError
from emotion.module import EmotionModule
from emotion.recipe import Recipe
from emotion.stack import read_stack
from emotion.video import Video, VideoError


class Recorder:
    """Stands in for a runtime: keeps the stacks that it is given, answers with set logits."""

    name = "a recorder"

    def __init__(self, *logits: list[float]) -> None:
        self.logits = list(logits)
        self.stacks = []

    def classify(self, stacks: np.ndarray) -> np.ndarray:
        assert stacks.dtype == np.uint8
        self.stacks.append(stacks.copy())
        logits = self.logits.pop(0) if self.logits else [0.0] * 5
        return np.array([logits], np.float32)


@pytest.fixture
def recipe(run_dir: Path) -> Recipe:
    return Recipe.read(run_dir / "recipe.json")


@pytest.fixture(scope="session")
def happy(demo_cache) -> Path:
    return demo_cache.root / "Happy_0001.mp4"


@pytest.mark.parametrize("read_ahead", [False, True])
def test_a_training_clips_stacks_are_the_training_times_bit_for_bit(
    demo_cache, recipe: Recipe, read_ahead: bool
):
    data = StackDataModule(
        demo_cache, recipe.interval, Augmentation(), batch_size=1, image_px=recipe.image_px
    )
    data.setup()
    for row, (expected, _) in zip(data.rows["train"][:4], data.train_dataloader().dataset[0:0] or [], strict=False):
        raise AssertionError
    dataset = data.evaluation_dataloader("val").dataset
    for index, row in enumerate(dataset.rows[:4]):
        runtime = Recorder()
        recognizer = EmotionRecognizer(runtime, recipe, read_ahead=read_ahead)
        recognizer.predict(demo_cache.root / f"{row.clip}.mp4")
        expected, _ = dataset[index, 0]
        assert expected.shape == (9, 64, 64)
        np.testing.assert_array_equal(runtime.stacks[row.segment - 1][0], expected.numpy())
