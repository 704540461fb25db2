"""The cache: from a data set's clips to one TIFF a segment and one manifest row.

Runs the way of the data down to the line that `preprocess.py` draws: find, cut, read, crop, stack.
Below that line everything only reads what this module has written:

    <paths.cache>/<data.name>/<settings>/
        settings.json           what made it, to the last key
        stacks/<clip>_<segment>.tiff
        landmarks/<clip>_<segment>.npy    of the face in each of its images
        clips/<clip>.json       how a clip was cut; written after both, it vouches for them
        manifest.csv            a row a stack
        dropped.csv             what made no stack, with the reason
        report.csv              counts of each class
        sheets/<class>.png      its stacks, a row each, to look over
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

import joblib
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from emotion.clips.demo.render import render_clips
from emotion.clips.drive import fetch_clips
from emotion.clips.find import find_clips, limit_clips, read_names
from emotion.clips.naming import SPLITS, Clip, Dropped, Scheme
from emotion.errors import UserError
from emotion.executors import Executor, LocalExecutor
from emotion.files import unfinished, writer_lives
from emotion.progress import ProgressBar
from emotion.stacks.build_report import class_counts, read_dropped, report, say_dropped, say_torn
from emotion.stacks.contact_sheet import write_sheet
from emotion.stacks.cutter import (
    LATER_SETTINGS,
    CacheSettings,
    ClipRecord,
    Cutter,
    cut_in_worker,
    dates_of,
)
from emotion.stacks.manifest import StackRow, read_manifest, write_manifest
from emotion.tables import write_table

log = logging.getLogger(__name__)

DRAWN_HERE = ".drawn"  # marks a folder that demo clips are drawn into


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
        executor: where clips are cut.
        num_workers: processes that draw the demo's clips; None for one a core.
    """

    directory: Path
    root: Path
    scheme: Scheme
    settings: CacheSettings
    max_per_class: int | None = None
    clip_list: Path | None = None
    render: Mapping[str, int] | None = None
    download_id: str | None = None
    executor: Executor = field(default_factory=LocalExecutor)
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
            Path(path).expanduser().absolute()
            if (path := OmegaConf.select(data, key)) is not None
            else None
            for key in ("root", "list")
        )
        has_list = "list" in list(data)  # `in data` would pass over ???
        if has_list and clip_list is None:
            raise UserError(f"data={data.name} has no list of its own: set data.list=FILE")
        if root is None and clip_list is None:
            raise UserError(f"data={data.name} has no folder of its own: set data.root=DIR")
        name = data.name
        if data.max_clips_per_class is not None:
            name += f"-{data.max_clips_per_class}perclass"
        return cls(
            directory=Path(cfg.paths.cache).absolute() / name / settings.folder,
            root=root or clip_list.parent,
            scheme=Scheme.from_config(data),
            settings=settings,
            max_per_class=data.max_clips_per_class,
            clip_list=clip_list,
            render=data.get("render"),
            download_id=str(data.download_id or "") if "download_id" in data else None,
            executor=instantiate(cfg.executor),
            num_workers=cfg.num_workers,
        )

    @property
    def cutter(self) -> Cutter:
        """What makes the stacks of a clip."""
        return Cutter(self.directory, self.settings)

    def manifest(self) -> list[StackRow]:
        """Read the rows of all stacks."""
        return read_manifest(self._manifest_path())

    def dropped(self) -> list[Dropped]:
        """Read what made no stack, and why."""
        return read_dropped(self.directory)

    def manifest_sha256(self) -> str | None:
        """Hash the manifest, which tells results on these stacks from those on others.

        Returns:
            64 hexadecimal digits; None where there is no manifest.
        """
        path = self._manifest_path()
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
        done = sum(self.cutter.record(clip) is not None for clip in clips)
        lines = [
            f"{self.root}: {len(clips)} clips, {done} of them in the cache",
            f"would cut {len(clips) - done} clips into {self.directory}",
        ]
        for label in self.scheme.labels:
            counts = Counter(clip.split for clip in clips if clip.label == label)
            shares = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
            placed = f" ({shares})" if any(clip.split for clip in clips) else ""
            lines.append(f"{label}: {counts.total()} clips{placed}")
        return "\n".join([*lines, *say_dropped(dropped), *say_torn(clips)])

    def build(self, strict: bool = False) -> None:
        """Make every stack that is missing, then the manifest, and say what came of it.

        Args:
            strict: make it an error that a clip could not be read; all others are done first.

        Raises:
            UserError: there are no clips, or not one stack could be made of them.
        """
        self._check_settings()
        if self._manifest_path().exists() and not (self.directory / "landmarks").exists():
            log.info(
                "%s: made by an older version, without landmarks: its clips are cut anew",
                self.directory,
            )
        self._remove_unfinished()
        self._provide_clips()
        clips, dropped = find_clips(self.root, self.scheme, self.max_per_class, self.clip_list)
        identity = self._identity()  # now: a list that is edited while we cut is another one
        self.directory.mkdir(parents=True, exist_ok=True)
        records = {clip.id: record for clip in clips if (record := self.cutter.record(clip))}
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
        table = class_counts(self.scheme.labels, clips, rows, dropped)
        write_table(self.directory / "report.csv", list(table[0]), table)
        log.info(report(table, rows, dropped))
        log.info("cache: %s", self.directory)
        self._write_sheets(rows, changed=bool(todo))
        if not rows:
            self._settings_path().unlink(missing_ok=True)  # there is nothing to be current
            raise UserError(f"not one stack could be made of the clips in {self.root}")
        write_manifest(self._manifest_path(), rows)
        if all(self.cutter.record_path(clip.id).exists() for clip in clips):
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

    def _manifest_path(self) -> Path:
        return self.directory / "manifest.csv"

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
        if not self._manifest_path().exists() or not self._settings_path().exists():
            return False
        self._check_settings()
        return json.loads(self._settings_path().read_text()) == self._identity() and all(
            (self.directory / path).exists()
            for row in self.manifest()
            for path in (row.stack, row.landmarks)
        )

    def _check_settings(self) -> None:
        """Refuse a folder that does not hold what its name says."""
        if not self._settings_path().exists():
            return
        made = LATER_SETTINGS | json.loads(self._settings_path().read_text())["settings"]
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
            mark = self.root / DRAWN_HERE
            if self.root.is_dir() and any(self.root.iterdir()) and not mark.exists():
                raise UserError(
                    f"data.root={self.root} holds other files than drawn clips. For clips of your "
                    "own say data=folders too, or another data set; data=demo draws into a folder "
                    "that is new or empty"
                )
            self.root.mkdir(parents=True, exist_ok=True)
            mark.touch()
            with ProgressBar("drawing demo clips", len(missing)) as bar:
                render_clips(missing, self.render["seed"], self._jobs(), on_done=bar.advance)

    def _jobs(self) -> int:
        return self.num_workers or joblib.cpu_count()

    def _cut(self, clips: Sequence[Clip]) -> dict[str, ClipRecord]:
        """Cut clips wherever the executor does; returns the record of each by the clip's id."""
        records: dict[str, ClipRecord] = {}
        if not clips:
            return records  # and start no processes
        with ProgressBar("cutting clips", len(clips), unit="frames") as bar:
            cut = partial(cut_in_worker, self.cutter)
            # The longest first, so that none of them is left to one process at the end.
            clips = sorted(clips, key=lambda clip: dates_of(clip.path)["size_bytes"], reverse=True)
            for clip, record in self.executor.run(cut, clips, self.directory):
                records[clip.id] = record or ClipRecord(
                    failed=True, dropped=[{"reason": "reading it kills the process"}]
                )
                bar.advance(records[clip.id].num_frames)
        return records

    def _rows(self, clip: Clip, record: ClipRecord) -> list[StackRow]:
        """Make the manifest rows of a clip."""
        interval = self.settings.interval
        return [
            StackRow(
                stack=self.cutter.stack_path(clip.id, segment["number"])
                .relative_to(self.directory)
                .as_posix(),
                clip=clip.id,
                segment=segment["number"],
                label=clip.label,
                subject=clip.subject,
                split=clip.split,
                num_frames=segment["num_frames"],
                num_faces=segment["num_faces"],
                has_face=segment["has_face"],
                face_frames=segment["has_face"].count("1"),
                sampled_frames=len(range(0, segment["num_frames"], interval)),
                fps=record.fps,
            )
            for segment in record.segments
        ]
