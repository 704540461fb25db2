"""Report on a build: the counts of each class, and which clips and segments made no stack."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from emotion.clips.naming import Clip, Dropped, Scheme, find_torn
from emotion.config import did_you_mean
from emotion.stacks.manifest import StackRow
from emotion.tables import counted

MAX_NAMES = 30  # printed for each reason
Counts = list[dict[str, str | int]]  # the rows of report.csv, column -> value


@dataclass
class LostClips:
    """What one reason dropped."""

    reason: str
    names: list[str] = field(default_factory=list)  # of files, rows or clips without any stack
    segments: int = 0  # dropped ones of clips that have other stacks

    @property
    def clips(self) -> int:
        """The number of clips that made no stack at all."""
        return len(self.names)


def count_dropped(dropped: Iterable[Dropped], rows: Iterable[StackRow]) -> list[LostClips]:
    """Count what made no stack by reason: the one rule for lost clips, used by every report.

    A clip is lost if none of its segments made a stack; it counts once, for the reason of its first
    dropped segment. The dropped segments of other clips count as segments.
    """
    with_stacks = {row.clip for row in rows}
    counted: set[str] = set()
    groups: dict[str, LostClips] = {}
    for drop in dropped:
        if drop.segment and drop.clip in counted:
            continue
        group = groups.setdefault(drop.reason, LostClips(drop.reason))
        if drop.segment and drop.clip in with_stacks:
            group.segments += 1
        else:
            group.names.append(f"{drop.clip} ({drop.detail})" if drop.detail else drop.clip)
            counted.update([drop.clip] if drop.segment else [])
    return list(groups.values())


def class_counts(
    labels: Sequence[str], clips: Sequence[Clip], rows: Sequence[StackRow], dropped: list[Dropped]
) -> Counts:
    """Count clips, segments, stacks and faces of each class.

    If the share of frames with a face differs much between classes, a model may learn the label
    from missing faces.
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
    table: Counts,
    rows: Sequence[StackRow],
    dropped: Sequence[Dropped],
    clips: Sequence[Clip],
    scheme: Scheme,
) -> str:
    """Return the report of a build for the terminal; `table` is of `class_counts`."""
    printed = Table(*table[0])
    for counts in table:
        printed.add_row(*map(str, counts.values()))
    console = Console(width=100)
    with console.capture() as capture:
        console.print(printed)
    empty = describe_empty(str(counts["class"]) for counts in table if not counts["stacks"])
    lost = describe_lost(count_dropped(dropped, rows))
    mistakes = [*describe_torn(rows), *describe_unused(scheme, clips)]
    return "\n".join([capture.get().rstrip(), *empty, *lost, *mistakes])


def describe_empty(labels: Iterable[str]) -> list[str]:
    """Return a warning for each class without stacks."""
    return [
        f"warning: class {label} has no stacks, so no model can learn it: "
        "add clips of it, or remove it from data.labels"
        for label in labels
    ]


def describe_unused(scheme: Scheme, clips: Iterable[Clip]) -> list[str]:
    """Return a warning for each name in `data.split` that no clip has: a mistyped one, or lost."""
    unused = list(scheme.unused(clips))
    lines = [
        f"warning: data.split.{split} lists {value}, and no clip has this "
        f"{scheme.split_by}{did_you_mean(value, known)}"
        for split, value, known in unused[:MAX_NAMES]
    ]
    more = len(unused) - MAX_NAMES
    return [*lines, f"warning: and {more} more"] if more > 0 else lines


def describe_torn(placed: Iterable[Clip | StackRow]) -> list[str]:
    """Return a warning that names the people whom `data.split` puts into two splits, or nothing.

    Training refuses such a split, but another split may be chosen for the same stacks.
    """
    torn = find_torn((each.subject, each.split) for each in placed)
    if not torn:
        return []
    named = "; ".join(f"{subject} in {' and '.join(s)}" for subject, s in torn.items())
    return [
        f"warning: data.split puts the same person into two splits: {named}; "
        "fix it, or train with another split such as split=grouped"
    ]


def describe_lost(groups: Iterable[LostClips]) -> list[str]:
    """Return a line for each reason that lost clips, and for each that dropped segments."""
    lines = []
    for group in groups:
        if group.names:
            shown = ", ".join(group.names[:MAX_NAMES])
            if (more := group.clips - MAX_NAMES) > 0:
                shown += f" and {more} more, all listed in dropped.csv"
            told = f"no stack from {counted(group.clips, 'clip')}"
            lines.append(f"{told}: {group.reason}: {shown}")
        if group.segments:
            told = f"no stack from {counted(group.segments, 'segment')} of clips that have others"
            lines.append(f"{told}: {group.reason}")
    return lines
