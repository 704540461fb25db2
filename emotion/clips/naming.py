"""clips ──find──> Clip(path, label, subject, split): what file names or a list say.

The first step of the way of the data. A data set is described by a pattern of its file names or by
a list of its clips, a map from what they say to the classes, and a rule that splits; no clip is
opened. A data set of stills has a picture in place of each clip.
"""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import glob
from itertools import zip_longest
from pathlib import Path

from emotion.errors import UserError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".flv", ".m4v"})
STILL_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
KINDS = {"clips": ("video files", VIDEO_SUFFIXES), "stills": ("pictures", STILL_SUFFIXES)}
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clip:
    """A video file, or a picture, of one person showing one emotion.

    Attributes:
        path: the file.
        id: its path below the data set's root, with `/` and without suffix; names its stacks. For
            a listed clip elsewhere, `outside/` and its absolute path.
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
    """How a data set's file names, or the rows of its list, are read.

    Attributes:
        pattern: a regular expression for the whole id of a clip. Its group `label` is required;
            `subject` and any group that `split_by` names are optional. None where a list says it.
        labels: the classes, in the order of their indices.
        label_map: from what names or list say to a class, or to None to leave the clip out. What is
            not in it stands for itself.
        split_by: the group of the pattern, or the column of the list, that decides a clip's split.
        split: name of a split -> values of that group, single (`"03"`) or as a range
            (`"0016-0020"`). What none names is `train`.
        kind: `clips` or `stills`: which files are meant, where videos and pictures lie together.
    """

    pattern: str | None
    labels: Sequence[str]
    label_map: Mapping[str, str | None] = field(default_factory=dict)
    split_by: str = "id"
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: str = "clips"

    def __post_init__(self) -> None:
        """Check what a config can get wrong.

        Raises:
            UserError: names the key under `data` that is at fault.
        """
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern).groupindex
            except re.error as error:
                raise UserError(f"data.pattern is not a regular expression: {error}") from None
            for group in ("label", self.split_by):
                if group not in groups:
                    raise UserError(
                        f"data.pattern has no group (?P<{group}>...); it has: {', '.join(groups)}"
                    )
        if self.kind not in KINDS:
            raise UserError(f"data.kind={self.kind}: it is one of {', '.join(KINDS)}")
        if unknown := set(self.split) - set(SPLITS):
            raise UserError(f"data.split: {sorted(unknown)} is not one of {', '.join(SPLITS)}")
        check_entries("data.split", self.split)

    def read(self, path: Path, root: Path) -> Clip | Dropped:
        """Read one file's name.

        Args:
            path: a file below `root`; it need not exist.
            root: the data set's folder.

        Returns:
            The clip, or the reason why it is none.
        """
        clip_id = path.relative_to(root).with_suffix("").as_posix()
        match = re.fullmatch(self.pattern, clip_id)
        if match is None:
            return Dropped(clip_id, f"its name is outside the scheme {self.pattern}")
        return self.interpret(path, clip_id, match.groupdict())

    def interpret(
        self, path: Path, clip_id: str, fields: Mapping[str, str | None]
    ) -> Clip | Dropped:
        """Turn what is said of a clip into its class and split.

        Args:
            path: the file.
            clip_id: its id.
            fields: `label` and, where they are known, `subject` and what `split_by` names.

        Returns:
            The clip, or the reason why it is none.
        """
        said = fields["label"]
        label = self.label_map.get(said, said)
        if label is None:
            return Dropped(clip_id, f"label {said} is left out by data.label_map")
        if label not in self.labels:
            return Dropped(clip_id, f"label {said} is none of {', '.join(self.labels)}")
        split = named_split(fields.get(self.split_by) or "", self.split)
        return Clip(path, clip_id, label, fields.get("subject") or "", split)


def check_entries(key: str, split: Mapping[str, Sequence[str]]) -> None:
    """Make sure that the values a split is told by are texts, as names have them.

    Args:
        key: where they stand in the config.
        split: name of a split -> values.

    Raises:
        UserError: names the key of one that is not.
    """
    for name, entries in split.items():
        for entry in entries:
            if not isinstance(entry, str):  # YAML has read 03 as 3
                raise UserError(f"{key}.{name}: put {entry} in quotes, as names have it")


def named_split(value: str, split: Mapping[str, Sequence[str]]) -> str:
    """Look up which split names a value; `train` if none does.

    Args:
        value: what a clip's name or row says.
        split: name of a split -> its values, single or as ranges.
    """
    return next((name for name, entries in split.items() if matches(value, entries)), "train")


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
    root: Path, scheme: Scheme, max_per_class: int | None = None, clip_list: Path | None = None
) -> tuple[list[Clip], list[Dropped]]:
    """Find a data set's clips, in the order of their names or of their list.

    Args:
        root: the data set's folder; clips may lie in folders below it.
        scheme: how their names, or the rows of the list, are read.
        max_per_class: see `limit_clips`.
        clip_list: see `read_list`; None takes all files of the scheme's kind below `root`.

    Returns:
        The clips, and the files or rows that are none, each with the reason.

    Raises:
        UserError: the folder or the list is missing or has no clip of the scheme.
    """
    if clip_list is not None:
        clips, dropped = read_list(clip_list, root, scheme)
        searched = f"rows of {clip_list}"
    else:
        clips, dropped = read_names(clip_files(root, scheme.kind), root, scheme)
        searched = f"{KINDS[scheme.kind][0]} in {root}"
    if not clips:
        raise UserError(
            f"none of the {len(dropped)} {searched} is a clip of this data set; "
            f"the first: {dropped[0].clip}: {dropped[0].reason}"
        )
    return limit_clips(clips, max_per_class), dropped


def clip_files(root: Path, kind: str) -> list[Path]:
    """Find all files of a kind below a folder but the hidden ones, in the order of their names.

    Args:
        root: the folder.
        kind: `clips` or `stills`.

    Raises:
        UserError: there is no such folder, or no such file in it.
    """
    if not root.is_dir():
        raise UserError(f"no folder {root}: put the {kind} there, or set data.root=DIR")
    if not (paths := files_below(root, kind)):
        noun, suffixes = KINDS[kind]
        message = (
            f"no {noun} in {root} (looked for {', '.join(sorted(suffixes))}): "
            f"put the {kind} there, or set data.root=DIR"
        )
        (other,) = set(KINDS) - {kind}
        if others := files_below(root, other):
            message += f"; data.kind={other} takes the {len(others)} {KINDS[other][0]} there"
        raise UserError(message)
    return paths


def files_below(root: Path, kind: str) -> list[Path]:
    """List all files of a kind below a folder but the hidden ones, in the order of their names."""
    _, suffixes = KINDS[kind]
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in suffixes
        and not path.is_dir()
        and not any(name.startswith(".") for name in path.relative_to(root).parts)  # hidden
    )


def named_clips(named: str, key: str = "clips") -> list[Path]:
    """Find the clips that somebody has named.

    Args:
        named: a file, a folder with video files in it or below it, or else with pictures, or a
            pattern such as `clips/*.mp4` or `clips/**/*.mov`; `~` is the home folder.
        key: of the config, for errors.

    Raises:
        UserError: there is none.
    """
    path = Path(named).expanduser()
    if path.is_dir():
        if not (paths := files_below(path, "clips") or files_below(path, "stills")):
            looked_for = ", ".join([*sorted(VIDEO_SUFFIXES), *sorted(STILL_SUFFIXES)])
            raise UserError(
                f"{key}={named}: no video files or pictures in that folder "
                f"(looked for {looked_for})"
            )
        return paths
    if os.path.lexists(path):
        return [path]
    paths = sorted(Path(found) for found in glob(str(path), recursive=True))
    if not (paths := [path for path in paths if not path.is_dir()]):
        raise UserError(f"{key}={named}: no such file or folder, and no pattern of any")
    return paths


def read_list(clip_list: Path, root: Path, scheme: Scheme) -> tuple[list[Clip], list[Dropped]]:
    """Read a data set's clips from a CSV file.

    Args:
        clip_list: the file, UTF-8 with or without a byte order mark. Its first line names the
            columns: `path` (absolute or below `root`), `label`, and optionally `subject` and
            `split`; a row with an empty `split` follows the scheme's.
        root: the data set's folder.
        scheme: how the rows are read.

    Returns:
        The clips, and the rows that are none, each with the reason.

    Raises:
        UserError: the file is missing, empty, no CSV, or says what can't be.
    """
    columns, rows = read_rows(clip_list)
    if any(scheme.split.values()) and scheme.split_by not in {"id", *columns}:
        raise UserError(
            f"data.split.by={scheme.split_by} is no column of {clip_list}; "
            f"it is id or one of {', '.join(columns)}"
        )
    clips: dict[str, Clip] = {}
    lines: dict[str, int] = {}
    dropped = []
    for line, row in rows:
        path = Path(os.path.normpath(root / row["path"]))
        if not row["path"] or not os.path.isfile(path):  # Path.is_file raises where it may not look
            reason = f"{clip_list.name} lists a file that is not there"
            dropped.append(Dropped(row["path"] or "no path", reason, f"line {line}"))
            continue
        clip_id = listed_id(path, root)
        is_still = path.suffix.lower() in STILL_SUFFIXES
        if is_still != (scheme.kind == "stills"):
            reason = "a picture, and data.kind=stills takes those"
            if not is_still:
                reason = "no picture by its suffix, and data.kind=clips takes videos"
            dropped.append(Dropped(row["path"], f"{clip_list.name} lists {reason}", f"line {line}"))
            continue
        if clip_id in clips:
            reason = f"{clip_list.name} lists a clip of the same name before it"
            dropped.append(Dropped(row["path"], reason, f"line {line}, first {lines[clip_id]}"))
            continue
        if (split := row.get("split")) and split not in SPLITS:
            raise UserError(
                f"{clip_list}, line {line}: split {split} is none of {', '.join(SPLITS)}; "
                "leave it empty to follow data.split"
            )
        read = scheme.interpret(path, clip_id, {"id": clip_id, **row})
        if isinstance(read, Dropped):
            dropped.append(read)
            continue
        clips[clip_id] = replace(read, split=split) if split else read
        lines[clip_id] = line
    return list(clips.values()), dropped


def read_rows(clip_list: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a list's columns and rows; blank lines and space around values do not count.

    A value that a row lacks is empty.

    Args:
        clip_list: the CSV file.

    Returns:
        The columns' names, and for every row its line and a mapping from column to value.

    Raises:
        UserError: the file is missing, empty, not UTF-8 text, or lacks a column.
    """
    remedy = "it is a CSV file with the columns path,label[,subject][,split]"
    if not clip_list.is_file():
        raise UserError(f"no list {clip_list}: {remedy}; put it there, or set data.list=FILE")
    try:
        with open(clip_list, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = [name.strip() for name in next(reader, [])]
            rows = [
                (reader.line_num, dict(zip_longest(columns, values[: len(columns)], fillvalue="")))
                for values in (list(map(str.strip, values)) for values in reader)
                if any(values)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{clip_list} can't be read ({error}): {remedy}, in UTF-8") from None
    if missing := {"path", "label"} - set(columns):
        raise UserError(
            f"{clip_list} has no column {' and no column '.join(sorted(missing))} in its first "
            f"line ({','.join(columns)}): {remedy}"
        )
    if not rows:
        raise UserError(f"{clip_list} has no rows: {remedy}, a row a clip")
    return columns, rows


def listed_id(path: Path, root: Path) -> str:
    """Name a listed clip: its id can't leave the cache's folder, whatever the list says.

    Args:
        path: the file, absolute and without `..`.
        root: the data set's folder, absolute.

    Returns:
        The id, without suffix.
    """
    try:
        inside = path.relative_to(os.path.normpath(root))
    except ValueError:
        inside = "outside" / path.relative_to(path.anchor)
    return inside.with_suffix("").as_posix()


def read_names(
    paths: Iterable[Path], root: Path, scheme: Scheme
) -> tuple[list[Clip], list[Dropped]]:
    """Read many files' names; of files that differ in their suffix alone only the first counts.

    Args:
        paths: files below `root`, which need not exist.
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


def find_torn(placed: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Find out who is in more than one split.

    Args:
        placed: pairs of a name (a clip's id, a subject) and the split it is put into; a name that
            is empty stands for nobody known.

    Returns:
        Name -> its splits, sorted, for every name in more than one.

    >>> find_torn([("ann", "train"), ("bea", "val"), ("ann", "val"), ("", "val"), ("", "test")])
    {'ann': ['train', 'val']}
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for name, split in placed:
        if name:
            splits[name].add(split)
    return {name: sorted(s) for name, s in sorted(splits.items()) if len(s) > 1}
