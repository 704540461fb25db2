"""Splits: assign the rows of a manifest to train, validation and test.

A split keeps groups together: all clips of a subject, or one clip if its subject is unknown.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emotion.clips.naming import SPLITS, find_torn, named_split, split_value
from emotion.errors import UserError
from emotion.stacks.manifest import StackRow

log = logging.getLogger(__name__)

ORDERS = 100  # random orders in which groups are assigned; the best result counts
GROUPS = "subjects, or clips if their subject is unknown,"


@dataclass(frozen=True)
class Split(ABC):
    """A rule that assigns stacks to train, val and test; `name` is its option in `conf/split`."""

    name: str

    @abstractmethod
    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Return `train`, `val` or `test` for each row.

        Args:
            rows: of the manifest.
            pattern: the data set's regular expression for clip ids; None for a list of clips.

        Raises:
            UserError: the rule does not fit these rows.
        """

    @property
    def key(self) -> str:
        """The config key of this rule, for errors."""
        return "data.split" if self.name == "data" else f"split={self.name}"


@dataclass(frozen=True)
class DataSplit(Split):
    """The data set's own split, from its file or list; `GroupedSplit` if it has none."""

    name: str = "data"

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Return the manifest's splits, or grouped ones."""
        if any(row.split for row in rows):
            return [row.split for row in rows]
        return GroupedSplit(name=self.name).assign(rows, pattern)


@dataclass(frozen=True)
class IdSplit(Split):
    """Assigns clips by a part of their names; unlisted values are train."""

    by: str = "id"  # or `subject`, or a group of the data set's pattern; a list has `id` alone
    val: Sequence[str] = ()  # values of that group, single ("03") or as a range ("0016-0020")
    test: Sequence[str] = ()

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Look up the clips' names."""
        groups = ["id"] if pattern is None else list(re.compile(pattern).groupindex)
        if self.by not in {"subject", *groups}:
            choices = ", ".join(dict.fromkeys([*groups, "subject"]))
            raise UserError(f"split.by must be one of {choices} for this data set, got {self.by!r}")
        values = [split_value(self.by, pattern, row.clip, row.subject) for row in rows]
        split = {"val": self.val, "test": self.test}
        return [named_split(value, split) for value in values]


@dataclass(frozen=True)
class GroupedSplit(Split):
    """Splits clips by shares, stratified by class as far as whole groups allow."""

    train: float = 0.7
    val: float = 0.15
    test: float = 0.15  # 0 for two parts
    seed: int = 0

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Assign whole groups."""
        shares = {name: share for name in SPLITS if (share := getattr(self, name))}
        groups = group_names(rows)
        if (num := len(set(groups))) < len(shares):
            raise UserError(
                f"{self.key} needs at least {len(shares)} {GROUPS} for {', '.join(shares)}, "
                f"got {num}: add clips, or choose another split"
            )
        part_of = assign_groups(rows, list(shares.values()), self.seed)
        return [list(shares)[part_of[group]] for group in groups]


@dataclass(frozen=True)
class KFold(Split):
    """Cross-validation: one of k parts is test, the next is val; stratified like `GroupedSplit`."""

    folds: int = 5
    fold: int = 0  # the part that is test
    seed: int = 0  # of the assignment; must be the same for all folds

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Assign whole groups."""
        groups = group_names(rows)
        if (num := len(set(groups))) < self.folds:
            raise UserError(
                f"split.folds must be at most {num}, the number of {GROUPS}, got {self.folds}"
            )
        part_of = assign_groups(rows, [1 / self.folds] * self.folds, self.seed)
        names = {self.fold: "test", (self.fold + 1) % self.folds: "val"}
        return [names.get(part_of[group], "train") for group in groups]


@dataclass(frozen=True)
class LeaveOneSubjectOut(Split):
    """One subject is test, the next are val, so that the best epoch is never chosen on test."""

    fold: int = 0  # index of the test subject in the sorted order of the subjects
    val_subjects: int = 1  # number of subjects after it; the first follows the last

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Look up the subjects."""
        subjects = sorted({row.subject for row in rows} - {""})
        if unknown := sorted({row.clip for row in rows if not row.subject}):
            raise UserError(
                f"{self.key} needs the subject of every clip, and {len(unknown)} have none "
                f"({unknown[0]} is the first): name it by the group subject of data.pattern or the "
                "list's column, or set split=kfold"
            )
        if (num := len(subjects)) < self.val_subjects + 2:
            raise UserError(
                f"{self.key} with split.val_subjects={self.val_subjects} needs at least "
                f"{self.val_subjects + 2} subjects, got {num}: add some, or choose another split"
            )
        if self.fold >= num:
            raise UserError(
                f"split.fold must be below {num}, the number of subjects ({', '.join(subjects)}), "
                f"got {self.fold}"
            )
        turned = subjects[self.fold :] + subjects[: self.fold]
        names = {turned[0]: "test", **dict.fromkeys(turned[1 : self.val_subjects + 1], "val")}
        return [names.get(row.subject, "train") for row in rows]


def group_names(rows: Iterable[StackRow]) -> list[tuple[str, str]]:
    """Return the group of each row: its subject, or its clip if the subject is unknown."""
    return [("subject", row.subject) if row.subject else ("clip", row.clip) for row in rows]


def assign_groups(
    rows: Sequence[StackRow], shares: Sequence[float], seed: int
) -> dict[tuple[str, str], int]:
    """Assign groups to parts, so that each part gets its share of every class's clips.

    Large groups first, each group goes where it minimizes the sum of (count - share)^2 / share
    over parts and classes. The best of many random orders counts. scikit-learn's
    `StratifiedGroupKFold` tries one order, and supports equal shares only.

    Args:
        rows: of at least as many groups as there are shares.
        shares: of the parts, each above 0, adding up to 1.
        seed: of the orders.

    Returns:
        Group -> index of its part; no part is empty.
    """
    names = group_names(rows)
    clips = {(group, row.clip, row.label) for group, row in zip(names, rows, strict=True)}
    clip_counts = Counter((group, label) for group, _, label in clips)
    groups, labels = (sorted(set(each)) for each in zip(*clip_counts, strict=True))
    counts = np.array([[clip_counts[g, label] for label in labels] for g in groups], float)

    generator = np.random.default_rng(seed)
    sizes = counts.sum(axis=1) * generator.uniform(0.7, 1, size=(ORDERS, len(groups)))
    orders = np.argsort(-sizes, axis=1, kind="stable")  # (R, G)
    wanted = np.outer(shares, counts.sum(axis=0))  # (P, C)
    filled = np.zeros((ORDERS, *wanted.shape))  # (R, P, C)
    parts = np.empty((ORDERS, len(groups)), dtype=np.int64)
    trials = np.arange(ORDERS)
    for place in range(len(groups)):
        group = orders[:, place]
        added = counts[group][:, None]  # (R, 1, C)
        costs = ((added**2 + 2 * added * (filled - wanted)) / wanted).sum(axis=2)  # (R, P)
        empty = filled.sum(axis=2) == 0
        must_fill = empty.sum(axis=1) >= len(groups) - place  # one group left for each
        costs[must_fill[:, None] & ~empty] = np.inf
        part = costs.argmin(axis=1)
        filled[trials, part] += added[:, 0]
        parts[trials, group] = part
    best = ((filled - wanted) ** 2 / wanted).sum(axis=(1, 2)).argmin()
    return dict(zip(groups, parts[best].tolist(), strict=True))


def split_rows(rows: Sequence[StackRow], split: Split, pattern: str | None) -> list[StackRow]:
    """Return rows with their splits, in their order; see `Split.assign` for `pattern`.

    Raises:
        UserError: a subject or clip is in two splits (a model recognizes faces that it was trained
            on, so accuracy on them does not carry over to others); or train or val is empty.
    """
    names = split.assign(rows, pattern)
    rows = [replace(row, split=name) for row, name in zip(rows, names, strict=True)]
    for what in ("subject", "clip"):
        if torn := find_torn((getattr(row, what), row.split) for row in rows):
            named = "; ".join(f"{name} in {' and '.join(s)}" for name, s in torn.items())
            raise UserError(
                f"{split.key} puts the same {what} into two splits: {named}; "
                "split=grouped, kfold and leave_one_subject_out keep them together"
            )
    counts = Counter(row.split for row in rows)
    for name in ("train", "val"):
        if not counts[name]:
            named = ", ".join(f"{part}: {counts[part]}" for part in SPLITS)
            raise UserError(
                f"{split.key} leaves no stacks for {name} ({named}): assign other clips to it, or "
                "choose another split (split=grouped needs no names)"
            )
    for name, part in count_parts(rows).items():
        missing = ", ".join(label for label, num in part.clips.items() if not num)
        if missing and counts[name]:
            log.warning("WARNING: %s: no clip of %s is in %s", split.key, missing, name)
    return rows


def spread(rows: Sequence[StackRow], num: int) -> list[StackRow]:
    """Return at most `num` rows, evenly spaced from the first to the last."""
    places = np.linspace(0, len(rows) - 1, min(num, len(rows))).round().astype(int)
    return [rows[place] for place in places]


@dataclass(frozen=True)
class PartCounts:
    """What is in one part of a split: known subjects, and clips and stacks of each class."""

    subjects: tuple[str, ...]
    clips: dict[str, int]
    stacks: dict[str, int]


def count_parts(rows: Sequence[StackRow]) -> dict[str, PartCounts]:
    """Count subjects, clips and stacks; return split -> counts for rows with their splits."""
    none = dict.fromkeys(sorted({row.label for row in rows}), 0)
    parts = {}
    for name in SPLITS:
        own = [row for row in rows if row.split == name]
        parts[name] = PartCounts(
            subjects=tuple(sorted({row.subject for row in own} - {""})),
            clips=none | Counter(label for _, label in {(row.clip, row.label) for row in own}),
            stacks=none | Counter(row.label for row in own),
        )
    return parts
