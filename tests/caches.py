"""A cache together with its builder, so that tests build and read one object."""

import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from emotion.clips.naming import Scheme
from emotion.stacks.build import CacheBuilder
from emotion.stacks.cache import Cache
from emotion.stacks.cutter import Cutter


@dataclass(frozen=True)
class BuildableCache(Cache):
    builder: CacheBuilder

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "BuildableCache":
        builder = CacheBuilder.from_config(cfg)
        return cls(builder.cache.directory, builder.cache.settings, builder)

    def build(self, strict: bool = False, verify: bool = False) -> None:
        self.builder.build(strict, verify)

    def ensure(self) -> None:
        self.builder.ensure()

    def plan(self) -> str:
        return self.builder.plan()

    @property
    def root(self) -> Path:
        return self.builder.source.root

    @property
    def scheme(self) -> Scheme:
        return self.builder.source.scheme

    @property
    def labels(self) -> list[str]:
        return list(self.scheme.labels)

    @property
    def cutter(self) -> Cutter:
        return self.builder.cutter


def without_times(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder, hidden ones too; of clip records, only what holds no times."""
    times = re.compile(rb'"(modified|changed)_ns": \d+|"digest": "\w+"\n}')
    return {
        path.relative_to(folder).as_posix(): times.sub(b"", path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }
