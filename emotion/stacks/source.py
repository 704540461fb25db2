"""Where the clips of a data set come from: a folder or a list, a download, or the demo renderer."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from emotion.clips.find import find_clips, limit_clips, read_names
from emotion.clips.naming import Clip, Dropped, Scheme, printable
from emotion.config import Render
from emotion.errors import UserError
from emotion.files import digest, file_digest
from emotion.progress import progress_bar

RENDERED = ".rendered"  # marks a folder that demo clips are rendered into


@dataclass(frozen=True)
class ClipSource:
    """The clips of a data set."""

    name: str
    root: Path
    scheme: Scheme
    max_per_class: int | None  # of clips in each split; None for all
    clip_list: Path | None  # the CSV file that lists the clips; None for all files below `root`
    render: Render | None  # the demo clips to render; None for other data sets
    download_id: str | None  # of a ZIP on Google Drive, "" if unknown; None if not downloaded

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "ClipSource":
        """Read the source from a composed config; access no file."""
        data = cfg.data
        root, clip_list = (
            Path(path).expanduser().absolute() if path is not None else None
            for path in (data.get("root"), data.get("list"))
        )
        if root is None and clip_list is None:
            raise UserError(f"data.root must be set: data={data.name} needs data.root=DIR")
        return cls(
            name=data.name,
            root=root or clip_list.parent,
            scheme=Scheme.from_config(data),
            max_per_class=data.max_clips_per_class,
            clip_list=clip_list,
            render=Render(**data.render) if data.get("render") else None,
            download_id=str(data.download_id or "") if "download_id" in data else None,
        )

    @property
    def folder(self) -> str:
        """A folder name that is unique to the clips: two roots of one name do not share it."""
        name = self.name
        if self.max_per_class is not None:
            name += f"-{self.max_per_class}perclass"
        place = os.fsencode(f"{self.root}\n{self.clip_list or ''}")
        return f"{name}-{digest(place)[:6]}"

    def description(self) -> dict[str, Any]:
        """Return all that decides which clips there are and how they are labeled, as JSON."""
        listed = self.clip_list is not None and self.clip_list.is_file()
        return {
            "root": printable(str(self.root)),
            "list": file_digest(self.clip_list) if listed else None,
            "render": self.render and self.render.model_dump(),
            "scheme": asdict(self.scheme),
        }

    def find(self) -> tuple[list[Clip], list[Dropped]]:
        """Find the clips, and the files or rows that are not clips; see `find_clips`."""
        return find_clips(self.root, self.scheme, self.max_per_class, self.clip_list)

    def missing_renders(self) -> list[Path]:
        """List the demo clips that do not exist yet; none for other data sets."""
        if self.render is None:
            return []
        numbers = range(1, self.render.clips_per_class + 1)
        paths = [
            self.root / f"{label}_{n:04d}.mp4" for label in self.scheme.labels for n in numbers
        ]
        clips, _ = read_names(paths, self.root, self.scheme)
        paths = [clip.path for clip in limit_clips(clips, self.max_per_class)]
        return [path for path in paths if not path.exists()]

    def provide(self, num_workers: int | None) -> None:
        """Render the missing demo clips, or download the clips, if the data set has such clips."""
        if missing := self.missing_renders():
            self._render(missing, num_workers)
        if self.download_id is not None:
            from emotion.clips.drive import fetch_clips

            fetch_clips(self.root, self.download_id)

    def _render(self, paths: list[Path], num_workers: int | None) -> None:
        from emotion.clips.demo.render import render_clips

        mark = self.root / RENDERED
        if self.root.is_dir() and any(self.root.iterdir()) and not mark.exists():
            raise UserError(
                f"data.root={self.root} holds files that are not rendered clips: data=demo needs "
                "a new or empty folder; for your own clips set data= to another data set"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        mark.touch()
        with progress_bar("rendering demo clips", len(paths)) as advance:
            render_clips(paths, self.render.seed, num_workers or -1, on_done=advance)
