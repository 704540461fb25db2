"""Build a cache: find or make the clips, cut those that are not cut yet, write the tables."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from hydra.utils import instantiate
from omegaconf import DictConfig

from emotion.clips.naming import SPLITS, Clip, Dropped
from emotion.errors import UserError
from emotion.executors import Executor, pixel_versions
from emotion.files import writer_lives
from emotion.progress import progress_bar
from emotion.stacks.build_report import (
    class_counts,
    count_dropped,
    describe_lost,
    describe_torn,
    report,
)
from emotion.stacks.cache import Cache, CacheContents
from emotion.stacks.clip_record import ClipRecord, dates_of
from emotion.stacks.contact_sheet import write_sheet
from emotion.stacks.cutter import Cutter, cut_in_worker
from emotion.stacks.manifest import StackRow
from emotion.stacks.source import ClipSource
from emotion.tables import write_rows, write_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheBuilder:
    """Makes the stacks of a cache."""

    cache: Cache
    source: ClipSource
    executor: Executor
    num_workers: int | None  # processes that render the demo's clips; None for one per core

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "CacheBuilder":
        """Read a composed config; access no file."""
        source = ClipSource.from_config(cfg)
        return cls(Cache.from_config(cfg), source, instantiate(cfg.executor), cfg.num_workers)

    @property
    def cutter(self) -> Cutter:
        """Cuts single clips."""
        return Cutter(self.cache)

    def ensure(self) -> None:
        """Build the cache unless it is complete and current; see `build`."""
        made = self.cache.contents()
        if made == self._contents() and self._files_exist():
            return
        try:
            self.build()
        except UserError as error:
            if hint := self._hint(made):
                raise UserError(f"{error}. {hint}") from None
            raise

    def plan(self) -> str:
        """Describe what `build` would do; change nothing."""
        source, directory = self.source, self.cache.directory
        if missing := source.missing_renders():
            return f"would render {len(missing)} demo clips in {source.root}, and cut all of them"
        clips, dropped = source.find()
        done = sum(self.cutter.record(clip) is not None for clip in clips)
        lines = [
            f"{source.root}: {len(clips)} clips, {done} of them in the cache",
            f"would cut {len(clips) - done} clips into {directory}",
        ]
        for label in source.scheme.labels:
            counts = Counter(clip.split for clip in clips if clip.label == label)
            shares = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
            placed = f" ({shares})" if any(clip.split for clip in clips) else ""
            lines.append(f"{label}: {counts.total()} clips{placed}")
        lines += describe_lost(count_dropped(dropped, [])) + describe_torn(clips)
        return "\n".join(lines)

    def build(self, strict: bool = False) -> None:
        """Make every stack that is missing, write the tables and log a report.

        Raises:
            UserError: there are no clips, none of them makes a stack, or, if `strict`, a clip
                could not be read; then all others are done first.
        """
        for path in self.cache.directory.rglob(".*"):  # of processes that were killed
            if not writer_lives(path):
                path.unlink(missing_ok=True)
        self.source.provide(self.num_workers)
        clips, dropped = self.source.find()
        contents = self._contents()  # before cutting: the list may be edited meanwhile
        self.cache.directory.mkdir(parents=True, exist_ok=True)
        records = {clip.id: record for clip in clips if (record := self.cutter.record(clip))}
        todo = [clip for clip in clips if clip.id not in records]
        root = self.source.root
        log.info("%s: %d clips, %d of them in the cache", root, len(clips), len(records))
        last = [record.packages for clip in todo if (record := self.cutter.last_record(clip))]
        if others := [packages for packages in last if packages != pixel_versions()]:
            differing = differing_versions(others[0])
            log.warning("%d clips were cut with %s: they are cut again", len(others), differing)
        records |= self._cut(todo)
        rows = [row for clip in clips for row in self._rows(clip, records[clip.id])]
        dropped += [drop for clip in clips for drop in records[clip.id].dropped]
        write_rows(self.cache.directory / "dropped.csv", Dropped, dropped)
        table = class_counts(self.source.scheme.labels, clips, rows, dropped)
        write_table(self.cache.directory / "report.csv", list(table[0]), table)
        log.info(report(table, rows, dropped))
        if not rows:
            self.cache.contents_path.unlink(missing_ok=True)
            raise UserError(f"none of the clips in {root} makes a stack")
        write_rows(self.cache.manifest_path, StackRow, rows)
        if all(self.cache.record_path(clip.id).exists() for clip in clips):
            self.cache.write_contents(contents)
        else:  # some failed for a reason that may pass, such as a full disk
            self.cache.contents_path.unlink(missing_ok=True)
        log.info("cache: %s", self.cache.directory)
        self._write_sheets(rows, changed=bool(todo))
        failed = [clip.id for clip in clips if records[clip.id].failed]
        if strict and failed:
            raise UserError(f"strict=true, and {len(failed)} clips failed: {', '.join(failed)}")

    def _contents(self) -> CacheContents:
        return CacheContents(
            settings=self.cache.settings,
            packages=pixel_versions(),
            source=self.source.description(),
        )

    def _files_exist(self) -> bool:
        return self.cache.manifest_path.exists() and all(
            (self.cache.directory / path).exists()
            for row in self.cache.manifest()
            for path in (row.stack, row.landmarks)
        )

    def _hint(self, made: CacheContents | None) -> str | None:
        """Return which stacks exist, for the error of a cache that cannot be built."""
        if made is not None and made.packages != pixel_versions():
            return (
                f"{self.cache.directory} has stacks that were cut with "
                f"{differing_versions(made.packages)}: install those versions, or provide the "
                "clips so that they are cut again"
            )
        folder, ours = self.cache.directory.parent, self.cache.directory.name
        others = sorted({path.parent.name for path in folder.glob("*/manifest.csv")} - {ours})
        return others and (
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
        for name, shown in sheets.items():
            if changed or not (folder / name).exists():
                write_sheet(folder / name, self.cache, shown)
        log.info("contact sheets of the stacks: %s in %s", ", ".join(sheets), folder)

    def _cut(self, clips: Sequence[Clip]) -> dict[str, ClipRecord]:
        if not clips:
            return {}  # and start no processes
        records: dict[str, ClipRecord] = {}
        with progress_bar("cutting clips", len(clips), unit="frames") as advance:
            cut = partial(cut_in_worker, self.cutter)
            # The largest first, so that no process is left alone with one of them at the end.
            clips = sorted(clips, key=lambda clip: dates_of(clip.path).size_bytes, reverse=True)
            for clip, record in self.executor.run(cut, clips, self.cache.directory):
                records[clip.id] = record or ClipRecord(
                    failed=True, dropped=[Dropped(clip.id, "reading it kills the process")]
                )
                advance(records[clip.id].num_frames)
        return records

    def _rows(self, clip: Clip, record: ClipRecord) -> list[StackRow]:
        folder, interval = self.cache.directory, self.cache.settings.interval
        return [
            StackRow(
                stack=self.cache.stack_path(clip.id, segment.number).relative_to(folder).as_posix(),
                clip=clip.id,
                segment=segment.number,
                label=clip.label,
                subject=clip.subject,
                split=clip.split,
                num_frames=segment.num_frames,
                num_faces=segment.num_faces,
                has_face=segment.has_face,
                face_frames=segment.has_face.count("1"),
                sampled_frames=len(range(0, segment.num_frames, interval)),
                fps=record.fps,
            )
            for segment in record.segments
        ]


def differing_versions(packages: dict[str, str]) -> str:
    """Return which recorded package versions differ from the installed ones."""
    installed = pixel_versions()
    return ", ".join(
        f"{name} {packages.get(name)} (installed: {installed.get(name)})"
        for name in sorted(packages.keys() | installed.keys())
        if packages.get(name) != installed.get(name)
    )
