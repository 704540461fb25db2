"""A finished run: its record, its recipe, its predictions, and the stacks that it used."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from emotion.errors import UserError
from emotion.evaluation.predictions import PREDICTIONS_FILE, Predictions
from emotion.models.recipe import RECIPE_FILE, Recipe
from emotion.stacks.cache import Cache
from emotion.stacks.manifest import StackRow
from emotion.training.record import RECORD_FILE, FinishedRun, command, read_record

CACHE_KEYS = ("data=", "data.", "sampling.", "face.", "paths.cache=")  # overrides that name a cache


@dataclass(frozen=True)
class Run:
    """A finished run of `train.py`, which may be from another machine.

    Reading it instantiates nothing, resolves no config, and builds no cache.
    """

    folder: Path
    record: FinishedRun
    recipe: Recipe

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read a run's record and recipe."""
        record = read_record(folder)
        if not isinstance(record, FinishedRun):
            raise UserError(f"{folder} must be the folder of a finished run ({RECORD_FILE})")
        record.check_files(folder, RECIPE_FILE)
        return cls(folder, record, Recipe.read(folder / RECIPE_FILE))

    @property
    def checkpoint(self) -> Path:
        """The weights of the best epoch."""
        return self.folder / self.record.checkpoint

    @cached_property
    def predictions(self) -> Predictions:
        """The uncalibrated predictions of the validation and test stacks."""
        return self.record.raw_predictions(self.folder)

    @cached_property
    def cache(self) -> Cache:
        """The cache that the run used, which must not have changed."""
        cache = Cache(Path(self.record.cache), self.recipe.settings)
        if cache.manifest_sha256() != self.record.manifest_sha256:
            overrides = [each for each in self.record.overrides if each.startswith(CACHE_KEYS)]
            flags = self.record.flags
            if "--config-name" in flags:  # of a config for train.py alone
                flags = ()
            if not any(each.startswith("data=") for each in overrides):
                overrides.insert(0, f"data={self.record.data}")
            raise UserError(
                f"{cache.directory}: the stacks of the run {self.folder.name} are gone or have "
                f"changed; with its clips and settings, this makes them again: "
                f"{command(*flags, *overrides, script='preprocess.py')}"
            )
        return cache

    def rows(self, split: str) -> list[StackRow]:
        """Return the manifest rows of `val` or `test`; or of `train`, all rows but those."""
        rows = {(row.clip, row.segment): row for row in self.cache.manifest()}
        samples = self.predictions.samples
        keys = [(sample.clip, sample.segment) for sample in samples]
        if missing := [key for key in keys if key not in rows]:
            clip, segment = missing[0]
            raise UserError(
                f"{self.folder / PREDICTIONS_FILE} has segment {segment} of clip {clip}, which is "
                f"not in {self.cache.directory}: they are not of the same run"
            )
        if split == "train":
            return [row for key, row in rows.items() if key not in set(keys)]
        return [rows[each.clip, each.segment] for each in samples if each.split == split]

    def inputs(self, rows: Sequence[StackRow]) -> np.ndarray:
        """Load (N, T, image_px, image_px) uint8 stacks or (N, T, 468, 3) float32 landmarks."""
        from emotion.data.batch import collate
        from emotion.data.dataset import StackDataset

        recipe = self.recipe
        dataset = StackDataset(
            self.cache, rows, recipe.labels, recipe.step, recipe.image_px, recipe.inputs
        )
        inputs, _ = collate([dataset[index, 0] for index in range(len(rows))])
        return inputs.numpy()
