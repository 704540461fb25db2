"""The seed's published table, and what is wrong with it: numbers on other clips than ours.

`published.yaml` has them as they were published; errata are computed from its own confusion
matrices.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

SOURCE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class PublishedEntry:
    """One number of the table.

    Attributes:
        interval: frames from one image to the next.
        model: its name in `conf/model`.
        title: its name for people.
        stated: accuracy in %, as the table says.
        confusion: (C, C) int64 counts, rows true.
    """

    interval: int
    model: str
    title: str
    stated: float
    confusion: np.ndarray

    @property
    def right(self) -> int:
        """Stacks on the diagonal of the confusion matrix."""
        return int(self.confusion.trace())

    @property
    def num(self) -> int:
        """Stacks in the confusion matrix."""
        return int(self.confusion.sum())

    @property
    def counted(self) -> float:
        """Accuracy in % by the confusion matrix, rounded as the table is."""
        return round(100 * self.right / self.num, 2)

    @property
    def is_wrong(self) -> bool:
        """Whether table and confusion matrix differ."""
        return abs(self.stated - self.counted) > 0.005

    @property
    def margin(self) -> float:
        """Half the width of the 95 % confidence interval in points, were all stacks independent.

        By the normal approximation of the binomial distribution.
        """
        share = self.right / self.num
        return 100 * 1.96 * math.sqrt(share * (1 - share) / self.num)


@dataclass(frozen=True)
class Published:
    """The table.

    Attributes:
        data: the data set, by its name in `conf/data`.
        train_stacks: how many it was trained on.
        val_stacks: how many chose the epoch and were reported on.
        segment_frames: frames of a segment.
        images: interval -> images of a stack, as the table says.
        titles: model -> name for people, in the table's order.
        entries: all of them, row by row.
    """

    data: str
    train_stacks: int
    val_stacks: int
    segment_frames: int
    images: dict[int, int]
    titles: dict[str, str]
    entries: tuple[PublishedEntry, ...]

    def entry(self, interval: int, model: str) -> PublishedEntry:
        """Give the number of a model at an interval."""
        return next(e for e in self.entries if (e.interval, e.model) == (interval, model))

    def errata(self) -> list[str]:
        """Say where the table contradicts arithmetic or its own confusion matrices."""
        errata = []
        for interval, images in self.images.items():
            made = math.ceil(self.segment_frames / interval)
            if made != images:
                errata.append(
                    f"interval {interval}: the table says {images} images, and "
                    f"{self.segment_frames} frames give {made}"
                )
        for entry in (entry for entry in self.entries if entry.is_wrong):
            text = (
                f"interval {entry.interval}, {entry.title}: the table says {entry.stated:.2f}, and "
                f"its confusion matrix gives {entry.counted:.2f} ({entry.right} of {entry.num})"
            )
            whose = [
                other.title
                for other in self.entries
                if other.interval == entry.interval and abs(other.counted - entry.stated) < 0.005
            ]
            if whose:
                text += f"; {entry.stated:.2f} is what the matrix of {whose[0]} gives"
            errata.append(text)
        return errata


@cache
def read_published() -> Published:
    """Read `published.yaml`."""
    table = OmegaConf.to_container(OmegaConf.load(SOURCE))
    return Published(
        data=table["data"],
        train_stacks=sum(table["train_stacks"]),
        val_stacks=sum(table["val_stacks"]),
        segment_frames=table["segment_frames"],
        images={row["frames"]: row["images"] for row in table["intervals"]},
        titles=table["titles"],
        entries=tuple(
            PublishedEntry(
                row["frames"],
                model,
                title,
                row["accuracy"][model],
                np.array(row["confusion"][model], dtype=np.int64),
            )
            for row in table["intervals"]
            for model, title in table["titles"].items()
        ),
    )
