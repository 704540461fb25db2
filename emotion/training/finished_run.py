"""A finished run ──open──> what it has written, and the stacks that it was trained and judged on.

For what comes after training and needs both, such as export.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import emotion.cli  # noqa: F401 gives OmegaConf what a run's config asks for, such as repository
from emotion.data.batch import collate
from emotion.data.dataset import StackDataset
from emotion.errors import UserError
from emotion.evaluation.predictions import Predictions
from emotion.models.recipe import RECIPE_FILE, Recipe
from emotion.stacks.build import CacheBuilder
from emotion.stacks.cache import Cache
from emotion.stacks.manifest import StackRow
from emotion.training.record import RECORD_FILE, FinishedRun, as_plain, read_record

CONFIG_FILE = ".hydra/config.yaml"


@dataclass(frozen=True)
class Run:
    """A run of `train.py` that has come to its end.

    Attributes:
        folder: where its files lie.
        metrics: the content of `metrics.json`.
        recipe: what its model needs to be used.
    """

    folder: Path
    metrics: dict
    recipe: Recipe

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read what a run has written of itself.

        Raises:
            UserError: the folder holds no finished run, or one of an older version.
        """
        record = read_record(folder)
        if record is None:
            raise UserError(f"no {RECORD_FILE} in {folder}: give the folder of one finished run")
        if not isinstance(record, FinishedRun):
            raise UserError(f"{folder / RECORD_FILE}: this run failed; run it again")
        return cls(folder, as_plain(record), Recipe.read(folder / RECIPE_FILE))

    @property
    def checkpoint(self) -> Path:
        """The weights of the epoch that was selected."""
        return self.folder / self.metrics["checkpoint"]

    @cached_property
    def predictions(self) -> Predictions:
        """What the model said of the stacks that it was judged on."""
        return Predictions.read(self.folder / "predictions.csv")

    @cached_property
    def cache(self) -> Cache:
        """The cache that it read, built if it is gone.

        Raises:
            UserError: the run's config is gone, or the cache can't be built again.
        """
        path = self.folder / CONFIG_FILE
        try:
            builder = CacheBuilder.from_config(OmegaConf.load(path))
        except (OSError, OmegaConfBaseException) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} does not say where the run's stacks are: {reason}") from None
        if builder.cache.settings != self.recipe.settings:
            raise UserError(f"{path} and {RECIPE_FILE} beside it are not of the same run")
        builder.ensure()
        return builder.cache

    def rows(self, split: str) -> list[StackRow]:
        """Name the stacks of a split, as the run had them.

        Args:
            split: `val` or `test`, those that `predictions.csv` names; or `train`, all others.

        Raises:
            UserError: one of them is not in the cache any more.
        """
        rows = {(row.clip, row.segment): row for row in self.cache.manifest()}
        judged = list(zip(self.predictions.clips, self.predictions.segments, strict=True))
        if split == "train":
            return [row for key, row in rows.items() if key not in set(judged)]
        names = [
            key for key, of in zip(judged, self.predictions.splits, strict=True) if of == split
        ]
        for clip, segment in names:
            if (clip, segment) not in rows:
                raise UserError(
                    f"{self.cache.directory} has no segment {segment} of clip {clip} any more, "
                    "which the run was judged on: give it back its clips, or train anew"
                )
        return [rows[key] for key in names]

    def inputs(self, rows: Sequence[StackRow]) -> np.ndarray:
        """Load stacks as the model takes them.

        Args:
            rows: N, of `rows`.

        Returns:
            What `Runtime.classify` takes.
        """
        recipe = self.recipe
        dataset = StackDataset(
            self.cache, rows, recipe.labels, recipe.step, recipe.image_px, recipe.inputs
        )
        inputs, _ = collate([dataset[index, 0] for index in range(len(rows))])
        return inputs.numpy()


def spread(rows: Sequence[StackRow], num: int) -> list[StackRow]:
    """Take at most so many rows, from the first to the last at even distances."""
    if len(rows) <= num:
        return list(rows)
    return [rows[place] for place in np.linspace(0, len(rows) - 1, num).round().astype(int)]
