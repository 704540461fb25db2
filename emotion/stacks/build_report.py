"""What came of a data set's clips: the counts of each class, and what made no stack.

Part of making the cache: `report.csv`, and what preprocess.py says at its end.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from emotion.clips.naming import Clip, Dropped, find_torn
from emotion.stacks.manifest import StackRow
from emotion.tables import read_table

MAX_NAMES = 30  # printed for each reason that clips are dropped


def class_counts(
    labels: Sequence[str],
    clips: Sequence[Clip],
    rows: Sequence[StackRow],
    dropped: Sequence[Dropped],
) -> list[dict[str, str | int]]:
    """Count what each class came to.

    Args:
        labels: the classes.
        clips: all clips of the data set.
        rows: all stacks.
        dropped: all that made no stack.

    Returns:
        For each class its clips, those of them without a stack, its segments, its stacks, how many
        of these saw several faces at once, the sampled frames in them, how many of those show no
        face, and the share that does. Where that differs much between classes, a model may read
        the label off the missing faces.
    """
    table = []
    for label in labels:
        ids = {clip.id for clip in clips if clip.label == label}
        mine = [row for row in rows if row.label == label]
        sampled = sum(row.sampled_frames for row in mine)
        faces = sum(row.face_frames for row in mine)
        dropped_segments = sum(drop.clip in ids and drop.segment > 0 for drop in dropped)
        table.append(
            {
                "class": label,
                "clips": len(ids),
                "without stack": len(ids - {row.clip for row in mine}),
                "segments": len(mine) + dropped_segments,
                "stacks": len(mine),
                "several faces": sum(row.num_faces > 1 for row in mine),
                "sampled frames": sampled,
                "no face": sampled - faces,
                "with face": f"{faces / sampled:.1%}" if sampled else "-",
            }
        )
    return table


def report(
    table: Sequence[Mapping[str, str | int]],
    rows: Sequence[StackRow],
    dropped: Sequence[Dropped],
) -> str:
    """Say what a run came to: the counts of each class, and what made no stack.

    Args:
        table: as `class_counts` gives it.
        rows: all stacks.
        dropped: all that made no stack.

    Returns:
        A table and a few lines for the terminal.
    """
    printed = Table(*table[0])
    for counts in table:
        printed.add_row(*map(str, counts.values()))
    console = Console(width=100)
    with console.capture() as capture:
        console.print(printed)
    lines = [capture.get().rstrip()]
    for counts in table:
        if not counts["stacks"]:
            lines.append(
                f"warning: class {counts['class']} has no stacks, so no model can learn it: "
                "add clips of it, or leave it out of `labels`"
            )
    with_stacks = {row.clip for row in rows}
    parts = [drop for drop in dropped if drop.segment and drop.clip in with_stacks]
    lines += say_dropped([drop for drop in dropped if drop not in parts])
    for reason, count in Counter(drop.reason for drop in parts).items():
        lines.append(f"no stack from {count} segments of clips that gave others: {reason}")
    return "\n".join([*lines, *say_torn(rows)])


def say_torn(placed: Iterable[Clip | StackRow]) -> list[str]:
    """Name the people whom `data.split` puts into two splits: a line, or none.

    Training refuses such a split, but another one may be chosen for the same stacks.
    """
    torn = find_torn((each.subject, each.split) for each in placed)
    if not torn:
        return []
    named = "; ".join(f"{subject} in {' and '.join(s)}" for subject, s in torn.items())
    return [
        f"warning: data.split puts the same person into two splits: {named}; "
        "mend it, or train with another split (split=grouped, say)"
    ]


def say_dropped(dropped: Sequence[Dropped]) -> list[str]:
    """Name the clips that make no stack: a line for each reason."""
    names: dict[str, list[str]] = defaultdict(list)
    for drop in dropped:
        names[drop.reason].append(f"{drop.clip} ({drop.detail})" if drop.detail else drop.clip)
    lines = []
    for reason, clips in names.items():
        shown = ", ".join(clips[:MAX_NAMES])
        if len(clips) > MAX_NAMES:
            shown += f" and {len(clips) - MAX_NAMES} more, all named in dropped.csv"
        lines.append(f"no stack from {len(clips)} clips: {reason}: {shown}")
    return lines


def count_dropped(dropped: Iterable[Dropped]) -> list[dict[str, str | int]]:
    """Count what made no stack.

    Returns:
        For each reason the `reason`, and how many whole `clips` and how many `segments` of other
        clips it dropped.
    """
    counts: dict[str, Counter] = defaultdict(Counter)
    for drop in dropped:
        counts[drop.reason]["segments" if drop.segment else "clips"] += 1
    return [
        {"reason": reason, "clips": of["clips"], "segments": of["segments"]}
        for reason, of in counts.items()
    ]


def read_dropped(directory: Path) -> list[Dropped]:
    """Read what made no stack in a cache's folder; nothing where the list is not there."""
    path = directory / "dropped.csv"
    rows = read_table(path) if path.is_file() else []
    return [Dropped(**row | {"segment": int(row["segment"])}) for row in rows]
