"""manifest rows ──split──> the same rows, each in train, val or test.

Stands between the cache and who loads from it: the cache is the same whatever the split. A split
puts whole groups into its parts: a person where the subject is known, else a clip.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from emotion.clips.naming import SPLITS, find_torn, named_split
from emotion.errors import UserError
from emotion.stacks.manifest import StackRow

log = logging.getLogger(__name__)

ORDERS = 100  # in which groups are dealt out; the best deal counts


@dataclass(frozen=True)
class Split(ABC):
    """How stacks are put into train, val and test.

    Attributes:
        name: of the option in `conf/split`, for messages and results.
    """

    name: str

    @abstractmethod
    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Say for every row which split it is in.

        Args:
            rows: of the manifest.
            pattern: the data set's regular expression for a clip's id; None for a list of clips.

        Returns:
            `train`, `val` or `test`, one for each row.

        Raises:
            UserError: the rows can't be split so; names the key and the remedy.
        """

    @property
    def key(self) -> str:
        """What to change in the config if the split does not do."""
        return f"split={self.name}"

    @property
    def settings(self) -> dict:
        """What tells this split from others; `fold` tells the parts of one split apart."""
        return asdict(self)


@dataclass(frozen=True)
class DataSplit(Split):
    """The data set's own split, from its file or list; `GroupedSplit` if it has none."""

    name: str = "data"

    @property
    def key(self) -> str:
        """What to change in the config if the split does not do."""
        return "data.split"

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Return the manifest's splits, or grouped ones; see `Split.assign`."""
        if any(row.split for row in rows):
            return [row.split for row in rows]
        return GroupedSplit(name=self.name).assign(rows, pattern)


@dataclass(frozen=True)
class IdSplit(Split):
    """By a part of the clips' names; what no list names is train.

    Attributes:
        by: `subject`, or a group of the data set's pattern; a listed clip has but its whole `id`.
        val: values of that group, single (`"03"`) or as a range (`"0016-0020"`).
        test: likewise.
    """

    by: str = "id"
    val: Sequence[str] = ()
    test: Sequence[str] = ()

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Look up the clips' names; see `Split.assign`."""
        groups = ["id"] if pattern is None else list(re.compile(pattern).groupindex)
        if self.by not in {"subject", *groups}:
            raise UserError(
                f"split.by={self.by}: names of this data set tell {', '.join(groups)}; "
                "set split.by to one of them, or choose another split"
            )
        split = {"val": self.val, "test": self.test}
        return [named_split(self._value(row, pattern), split) for row in rows]

    def _value(self, row: StackRow, pattern: str | None) -> str:
        """What a row's clip says of the group that decides."""
        if self.by == "subject":
            return row.subject
        if pattern is None:
            return row.clip
        return re.fullmatch(pattern, row.clip)[self.by] or ""


@dataclass(frozen=True)
class GroupedSplit(Split):
    """In shares of the clips, every class in proportion as far as whole groups allow.

    Attributes:
        train: the share of train, 0 to 1.
        val: of val.
        test: of test; 0 for a data set of two parts.
        seed: of who goes where.
    """

    train: float = 0.7
    val: float = 0.15
    test: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what a config can get wrong.

        Raises:
            UserError: names the key.
        """
        check_seed(self.seed)
        shares = {name: getattr(self, name) for name in SPLITS}
        for name, share in shares.items():
            if not 0 <= share <= 1 or (share == 0 and name != "test"):
                least = "at least 0" if name == "test" else "above 0"
                raise UserError(f"split.{name}={share}: it is a share, {least} and at most 1")
        if abs(sum(shares.values()) - 1) > 1e-6:
            named = ", ".join(f"split.{name}={share}" for name, share in shares.items())
            raise UserError(f"{named} add up to {sum(shares.values()):g}: make it 1")

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Deal out the groups; see `Split.assign`."""
        parts = {name: share for name in SPLITS if (share := getattr(self, name))}
        groups = group_names(rows)
        if len(set(groups)) < len(parts):
            raise UserError(
                f"{self.key} needs {len(parts)} {noun(rows)} for {', '.join(parts)}, and there "
                f"are {len(set(groups))}: add clips, or choose another split"
            )
        part_of = deal_groups(rows, list(parts.values()), self.seed)
        return [list(parts)[part_of[group]] for group in groups]


@dataclass(frozen=True)
class KFold(Split):
    """One of k parts is test and the next one val; every class in proportion, as `GroupedSplit`.

    Attributes:
        folds: k.
        fold: which part is test, counted from 0.
        seed: of who goes where; must be the same for all folds.
    """

    folds: int = 5
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what a config can get wrong.

        Raises:
            UserError: names the key.
        """
        check_seed(self.seed)
        if self.folds < 3:
            raise UserError(
                f"split.folds={self.folds}: it is at least 3, for one part is test, one val and "
                "the others train"
            )
        check_fold(self.fold, self.folds, f"split.folds={self.folds}")

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Deal out the groups; see `Split.assign`."""
        groups = group_names(rows)
        if len(set(groups)) < self.folds:
            raise UserError(
                f"split.folds={self.folds}: there are only {len(set(groups))} {noun(rows)}; "
                "take fewer folds, or another split"
            )
        part_of = deal_groups(rows, [1 / self.folds] * self.folds, self.seed)
        names = {self.fold: "test", (self.fold + 1) % self.folds: "val"}
        return [names.get(part_of[group], "train") for group in groups]


@dataclass(frozen=True)
class LeaveOneSubjectOut(Split):
    """One subject is test, the next ones val, so that nobody has a say in choosing their own epoch.

    Attributes:
        fold: whose turn it is, counted from 0 in the sorted order of the subjects.
        val_subjects: how many that follow (the first ones follow the last) are val.
    """

    fold: int = 0
    val_subjects: int = 1

    def __post_init__(self) -> None:
        """Check what a config can get wrong.

        Raises:
            UserError: names the key.
        """
        if self.val_subjects < 1:
            raise UserError(f"split.val_subjects={self.val_subjects}: it is at least 1")

    def assign(self, rows: Sequence[StackRow], pattern: str | None) -> list[str]:
        """Look up the subjects; see `Split.assign`."""
        subjects = sorted({row.subject for row in rows} - {""})
        if unknown := sorted({row.clip for row in rows if not row.subject}):
            raise UserError(
                f"{self.key}: names don't tell who is seen in {len(unknown)} clips ({unknown[0]} "
                "is the first): tell it (the group subject of data.pattern, or the list's column), "
                "or set split=kfold"
            )
        if len(subjects) < self.val_subjects + 2:
            raise UserError(
                f"{self.key} with split.val_subjects={self.val_subjects} needs "
                f"{self.val_subjects + 2} subjects, and there are {len(subjects)}: add some, or "
                "choose another split"
            )
        check_fold(self.fold, len(subjects), f"{len(subjects)} subjects ({', '.join(subjects)})")
        turned = subjects[self.fold :] + subjects[: self.fold]
        names = {turned[0]: "test", **dict.fromkeys(turned[1 : self.val_subjects + 1], "val")}
        return [names.get(row.subject, "train") for row in rows]


def check_fold(fold: int, folds: int, there: str) -> None:
    """Refuse a fold that does not exist.

    Args:
        fold: its number.
        folds: how many there are.
        there: what says how many, for the message.

    Raises:
        UserError: names the folds that do exist.
    """
    if not 0 <= fold < folds:
        raise UserError(f"split.fold={fold}: with {there}, it is one of 0 to {folds - 1}")


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy would refuse.

    Raises:
        UserError: names the key.
    """
    if seed < 0:
        raise UserError(f"split.seed={seed}: it is 0 or above")


def group_names(rows: Iterable[StackRow]) -> list[tuple[str, str]]:
    """Name what must stay together: the person, or the clip where nobody is known."""
    return [("subject", row.subject) if row.subject else ("clip", row.clip) for row in rows]


def noun(rows: Iterable[StackRow]) -> str:
    """Say what the groups of these rows are."""
    kinds = {kind for kind, _ in group_names(rows)}
    return {1: f"{min(kinds)}s", 2: "subjects and clips of unknown subject"}[len(kinds)]


def deal_groups(
    rows: Sequence[StackRow], shares: Sequence[float], seed: int
) -> dict[tuple[str, str], int]:
    """Deal groups out to parts, so that each gets its share of every class's clips.

    Large groups first, each goes where it brings the counts nearest to what they should be, by the
    sum of (count - share)^2 / share over parts and classes. Of many orders, drawn by chance, the
    one that ends nearest counts; a few groups of different sizes have one best deal, which every
    seed finds. scikit-learn's `StratifiedGroupKFold` goes through one order, and knows equal
    shares only.

    Args:
        rows: of the manifest; at least as many groups as shares.
        shares: of the parts, each above 0, adding up to 1.
        seed: of the orders.

    Returns:
        Group -> index of its part; no part is left empty.
    """
    clips = {
        (group, row.clip, row.label) for group, row in zip(group_names(rows), rows, strict=True)
    }
    groups = sorted({group for group, _, _ in clips})
    labels = sorted({label for _, _, label in clips})
    counts = np.zeros((len(groups), len(labels)))  # of clips
    group_index = {group: index for index, group in enumerate(groups)}
    for group, _, label in clips:
        counts[group_index[group], labels.index(label)] += 1

    generator = np.random.default_rng(seed)
    sizes = counts.sum(axis=1) * generator.uniform(0.7, 1, size=(ORDERS, len(groups)))
    orders = np.argsort(-sizes, axis=1, kind="stable")  # (R, G)
    wanted = np.outer(shares, counts.sum(axis=0))  # (P, C)
    filled = np.zeros((ORDERS, *wanted.shape))  # (R, P, C)
    parts = np.empty((ORDERS, len(groups)), dtype=np.int64)
    deals = np.arange(ORDERS)
    for place in range(len(groups)):
        group = orders[:, place]
        added = counts[group][:, None]  # (R, 1, C)
        costs = ((added**2 + 2 * added * (filled - wanted)) / wanted).sum(axis=2)  # (R, P)
        empty = filled.sum(axis=2) == 0
        must_fill = empty.sum(axis=1) >= len(groups) - place  # one group left for each
        costs[must_fill[:, None] & ~empty] = np.inf
        part = costs.argmin(axis=1)
        filled[deals, part] += added[:, 0]
        parts[deals, group] = part
    best = ((filled - wanted) ** 2 / wanted).sum(axis=(1, 2)).argmin()
    return dict(zip(groups, parts[best].tolist(), strict=True))


def split_rows(rows: Sequence[StackRow], split: Split, pattern: str | None) -> list[StackRow]:
    """Put every row into a split, and make sure that it is an honest one.

    Args:
        rows: of the manifest.
        split: which rule to follow.
        pattern: the data set's, see `Split.assign`.

    Returns:
        The rows in their order, with their splits.

    Raises:
        UserError: a clip or a person is in two splits, or train or val has no stacks.
    """
    names = split.assign(rows, pattern)
    rows = [replace(row, split=name) for row, name in zip(rows, names, strict=True)]
    check_leaks(rows, split.key)
    counts = Counter(row.split for row in rows)
    for name in ("train", "val"):
        if not counts[name]:
            named = ", ".join(f"{part}: {counts[part]}" for part in SPLITS)
            raise UserError(
                f"{split.key} leaves no stacks for {name} ({named}): name other clips for it, or "
                "choose another split (split=grouped needs no names)"
            )
    for name in SPLITS:
        labels = {row.label for row in rows if row.split == name}
        if labels and (missing := {row.label for row in rows} - labels):
            log.warning(
                "WARNING: %s: no clip of %s is in %s", split.key, ", ".join(sorted(missing)), name
            )
    return rows


def check_leaks(rows: Sequence[StackRow], key: str) -> None:
    """Make sure that no clip and nobody known is in two splits.

    A face that a model was trained on is recognised, and its emotion with it; accuracy on it says
    nothing about people the model never saw.

    Args:
        rows: with their splits.
        key: what the config calls the rule that made them.

    Raises:
        UserError: names the clips or subjects and the splits they are in.
    """
    for what, torn in (
        ("person", find_torn((row.subject, row.split) for row in rows)),
        ("clip", find_torn((row.clip, row.split) for row in rows)),
    ):
        if torn:
            named = "; ".join(f"{name} in {' and '.join(s)}" for name, s in torn.items())
            raise UserError(
                f"{key} puts the same {what} into two splits: {named}; "
                "split=grouped, kfold and leave_one_subject_out keep them together"
            )


def describe_parts(rows: Sequence[StackRow]) -> dict[str, dict]:
    """Say who and how much of each class is in each split.

    Args:
        rows: with their splits.

    Returns:
        Split -> `subjects` (sorted, known ones), and `clips` and `stacks` of each class; plain
        values, for JSON.
    """
    labels = sorted({row.label for row in rows})
    facts = {}
    for name in SPLITS:
        mine = [row for row in rows if row.split == name]
        clips = Counter(label for _, label in {(row.clip, row.label) for row in mine})
        stacks = Counter(row.label for row in mine)
        facts[name] = {
            "subjects": sorted({row.subject for row in mine} - {""}),
            "clips": {label: clips[label] for label in labels},
            "stacks": {label: stacks[label] for label in labels},
        }
    return facts
