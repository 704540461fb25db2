"""Read class, subject and split of a clip from its file name or from a row of a list."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from emotion.config import did_you_mean
from emotion.errors import UserError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".flv", ".m4v"})
STILL_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
KINDS = {"clips": ("video files", VIDEO_SUFFIXES), "stills": ("pictures", STILL_SUFFIXES)}
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clip:
    """A video file or a picture of one person who shows one emotion.

    The id names its stacks: its path relative to the data set's root, with `/` and without suffix,
    or `outside/<absolute path>` if a list has a clip outside the root.
    """

    path: Path
    id: str
    label: str
    subject: str  # "" if unknown
    split: str  # train, val or test; "" if the data set has no split of its own


@dataclass(frozen=True)
class Dropped:
    """A clip, or one segment of it, without a stack."""

    clip: str  # its id
    reason: str  # worded so that other clips can share it
    detail: str = ""  # the numbers of this clip
    segment: int = 0  # counted from 1; 0 for the whole clip


@dataclass(frozen=True)
class Scheme:
    """How to read a data set's file names, or the rows of its list.

    Attributes:
        pattern: regular expression that matches the whole id of a clip, with the group `label` and
            optionally `subject` and the group named by `split_by`. None for a list.
        labels: the classes, in the order of their indices.
        label_map: label in names or list -> class, or None to leave the clip out. Unlisted labels
            map to themselves.
        split_by: group of the pattern, or column of the list, that determines a clip's split.
        split: name of a split -> values of that group, single (`"03"`) or as a range
            (`"0016-0020"`). Unlisted values are `train`. Without any values, the data set has no
            split of its own.
        kind: `clips` or `stills`: which files to use where videos and pictures lie together.
    """

    pattern: str | None
    labels: Sequence[str]
    label_map: Mapping[str, str | None] = field(default_factory=dict)
    split_by: str = "id"
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: str = "clips"

    def __post_init__(self) -> None:
        """Check that the pattern is a regular expression with the groups, or raise a UserError."""
        if self.pattern is None:
            return
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise UserError(
                f"data.pattern must be a regular expression, got {self.pattern!r}: {error}"
            ) from None
        for group in ("label", *([self.split_by] if self.has_split else [])):
            if group not in groups:
                raise UserError(
                    f"data.pattern must have a group (?P<{group}>...), got the groups "
                    f"{', '.join(groups)}"
                )

    @classmethod
    def from_config(cls, data: DictConfig) -> "Scheme":
        """Build the scheme of a composed config's `data` node; raises as `__post_init__`."""
        split = dict(OmegaConf.to_container(data.split)) if data.get("split") else {}
        return cls(
            pattern=data.get("pattern"),
            labels=list(data.labels),
            label_map=OmegaConf.to_container(data.label_map) if data.label_map else {},
            split_by=split.pop("by", "id"),
            split=split,
            kind=data.kind,
        )

    @property
    def has_split(self) -> bool:
        """Whether names or list put clips into train, val and test."""
        return any(self.split.values())

    def read(self, path: Path, root: Path) -> Clip | Dropped:
        """Read the name of a file below the data set's root; the file need not exist."""
        clip_id = printable(path.relative_to(root).with_suffix("").as_posix())
        match = re.fullmatch(self.pattern, clip_id)
        if match is None:
            return Dropped(clip_id, f"its name does not match data.pattern {self.pattern}")
        return self.interpret(path, clip_id, match.groupdict())

    def interpret(
        self, path: Path, clip_id: str, fields: Mapping[str, str | None]
    ) -> Clip | Dropped:
        """Make a clip of `label` and, where known, `subject` and the field named by `split_by`."""
        label = self.label_map.get(fields["label"], fields["label"])
        if label is None:
            return Dropped(clip_id, f"label {fields['label']} is left out by data.label_map")
        if label not in self.labels:
            return Dropped(
                clip_id,
                f"label {label} is not in data.labels ({', '.join(self.labels)}): add it there, or "
                "map it to one of them, or to null, in data.label_map"
                + did_you_mean(label, list(self.labels)),
            )
        value = fields.get(self.split_by) or ""
        split = named_split(value, self.split) if self.has_split else ""
        return Clip(path, clip_id, label, fields.get("subject") or "", split)

    def unused(self, clips: Iterable[Clip]) -> Iterator[tuple[str, str, list[str]]]:
        """Find values in `split` that no clip has.

        Yields:
            The name of a split, such a value, and the values that clips have. Nothing where these
            are not known: of a list's own columns.
        """
        if not self.has_split or (self.pattern is None and self.split_by not in ("id", "subject")):
            return
        values = {split_value(self.split_by, self.pattern, c.id, c.subject) for c in clips} - {""}
        known = sorted(values)
        for name, entries in self.split.items():
            for entry in entries:
                if entry not in values and not any(matches(value, [entry]) for value in known):
                    yield name, entry, known


def printable(name: str) -> str:
    r"""Write the bytes of a file's name that are not UTF-8 as escapes.

    >>> print(printable("Happy_\udcff"))
    Happy_\udcff
    """
    return name.encode(errors="backslashreplace").decode()


def split_value(by: str, pattern: str | None, clip_id: str, subject: str) -> str:
    """Return the value of a clip's name that determines its split, "" if it has none.

    Args:
        by: `subject`, or a group of the pattern.
        pattern: matches the id; None for a list, whose clips have no value but their id.
        clip_id: of the clip.
        subject: of the clip.
    """
    if by == "subject":
        return subject
    if pattern is None:
        return clip_id
    return re.fullmatch(pattern, clip_id)[by] or ""


def named_split(value: str, split: Mapping[str, Sequence[str]]) -> str:
    """Return the split whose values (see `Scheme.split`) include this one, else `train`."""
    return next((name for name, entries in split.items() if matches(value, entries)), "train")


def matches(value: str, entries: Iterable[str]) -> bool:
    """Return whether a value equals an entry or lies in an entry's range.

    >>> matches("0017", ["0016-0020"]), matches("0021", ["0016-0020"]), matches("03", ["03"])
    (True, False, True)
    """
    for entry in entries:
        first, dash, last = entry.partition("-")
        is_range = dash and first.isdigit() and last.isdigit() and value.isdigit()
        if value == entry or (is_range and int(first) <= int(value) <= int(last)):
            return True
    return False


def find_torn(placed: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Find names (ids, subjects) that are in more than one split, and these splits, sorted.

    >>> find_torn([("ann", "train"), ("bea", "val"), ("ann", "val"), ("", "val"), ("", "test")])
    {'ann': ['train', 'val']}
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for name, split in placed:
        if name:
            splits[name].add(split)
    return {name: sorted(s) for name, s in sorted(splits.items()) if len(s) > 1}
