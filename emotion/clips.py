"""clips ──find──> Clip(path, label, subject, split): what a folder's file names say.

The first step of the way of the data. A data set is described by a pattern of its file names, a
map from what the names say to the classes, and a rule that splits; nothing is read but names.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emotion.errors import UserError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".flv", ".m4v"})
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clip:
    """A video file of one person showing one emotion.

    Attributes:
        path: the file.
        id: its path below the data set's root, with `/` and without suffix; names its stacks.
        label: one of the classes.
        subject: who is seen, or "" where names don't tell.
        split: `train`, `val` or `test`.
    """

    path: Path
    id: str
    label: str
    subject: str
    split: str


@dataclass(frozen=True)
class Dropped:
    """A clip, or one segment of it, that makes no stack, and why.

    Attributes:
        clip: the clip's id.
        reason: what is wrong, in words that other clips may share.
        detail: the numbers of this one.
        segment: counted from 1; 0 for the whole clip.
    """

    clip: str
    reason: str
    detail: str = ""
    segment: int = 0


@dataclass(frozen=True)
class Scheme:
    """How a data set's file names are read.

    Attributes:
        pattern: a regular expression for the whole id of a clip. Its group `label` is required;
            `subject` and any group that `split_by` names are optional.
        labels: the classes, in the order of their indices.
        label_map: from what the names say to a class, or to None to leave the clip out. What is
            not in it stands for itself.
        split_by: the group of the pattern that decides a clip's split.
        split: name of a split -> values of that group, single (`"03"`) or as a range
            (`"0016-0020"`). What none names is `train`.
    """

    pattern: str
    labels: Sequence[str]
    label_map: Mapping[str, str | None] = field(default_factory=dict)
    split_by: str = "id"
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what a config can get wrong.

        Raises:
            UserError: names the key under `data` that is at fault.
        """
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise UserError(f"data.pattern is not a regular expression: {error}") from None
        for group in ("label", self.split_by):
            if group not in groups:
                raise UserError(
                    f"data.pattern has no group (?P<{group}>...); it has: {', '.join(groups)}"
                )
        if unknown := set(self.split) - set(SPLITS):
            raise UserError(f"data.split: {sorted(unknown)} is not one of {', '.join(SPLITS)}")
        for name, entries in self.split.items():
            for entry in entries:
                if not isinstance(entry, str):  # YAML has read 03 as 3
                    raise UserError(f"data.split.{name}: put {entry} in quotes, as names have it")

    def read(self, path: Path, root: Path) -> Clip | Dropped:
        """Read one file's name.

        Args:
            path: a video file below `root`; it need not exist.
            root: the data set's folder.

        Returns:
            The clip, or the reason why it is none.
        """
        clip_id = path.relative_to(root).with_suffix("").as_posix()
        match = re.fullmatch(self.pattern, clip_id)
        if match is None:
            return Dropped(clip_id, f"its name is outside the scheme {self.pattern}")
        fields = match.groupdict()
        said = fields["label"]
        label = self.label_map.get(said, said)
        if label is None:
            return Dropped(clip_id, f"label {said} is left out by data.label_map")
        if label not in self.labels:
            return Dropped(clip_id, f"label {said} is none of {', '.join(self.labels)}")
        value = fields[self.split_by] or ""
        split = next((s for s, entries in self.split.items() if matches(value, entries)), "train")
        return Clip(path, clip_id, label, fields.get("subject") or "", split)


def matches(value: str, entries: Iterable[str]) -> bool:
    """Tell whether a value is one of the entries or lies in one of their ranges.

    >>> matches("0017", ["0016-0020"]), matches("0021", ["0016-0020"]), matches("03", ["03"])
    (True, False, True)
    """
    for entry in entries:
        first, dash, last = entry.partition("-")
        is_range = dash and first.isdigit() and last.isdigit() and value.isdigit()
        if value == entry or (is_range and int(first) <= int(value) <= int(last)):
            return True
    return False


def find_clips(
    root: Path, scheme: Scheme, max_per_class: int | None = None
) -> tuple[list[Clip], list[Dropped]]:
    """Find a data set's clips, in the order of their names.

    Args:
        root: the data set's folder; clips may lie in folders below it.
        scheme: how their names are read.
        max_per_class: see `limit_clips`.

    Returns:
        The clips, and the video files that are none, each with the reason.

    Raises:
        UserError: the folder is missing or has no clip of the scheme, or one person's clips fall
            into two splits.
    """
    if not root.is_dir():
        raise UserError(f"no folder {root}: put the clips there, or set data.root=DIR")
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not path.is_dir()
        and not any(name.startswith(".") for name in path.relative_to(root).parts)  # hidden
    )
    if not paths:
        raise UserError(
            f"no video files in {root} (looked for {', '.join(sorted(VIDEO_SUFFIXES))}): "
            "put the clips there, or set data.root=DIR"
        )
    clips, dropped = read_names(paths, root, scheme)
    if not clips:
        raise UserError(
            f"none of the {len(paths)} video files in {root} is a clip of this data set; "
            f"the first: {dropped[0].clip}: {dropped[0].reason}"
        )
    check_subjects(clips)
    return limit_clips(clips, max_per_class), dropped


def read_names(
    paths: Iterable[Path], root: Path, scheme: Scheme
) -> tuple[list[Clip], list[Dropped]]:
    """Read many files' names; of files that differ in their suffix alone only the first counts.

    Args:
        paths: video files below `root`, which need not exist.
        root: the data set's folder.
        scheme: how the names are read.

    Returns:
        The clips, and the files that are none, each with the reason.
    """
    clips: dict[str, Clip] = {}
    dropped = []
    for path in paths:
        read = scheme.read(path, root)
        if isinstance(read, Dropped):
            dropped.append(read)
        elif read.id in clips:
            reason = "a clip of the same name and another suffix is taken instead"
            dropped.append(Dropped(read.id, reason, f"{path.name}, not {clips[read.id].path.name}"))
        else:
            clips[read.id] = read
    return list(clips.values()), dropped


def limit_clips(clips: Iterable[Clip], max_per_class: int | None) -> list[Clip]:
    """Keep the first clips of every class in each split.

    Args:
        clips: any clips.
        max_per_class: how many of a class to keep in each split; None keeps all.

    Returns:
        The kept clips, in their order.
    """
    seen: dict[tuple[str, str], int] = defaultdict(int)
    kept = []
    for clip in clips:
        seen[clip.label, clip.split] += 1
        if max_per_class is None or seen[clip.label, clip.split] <= max_per_class:
            kept.append(clip)
    return kept


def check_subjects(clips: Iterable[Clip]) -> None:
    """Make sure that nobody is seen in two splits.

    A face that a model was trained on is recognised, and its emotion with it; accuracy on it says
    nothing about people the model never saw.

    Raises:
        UserError: names the subjects and the splits they are in.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.subject:
            splits[clip.subject].add(clip.split)
    if torn := {subject: sorted(s) for subject, s in sorted(splits.items()) if len(s) > 1}:
        named = "; ".join(f"{subject} in {' and '.join(s)}" for subject, s in torn.items())
        raise UserError(f"data.split puts the same person into two splits: {named}")
