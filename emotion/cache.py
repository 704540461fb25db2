"""The cache: from a data set's clips to one TIFF a segment and one manifest row.

Runs the way of the data down to the line that `preprocess.py` draws: find, cut, read, crop, stack.
Below that line everything only reads what this module has written:

    <paths.cache>/<data.name>/<settings>/
        settings.json           what made it, to the last key
        stacks/<clip>_<segment>.tiff
        clips/<clip>.json       how a clip was cut; written after its stacks, it vouches for them
        manifest.csv            a row a stack
        dropped.csv             what made no stack, with the reason
        report.csv              counts of each class
        sheets/<class>.png      its stacks, a row each, to look over
"""

import hashlib
import json
import logging
import signal
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path

import cv2
import joblib
from joblib.externals.loky import ProcessPoolExecutor, get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from emotion.clips import (
    SPLITS,
    Clip,
    Dropped,
    Scheme,
    find_clips,
    find_torn,
    limit_clips,
    read_names,
)
from emotion.demo import render_clips
from emotion.errors import UserError
from emotion.face import TRACKING, FaceCropper
from emotion.fetch import fetch_clips
from emotion.files import unfinished, writer_lives
from emotion.manifest import StackRow, read_manifest, read_table, write_manifest, write_table
from emotion.progress import ProgressBar
from emotion.sampling import num_images
from emotion.sheet import write_sheet
from emotion.stack import STARTS, Segment, crop_segments, stack_crops, write_stack
from emotion.video import Video, VideoError

log = logging.getLogger(__name__)

MAX_NAMES = 30  # printed for each reason that clips are dropped
UNDER_WAY = 2  # clips that joblib hands out ahead, for each process


@dataclass(frozen=True)
class CacheSettings:
    """Every setting that changes which stacks a clip gives, or their pixels.

    The names are those of the config: `min_frames` stands under `data`, the next four under
    `sampling`, the rest under `face`.
    """

    min_frames: int
    segment_frames: int
    interval: int
    start: str
    min_face_fraction: float
    tracking: str
    margin: float
    size_px: int
    min_confidence: float

    def __post_init__(self) -> None:
        """Check what a config can get wrong.

        Raises:
            UserError: names the key that is at fault.
        """
        num_images(self.segment_frames, self.interval)
        for key, value, choices in (
            ("sampling.start", self.start, STARTS),
            ("face.tracking", self.tracking, TRACKING),
        ):
            if value not in choices:
                raise UserError(f"{key}={value}: it is one of {', '.join(choices)}")
        for key, value in (
            ("sampling.min_face_fraction", self.min_face_fraction),
            ("face.min_confidence", self.min_confidence),
        ):
            if not 0 <= value <= 1:
                raise UserError(f"{key}={value}: it is a fraction, 0 to 1")
        if not 1 <= self.min_frames <= self.segment_frames:
            raise UserError(
                f"data.min_frames={self.min_frames}: it is 1 to "
                f"sampling.segment_frames={self.segment_frames}"
            )
        if self.size_px < 1 or self.margin < 0:
            raise UserError(
                f"face.size_px={self.size_px} and face.margin={self.margin}: "
                "the size is at least 1, the margin at least 0"
            )

    @property
    def num_images(self) -> int:
        """T, the images of a cached stack."""
        return num_images(self.segment_frames, self.interval)

    @property
    def folder(self) -> str:
        """A folder name that no other settings have."""
        return (
            f"{self.segment_frames}f-every{self.interval}-from_{self.start}-min{self.min_frames}"
            f"-faces{self.min_face_fraction}_{self.tracking}-margin{self.margin}"
            f"-{self.size_px}px-confidence{self.min_confidence}"
        )


@dataclass
class ClipRecord:
    """How one clip was cut.

    Attributes:
        size_bytes: of the clip's file.
        modified_ns: when it was last written; with the size, tells a clip that has changed.
        fps: frames per second by the header.
        segments: of each stack: its segment's number and frames, and which places have a crop.
        dropped: of each segment that made no stack, the fields of a `Dropped` but for the clip.
        failed: whether the file could not be read, or its reader broke down.
    """

    size_bytes: int = 0
    modified_ns: int = 0
    fps: float = 0.0
    failed: bool = False
    segments: list[dict] = field(default_factory=list)
    dropped: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Cache:
    """The stacks of one data set under one set of settings.

    Attributes:
        directory: where all of it lies.
        root: the folder of the clips.
        scheme: how their names are read and split.
        settings: how they are cut and cropped.
        max_per_class: at most so many clips of every class in each split; None for all.
        clip_list: the CSV file that names the clips; None to take all files below `root`.
        render: for the demo, how many clips of a class to draw, and the seed; else None.
        download_id: of a ZIP with the clips on Google Drive, "" if it is not known; None for a
            data set that is not fetched.
        num_workers: processes that cut; None for one a core.
    """

    directory: Path
    root: Path
    scheme: Scheme
    settings: CacheSettings
    max_per_class: int | None = None
    clip_list: Path | None = None
    render: Mapping[str, int] | None = None
    download_id: str | None = None
    num_workers: int | None = None

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "Cache":
        """Name the cache that a composed config asks for; touch nothing.

        Raises:
            UserError: the settings contradict each other.
        """
        data = cfg.data
        known = {field.name for field in fields(CacheSettings)}
        for group in ("sampling", "face"):
            if unknown := set(cfg[group]) - known:
                raise UserError(f"{group} has no setting {', '.join(sorted(unknown))}")
        settings = CacheSettings(min_frames=data.min_frames, **cfg.sampling, **cfg.face)
        root, clip_list = (
            Path(path).absolute() if (path := OmegaConf.select(data, key)) is not None else None
            for key in ("root", "list")
        )
        has_list = "list" in list(data)  # `in data` would pass over ???
        if has_list and clip_list is None:
            raise UserError(f"data={data.name} has no list of its own: set data.list=FILE")
        if root is None and clip_list is None:
            raise UserError(f"data={data.name} has no folder of its own: set data.root=DIR")
        split = OmegaConf.to_container(data.split)
        scheme = Scheme(
            pattern=data.get("pattern"),  # a list needs none
            labels=list(cfg.labels),
            label_map=OmegaConf.to_container(data.label_map) if data.label_map else {},
            split_by=split.pop("by", "id"),
            split=split,
        )
        name = data.name
        if data.max_clips_per_class is not None:
            name += f"-{data.max_clips_per_class}perclass"
        return cls(
            directory=Path(cfg.paths.cache).absolute() / name / settings.folder,
            root=root or clip_list.parent,
            scheme=scheme,
            settings=settings,
            max_per_class=data.max_clips_per_class,
            clip_list=clip_list,
            render=data.get("render"),
            download_id=str(data.download_id or "") if "download_id" in data else None,
            num_workers=cfg.num_workers,
        )

    def stack_path(self, clip_id: str, segment: int) -> Path:
        """Name the TIFF of a segment."""
        return self.directory / "stacks" / f"{clip_id}_{segment:04d}.tiff"

    def record_path(self, clip_id: str) -> Path:
        """Name the record of a clip."""
        return self.directory / "clips" / f"{clip_id}.json"

    def manifest(self) -> list[StackRow]:
        """Read the rows of all stacks."""
        return read_manifest(self.directory / "manifest.csv")

    def dropped(self) -> list[Dropped]:
        """Read what made no stack, and why."""
        return read_dropped(self.directory)

    def manifest_sha256(self) -> str | None:
        """Hash the manifest, which tells results on these stacks from those on others.

        Returns:
            64 hexadecimal digits; None where there is no manifest.
        """
        path = self.directory / "manifest.csv"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None

    def ensure(self) -> None:
        """Build the cache unless it stands there, made as asked for.

        Raises:
            UserError: it can't be built; names the command or key that helps.
        """
        if self._is_current():
            return
        try:
            self.build()
        except UserError as error:
            others = sorted(p.parent.name for p in self.directory.parent.glob("*/manifest.csv"))
            others = [other for other in others if other != self.directory.name]
            if not others:
                raise
            raise UserError(
                f"{error}. There are stacks of this data set, but made with other settings "
                f"({'; '.join(others)} in {self.directory.parent}) than asked for "
                f"({self.directory.name}): give the settings that made them, or run preprocess.py"
            ) from None

    def plan(self) -> str:
        """Say what `build` would do, and do nothing.

        Raises:
            UserError: it would not start.
        """
        self._check_settings()
        if missing := self._missing_renders():
            return f"would draw {len(missing)} demo clips in {self.root}, and cut all of them"
        clips, dropped = find_clips(self.root, self.scheme, self.max_per_class, self.clip_list)
        done = sum(self._read_record(clip) is not None for clip in clips)
        lines = [
            f"{self.root}: {len(clips)} clips, {done} of them in the cache",
            f"would cut {len(clips) - done} clips into {self.directory}",
        ]
        for label in self.scheme.labels:
            counts = Counter(clip.split for clip in clips if clip.label == label)
            shares = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
            lines.append(f"{label}: {counts.total()} clips ({shares})")
        return "\n".join([*lines, *say_dropped(dropped), *say_torn(clips)])

    def build(self, strict: bool = False) -> None:
        """Make every stack that is missing, then the manifest, and say what came of it.

        Args:
            strict: make it an error that a clip could not be read; all others are done first.

        Raises:
            UserError: there are no clips, or not one stack could be made of them.
        """
        self._check_settings()
        self._remove_unfinished()
        self._provide_clips()
        clips, dropped = find_clips(self.root, self.scheme, self.max_per_class, self.clip_list)
        identity = self._identity()  # now: a list that is edited while we cut is another one
        self.directory.mkdir(parents=True, exist_ok=True)
        records = {clip.id: record for clip in clips if (record := self._read_record(clip))}
        todo = [clip for clip in clips if clip.id not in records]
        log.info(
            "%s: %d clips, %d of them in the cache", self.root, len(clips), len(clips) - len(todo)
        )
        records |= self._cut(todo)
        rows = [row for clip in clips for row in self._rows(clip, records[clip.id])]
        dropped += [Dropped(c.id, **drop) for c in clips for drop in records[c.id].dropped]
        write_table(
            self.directory / "dropped.csv",
            [field.name for field in fields(Dropped)],
            map(asdict, dropped),
        )
        table = class_counts(self.scheme.labels, clips, rows)
        write_table(self.directory / "report.csv", list(table[0]), table)
        log.info(report(table, rows, dropped))
        log.info("cache: %s", self.directory)
        self._write_sheets(rows, changed=bool(todo))
        if not rows:
            self._settings_path().unlink(missing_ok=True)  # there is nothing to be current
            raise UserError(f"not one stack could be made of the clips in {self.root}")
        write_manifest(self.directory / "manifest.csv", rows)
        if all(self.record_path(clip.id).exists() for clip in clips):
            with unfinished(self._settings_path()) as temporary:
                temporary.write_text(json.dumps(identity, indent=2))
        else:  # some failed for a reason that may pass, a full disk say: the next run tries again
            self._settings_path().unlink(missing_ok=True)
        failed = [clip.id for clip in clips if records[clip.id].failed]
        if strict and failed:
            raise UserError(f"strict=true, and {len(failed)} clips failed: {', '.join(failed)}")

    def _write_sheets(self, rows: Sequence[StackRow], changed: bool) -> None:
        """Draw the contact sheet of each class that has stacks."""
        for label in self.scheme.labels:
            path = self.directory / "sheets" / f"{label}.png"
            stacks = [self.directory / row.stack for row in rows if row.label == label]
            if stacks and (changed or not path.exists()):
                write_sheet(path, stacks)

    def _remove_unfinished(self) -> None:
        """Remove the temporary files of processes that were killed while they wrote."""
        for path in self.directory.rglob(".*"):
            if not writer_lives(path):
                path.unlink(missing_ok=True)

    def _settings_path(self) -> Path:
        return self.directory / "settings.json"

    def _identity(self) -> dict:
        """What made the cache, as JSON gives it back."""
        listed = self.clip_list is not None and self.clip_list.is_file()
        identity = {
            "settings": asdict(self.settings),
            "clips": {
                "root": str(self.root),
                "list": hashlib.sha256(self.clip_list.read_bytes()).hexdigest() if listed else None,
                "render": dict(self.render) if self.render else None,
                **asdict(self.scheme),
            },
        }
        return json.loads(json.dumps(identity))

    def _is_current(self) -> bool:
        """Whether a whole cache stands there, made as asked for."""
        if not (self.directory / "manifest.csv").exists() or not self._settings_path().exists():
            return False
        self._check_settings()
        return json.loads(self._settings_path().read_text()) == self._identity() and all(
            (self.directory / row.stack).exists() for row in self.manifest()
        )

    def _check_settings(self) -> None:
        """Refuse a folder that does not hold what its name says."""
        if not self._settings_path().exists():
            return
        made = json.loads(self._settings_path().read_text())["settings"]
        asked = self._identity()["settings"]
        if made != asked:
            differing = ", ".join(
                f"{key} {made.get(key)}, asked for {asked.get(key)}"
                for key in sorted(made.keys() | asked.keys())
                if made.get(key) != asked.get(key)
            )
            raise UserError(
                f"{self.directory} was made with other settings ({differing}): "
                "remove that folder, or set paths.cache to another one"
            )

    def _provide_clips(self) -> None:
        """Draw or fetch the clips of a data set that says how, as far as they are not there."""
        self._render_missing()
        if self.download_id is not None:
            fetch_clips(self.root, self.download_id)

    def _missing_renders(self) -> list[Path]:
        """List the demo clips that are not there yet; none for other data sets."""
        if not self.render:
            return []
        paths = [
            self.root / f"{label}_{number:04d}.mp4"
            for label in self.scheme.labels
            for number in range(1, self.render["clips_per_class"] + 1)
        ]
        clips, _ = read_names(paths, self.root, self.scheme)
        paths = [clip.path for clip in limit_clips(clips, self.max_per_class)]
        return [path for path in paths if not path.exists()]

    def _render_missing(self) -> None:
        """Draw the demo clips that are not there yet."""
        if missing := self._missing_renders():
            with ProgressBar("drawing demo clips", len(missing)) as bar:
                render_clips(missing, self.render["seed"], self._jobs(), on_done=bar.advance)

    def _jobs(self) -> int:
        return self.num_workers or joblib.cpu_count()

    def _cut(self, clips: Sequence[Clip]) -> dict[str, ClipRecord]:
        """Cut clips in parallel; returns the record of each by the clip's id.

        Decoders crash. When a process dies, joblib gives up all that was under way without saying
        whose fault it was; those clips are cut again one at a time, so that the one that kills its
        process costs itself alone.
        """
        records: dict[str, ClipRecord] = {}
        left = list(clips)
        if not left:
            return records  # and start no processes
        try:
            with ProgressBar("cutting clips", len(clips)) as bar:
                while left:
                    try:
                        for clip_id, record in self._cut_in_parallel(left):
                            records[clip_id] = record
                            bar.advance()
                    except TerminatedWorkerError:
                        left = [clip for clip in left if clip.id not in records]
                        for clip in left[: UNDER_WAY * self._jobs()]:
                            records[clip.id] = self._read_record(clip) or self._cut_alone(clip)
                            bar.advance()
                    left = [clip for clip in left if clip.id not in records]
        finally:
            # Idle workers would keep their memory while we train; on Ctrl-C, busy ones must end.
            get_reusable_executor().shutdown(wait=True, kill_workers=bool(left))
        return records

    def _cut_in_parallel(self, clips: Sequence[Clip]) -> Iterator[tuple[str, ClipRecord]]:
        """Cut clips in as many processes as there are jobs, in no order."""
        parallel = joblib.Parallel(
            self._jobs(),
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch=f"{UNDER_WAY} * n_jobs",
        )
        return parallel(joblib.delayed(cut_and_record)(self, clip) for clip in clips)

    def _cut_alone(self, clip: Clip) -> ClipRecord:
        """Cut a clip in a process that may die of it."""
        try:
            with ProcessPoolExecutor(max_workers=1) as executor:
                return executor.submit(cut_and_record, self, clip).result()[1]
        except TerminatedWorkerError:
            return ClipRecord(failed=True, dropped=[{"reason": "reading it kills the process"}])

    def _read_record(self, clip: Clip) -> ClipRecord | None:
        """Read how a clip was cut, if it was, has not changed since, and its stacks stand there."""
        path = self.record_path(clip.id)
        if not path.exists():
            return None
        record = ClipRecord(**json.loads(path.read_text()))
        stat = clip.path.stat()
        unchanged = (stat.st_size, stat.st_mtime_ns) == (record.size_bytes, record.modified_ns)
        whole = all(self.stack_path(clip.id, s["number"]).exists() for s in record.segments)
        return record if unchanged and whole else None

    def _rows(self, clip: Clip, record: ClipRecord) -> list[StackRow]:
        """Make the manifest rows of a clip."""
        interval = self.settings.interval
        return [
            StackRow(
                stack=self.stack_path(clip.id, segment["number"])
                .relative_to(self.directory)
                .as_posix(),
                clip=clip.id,
                segment=segment["number"],
                label=clip.label,
                subject=clip.subject,
                split=clip.split,
                num_frames=segment["num_frames"],
                has_face=segment["has_face"],
                face_frames=segment["has_face"].count("1"),
                sampled_frames=len(range(0, segment["num_frames"], interval)),
                fps=record.fps,
            )
            for segment in record.segments
        ]


@lru_cache(maxsize=1)
def face_cropper(settings: CacheSettings) -> FaceCropper:
    """Load the face mesh once a process: a new one for every clip would cost 80 ms each."""
    return FaceCropper(
        settings.tracking, settings.margin, settings.size_px, settings.min_confidence
    )


def cut_and_record(cache: Cache, clip: Clip) -> tuple[str, ClipRecord]:
    """Make a clip's stacks and its record. Runs in a process of its own.

    Args:
        cache: where they go.
        clip: what to cut.

    Returns:
        The clip's id and record. A clip that can't be read is dropped in it; one that failed for
        another reason too, but then the record is not kept on disk, so that the next run tries
        again.
    """
    cv2.setNumThreads(1)  # the cores are shared out among processes already
    if parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent sees to it
    record = ClipRecord()
    try:
        stat = clip.path.stat()
        record.size_bytes, record.modified_ns = stat.st_size, stat.st_mtime_ns
        cut_clip(cache, clip, record)
    except VideoError as error:
        record.failed = True
        record.dropped.append({"reason": str(error)})
    except Exception as error:  # one clip must not stop the others; it is reported
        record.failed = True
        record.dropped.append({"reason": f"{type(error).__name__}: {error}"})
        return clip.id, record
    with unfinished(cache.record_path(clip.id)) as temporary:
        temporary.write_text(json.dumps(asdict(record)))
    return clip.id, record


def cut_clip(cache: Cache, clip: Clip, record: ClipRecord) -> None:
    """Read a clip and write a stack for every segment that has enough frames and faces.

    Args:
        cache: where the stacks go.
        clip: what to cut.
        record: takes down the segments made and dropped.

    Raises:
        VideoError: the clip can't be read.
    """
    settings = cache.settings
    video = Video(clip.path)
    record.fps = video.fps
    cropper = face_cropper(settings)
    for segment in crop_segments(
        video, cropper, settings.segment_frames, settings.interval, settings.start
    ):
        if flaw := unfit(segment, settings):
            record.dropped.append({"segment": segment.number, **flaw})
            continue
        stack = stack_crops(segment.crops, settings.num_images)
        write_stack(cache.stack_path(clip.id, segment.number), stack)
        has_face = "".join("0" if crop is None else "1" for crop in segment.crops)
        record.segments.append(
            {
                "number": segment.number,
                "num_frames": segment.num_frames,
                "has_face": has_face.ljust(settings.num_images, "0"),
            }
        )


def unfit(segment: Segment, settings: CacheSettings) -> dict[str, str] | None:
    """Say why a segment makes no stack, as `reason` and `detail`; None if it does."""
    if segment.num_frames < settings.min_frames:
        return {
            "reason": f"fewer than data.min_frames={settings.min_frames} frames",
            "detail": f"{segment.num_frames} frames",
        }
    sampled = len(segment.crops)
    if segment.face_frames < max(1, settings.min_face_fraction * sampled):
        return {
            "reason": "a face in less of it than "
            f"sampling.min_face_fraction={settings.min_face_fraction}",
            "detail": f"in {segment.face_frames} of {sampled} sampled frames",
        }
    return None


def class_counts(
    labels: Sequence[str], clips: Sequence[Clip], rows: Sequence[StackRow]
) -> list[dict[str, str | int]]:
    """Count what each class came to.

    Args:
        labels: the classes.
        clips: all clips of the data set.
        rows: all stacks.

    Returns:
        For each class its clips, those of them without a stack, its stacks, the sampled frames in
        them, how many of those show no face, and the share that does. Where that differs much
        between classes, a model may read the label off the missing faces.
    """
    table = []
    for label in labels:
        ids = {clip.id for clip in clips if clip.label == label}
        mine = [row for row in rows if row.label == label]
        sampled = sum(row.sampled_frames for row in mine)
        faces = sum(row.face_frames for row in mine)
        table.append(
            {
                "class": label,
                "clips": len(ids),
                "without stack": len(ids - {row.clip for row in mine}),
                "stacks": len(mine),
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
    lines += say_dropped([drop for drop in dropped if drop.clip not in with_stacks])
    segments = Counter(drop.reason for drop in dropped if drop.clip in with_stacks)
    for reason, count in segments.items():
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


def read_dropped(directory: Path) -> list[Dropped]:
    """Read what made no stack in a cache's folder; nothing where the list is not there."""
    path = directory / "dropped.csv"
    rows = read_table(path) if path.is_file() else []
    return [Dropped(**row | {"segment": int(row["segment"])}) for row in rows]


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
