"""Build a cache: find or make the clips, cut those that are not cut yet, write the tables."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from hydra.utils import instantiate
from omegaconf import DictConfig

from emotion.clips.naming import SPLITS, Clip, Dropped
from emotion.errors import DamagedFile, UserError
from emotion.executors import Executor
from emotion.files import writer_lives
from emotion.progress import progress_bar
from emotion.stacks.build_report import (
    class_counts,
    count_dropped,
    describe_empty,
    describe_lost,
    describe_torn,
    describe_unused,
    report,
)
from emotion.stacks.cache import Cache
from emotion.stacks.clip_record import ClipRecord
from emotion.stacks.contact_sheet import typical_blendshapes, write_sheet
from emotion.stacks.cutter import Cutter, cut_in_worker
from emotion.stacks.face_model import find_face_model
from emotion.stacks.manifest import StackRow
from emotion.stacks.source import ClipSource
from emotion.tables import counted, write_rows, write_table
from emotion.watchdog import REASON

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheBuilder:
    """Makes the stacks of a cache."""

    cache: Cache
    source: ClipSource
    executor: Executor
    num_workers: int | None  # processes that render the demo's clips; None for one per core
    face_model: str | None  # its file; None to look for it

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "CacheBuilder":
        """Read a composed config; access no file."""
        source = ClipSource.from_config(cfg)
        executor = instantiate(cfg.executor)
        return cls(Cache.from_config(cfg), source, executor, cfg.num_workers, cfg.face.model)

    @property
    def cutter(self) -> Cutter:
        """Cuts single clips."""
        return Cutter(self.cache, face_model=self.face_model)

    def ensure(self) -> None:
        """Build the cache unless it is complete, current and as it was written; see `build`."""
        flaw = None
        try:
            if self._is_complete():
                return
        except DamagedFile as error:
            flaw = str(error)
        try:
            self.build()
        except UserError as error:
            if hint := flaw or self._other_stacks():
                raise UserError(f"{error}. {hint}") from None
            raise

    def plan(self) -> str:
        """Describe what `build` would do; change nothing."""
        source, directory = self.source, self.cache.directory
        if missing := source.missing_renders():
            return f"would render {len(missing)} demo clips in {source.root}, and cut all of them"
        clips, dropped = source.find()
        done = len(current_records(self.cutter, clips)[0])
        lines = [
            f"{source.root}: {counted(len(clips), 'clip')}, {done} of them in the cache",
            f"would cut {counted(len(clips) - done, 'clip')} into {directory}",
        ]
        for label in source.scheme.labels:
            counts = Counter(clip.split for clip in clips if clip.label == label)
            shares = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
            placed = f" ({shares})" if any(clip.split for clip in clips) else ""
            lines.append(f"{label}: {counted(counts.total(), 'clip')}{placed}")
        found = {clip.label for clip in clips}
        lines += describe_empty(label for label in source.scheme.labels if label not in found)
        lines += describe_lost(count_dropped(dropped, [])) + describe_torn(clips)
        lines += describe_unused(source.scheme, clips)
        return "\n".join(lines)

    def build(self, strict: bool = False, verify: bool = False) -> None:
        """Make every stack that is missing or damaged, write the tables and log a report.

        Raises:
            UserError: there are no clips, none of them makes a stack, or, if `strict`, a clip
                could not be read; then all others are done first.
        """
        for path in self.cache.directory.rglob(".*"):  # of processes that were killed
            if not writer_lives(path):
                path.unlink(missing_ok=True)
        self.source.provide(self.num_workers)
        clips, dropped = self.source.find()
        source = self.source.description()  # before cutting: the list may be edited meanwhile
        self.cache.directory.mkdir(parents=True, exist_ok=True)
        cutter = replace(self.cutter, verify=verify)
        records, flaws = current_records(cutter, clips)
        todo = [clip for clip in clips if clip.id not in records]
        root = self.source.root
        log.info("%s: %d clips, %d of them in the cache", root, len(clips), len(records))
        try:
            self.cache.contents()
        except DamagedFile as error:
            flaws.append(str(error))
        if flaws:
            more = f" (and {len(flaws) - 1} more)" if len(flaws) > 1 else ""
            log.warning("warning: %s%s: made again", flaws[0], more)
        records |= self._cut(cutter, todo)
        rows = [row for clip in clips for row in self._rows(clip, records[clip.id])]
        dropped += [drop for clip in clips for drop in records[clip.id].dropped]
        write_rows(self.cache.directory / "dropped.csv", Dropped, dropped)
        table = class_counts(self.source.scheme.labels, clips, rows, dropped)
        write_table(self.cache.directory / "report.csv", list(table[0]), table)
        log.info(report(table, rows, dropped, clips, self.source.scheme))
        if not rows:
            self.cache.contents_path.unlink(missing_ok=True)
            raise UserError(f"none of the clips in {root} makes a stack")
        write_rows(self.cache.manifest_path, StackRow, rows)
        if all(self.cache.record_path(clip.id).exists() for clip in clips):
            self.cache.write_contents(source)
        else:  # some failed for a reason that may pass, such as a full disk
            self.cache.contents_path.unlink(missing_ok=True)
        log.info("cache: %s", self.cache.directory)
        self._write_sheets(rows, changed=bool(todo))
        failed = [clip.id for clip in clips if records[clip.id].failed]
        if strict and failed:
            raise UserError(f"strict=true, and {len(failed)} clips failed: {', '.join(failed)}")

    def _is_complete(self) -> bool:
        """Return whether the cache holds what its config asks for; the clips need not exist.

        Raises:
            DamagedFile: a file is not what was written.
        """
        made = self.cache.contents()
        if made is None or (made.settings, made.source) != (
            self.cache.settings,
            self.source.description(),
        ):
            return False
        rows, digests = self.cache.manifest(), {}
        for clip_id in {row.clip for row in rows}:
            if record := self.cutter.made(clip_id):
                digests |= {name: stamp.digest for name, stamp in record.files.items()}
        for row in rows:
            named = {
                row.stack: row.stack_digest,
                row.landmarks: row.landmarks_digest,
                row.blendshapes: row.blendshapes_digest,
            }
            if not named.items() <= digests.items():
                raise DamagedFile(f"{self.cache.record_path(row.clip)} is not of {row.stack}")
        return True

    def _other_stacks(self) -> str | None:
        """Return which stacks of other settings exist."""
        folder, ours = self.cache.directory.parent, self.cache.directory.name
        others = sorted({path.parent.name for path in folder.glob("*/manifest.csv")} - {ours})
        if not others:
            return None
        return (
            f"{folder} has no stacks of {ours}, but of {'; '.join(others)}: give those settings, "
            "or run preprocess.py"
        )

    def _write_sheets(self, rows: Sequence[StackRow], changed: bool) -> None:
        """Draw the contact sheet of each class that has stacks, and log where they are."""
        folder = self.cache.directory / "sheets"
        by_label = {label: [] for label in self.source.scheme.labels}
        for row in rows:
            by_label[row.label].append(row)
        sheets = {f"{label}.png": shown for label, shown in by_label.items() if shown}
        if changed or not all((folder / name).exists() for name in sheets):
            typical = typical_blendshapes(self.cache.directory, rows)
            for name, shown in sheets.items():
                write_sheet(folder / name, self.cache.directory, shown, typical)
        log.info("contact sheets of the stacks: %s in %s", ", ".join(sheets), folder)

    def _cut(self, cutter: Cutter, clips: Sequence[Clip]) -> dict[str, ClipRecord]:
        if not clips:
            return {}  # and start no processes
        find_face_model(self.face_model)  # or fail, before any process starts
        records: dict[str, ClipRecord] = {}
        with progress_bar("cutting clips", len(clips), unit="frames") as advance:
            cut = partial(cut_in_worker, cutter)
            # The largest first, so that no process is left alone with one of them at the end.
            clips = sorted(clips, key=size_bytes, reverse=True)
            for clip, record in self.executor.run(cut, clips, self.cache.directory):
                killed = Dropped(clip.id, REASON)
                records[clip.id] = record or ClipRecord(clip=clip.id, failed=True, dropped=[killed])
                advance(records[clip.id].num_frames)
        return records

    def _rows(self, clip: Clip, record: ClipRecord) -> list[StackRow]:
        rows = []
        for segment in record.segments:
            stack = next(iter(segment.files))
            digests = [stamp.digest for stamp in segment.files.values()]
            row = StackRow(
                stack=stack,
                clip=clip.id,
                segment=segment.number,
                label=clip.label,
                subject=clip.subject,
                split=clip.split,
                num_frames=segment.num_frames,
                num_faces=segment.num_faces,
                has_face=segment.has_face,
                face_frames=segment.has_face.count("1"),
                sampled_frames=len(range(0, segment.num_frames, self.cache.settings.interval)),
                fps=record.fps,
                stack_digest=digests[0],
                landmarks_digest=digests[1],
                blendshapes_digest=digests[2],
            )
            rows.append(row)
        return rows


def current_records(
    cutter: Cutter, clips: Sequence[Clip]
) -> tuple[dict[str, ClipRecord], list[str]]:
    """Return the records of the clips that need not be cut, by id, and what is damaged."""
    records, flaws = {}, []
    for clip in clips:
        try:
            if record := cutter.record(clip):
                records[clip.id] = record
        except DamagedFile as error:
            flaws.append(str(error))
    return records, flaws


def size_bytes(clip: Clip) -> int:
    """Return the size of a clip; 0 if it is gone."""
    return clip.path.stat().st_size if clip.path.exists() else 0
