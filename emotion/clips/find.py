"""Find a data set's clips by their file names or in a CSV list. No clip is opened."""

import csv
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from glob import glob
from io import StringIO
from itertools import count, zip_longest
from pathlib import Path

from emotion.clips.naming import KINDS, SPLITS, STILL_SUFFIXES, Clip, Dropped, Scheme, printable
from emotion.errors import DamagedFile, UserError
from emotion.files import read_whole

LIST_FORMAT = "a list is a UTF-8 CSV file with the columns path,label[,subject][,split]"


def find_clips(
    root: Path, scheme: Scheme, max_per_class: int | None = None, clip_list: Path | None = None
) -> tuple[list[Clip], list[Dropped]]:
    """Find a data set's clips, in the order of their names or of their list.

    Without a list (see `read_list`), all files of the scheme's kind in or below `root` are read.

    Returns:
        The clips (at least one; see `limit_clips`), and the files or rows that are not clips.
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
            f"the first is {dropped[0].clip}: {dropped[0].reason}"
        )
    return limit_clips(clips, max_per_class), dropped


def limit_clips(clips: Iterable[Clip], max_per_class: int | None) -> list[Clip]:
    """Keep the first `max_per_class` clips of every class in each split; all of them for None."""
    places = defaultdict(count)  # of the next clip in its class and split
    return [
        clip
        for clip in clips
        if max_per_class is None or next(places[clip.label, clip.split]) < max_per_class
    ]


def clip_files(root: Path, kind: str) -> list[Path]:
    """Return `files_below`, or raise a UserError if there are none."""
    if paths := files_below(root, kind):
        return paths
    noun, suffixes = KINDS[kind]
    remedy = f"put the {kind} there, or set data.root=DIR"
    (other,) = set(KINDS) - {kind}
    if others := files_below(root, other):
        remedy += f"; data.kind={other} uses the {len(others)} {KINDS[other][0]} there"
    missing = f"no {noun} ({', '.join(sorted(suffixes))}) in" if root.is_dir() else "no folder"
    raise UserError(f"{missing} {root}: {remedy}")


def files_below(root: Path, kind: str) -> list[Path]:
    """List all files (and folders) named as a kind below a folder, without hidden ones, sorted."""
    _, suffixes = KINDS[kind]
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(name.startswith(".") for name in path.relative_to(root).parts)  # hidden
    )


def named_clips(named: str, key: str = "clips") -> list[Path]:
    """Find the clips that a user names on the command line with the config key `key`.

    `named` is a file; a folder with video files, or else pictures, in or below it; or a pattern
    such as `clips/*.mp4` or `clips/**/*.mov`. `~` is the home folder.
    """
    path = Path(named).expanduser()
    if path.is_dir():
        if not (paths := files_below(path, "clips") or files_below(path, "stills")):
            suffixes = ", ".join(name for _, names in KINDS.values() for name in sorted(names))
            raise UserError(f"{key}={named}: no video files or pictures ({suffixes}) in it")
        return paths
    if os.path.lexists(path):
        return [path]
    paths = sorted(map(Path, glob(str(path), recursive=True)))
    if not (paths := [path for path in paths if not path.is_dir()]):
        raise UserError(f"{key}={named}: no such file or folder, and no file matches the pattern")
    return paths


def read_names(
    paths: Iterable[Path], root: Path, scheme: Scheme
) -> tuple[list[Clip], list[Dropped]]:
    """Read file names; among files that differ only in their suffix, the first is used."""
    clips: dict[str, Clip] = {}
    dropped = []
    for path in paths:
        read = scheme.read(path, root)
        if isinstance(read, Dropped):
            dropped.append(read)
        elif read.id in clips:
            reason = "a clip of the same name with another suffix is used instead"
            detail = f"{printable(path.name)}, not {printable(clips[read.id].path.name)}"
            dropped.append(Dropped(read.id, reason, detail))
        else:
            clips[read.id] = read
    return list(clips.values()), dropped


def read_list(clip_list: Path, root: Path, scheme: Scheme) -> tuple[list[Clip], list[Dropped]]:
    """Read a data set's clips from a CSV file, see `LIST_FORMAT`.

    Paths are absolute or relative to `root`. A row with an empty `split` follows the scheme's rule,
    or is `train` if other rows have a split.
    """
    columns, rows = read_rows(clip_list)
    if scheme.has_split and scheme.split_by not in {"id", *columns}:
        raise UserError(
            f"data.split.by must be id or a column of {clip_list} ({', '.join(columns)}), "
            f"got {scheme.split_by!r}"
        )
    default_split = "train" if any(row.get("split") for _, row in rows) else ""
    clips: dict[str, Clip] = {}
    dropped = []
    for line, row in rows:
        path = Path(os.path.normpath(root / row["path"]))
        where = f"line {line}"
        if flaw := unusable(row["path"], path, scheme.kind):
            reason = f"{clip_list.name} lists {flaw}"
            dropped.append(Dropped(row["path"] or "no path", reason, where))
            continue
        clip_id = listed_id(path, root)
        if clip_id in clips:
            reason = f"{clip_list.name} lists a clip of the same name before it"
            dropped.append(Dropped(row["path"], reason, where))
            continue
        if (split := row.get("split")) and split not in SPLITS:
            raise UserError(
                f"{clip_list}, {where}: split must be empty or one of {', '.join(SPLITS)}, "
                f"got {split!r}"
            )
        read = scheme.interpret(path, clip_id, {"id": clip_id, **row})
        if isinstance(read, Dropped):
            dropped.append(read)
        else:
            clips[clip_id] = replace(read, split=split or read.split or default_split)
    return list(clips.values()), dropped


def unusable(listed: str, path: Path, kind: str) -> str | None:
    """Return why a listed file cannot be a clip of this kind; None if it can."""
    if not listed or not os.path.isfile(path):  # Path.is_file raises where access is denied
        return "a file that does not exist"
    is_still = path.suffix.lower() in STILL_SUFFIXES
    if is_still and kind == "clips":
        return "a picture, which needs data.kind=stills"
    if not is_still and kind == "stills":
        return "a file without a picture's suffix; videos need data.kind=clips"
    return None


def read_rows(clip_list: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a list's column names, and for every row its line number and values by column.

    Blank lines and surrounding whitespace are ignored; missing values are empty.
    """
    try:
        reader = csv.reader(StringIO(read_whole(clip_list).decode("utf-8-sig"), newline=""))
        columns = [name.strip() for name in next(reader, [])]
        rows = [
            (reader.line_num, dict(zip_longest(columns, values[: len(columns)], fillvalue="")))
            for values in ([value.strip() for value in row] for row in reader)
            if any(values)
        ]
    except FileNotFoundError:
        raise UserError(
            f"no list {clip_list}: put it there, or set data.list=FILE; {LIST_FORMAT}"
        ) from None
    except (DamagedFile, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{clip_list} cannot be read ({error}): {LIST_FORMAT}") from None
    if missing := {"path", "label"} - set(columns):
        raise UserError(
            f"{clip_list} lacks the column {', '.join(sorted(missing))} in its first line "
            f"({','.join(columns)}): {LIST_FORMAT}"
        )
    if not rows:
        raise UserError(f"{clip_list} has no rows: {LIST_FORMAT}, one row per clip")
    return columns, rows


def listed_id(path: Path, root: Path) -> str:
    """Return the id of an absolute path without `..`: a path that stays in the cache's folder."""
    root = os.path.normpath(root)
    is_inside = path.is_relative_to(root)
    inside = path.relative_to(root) if is_inside else "outside" / path.relative_to(path.anchor)
    return printable(inside.with_suffix("").as_posix())
