"""Read back what W&B keeps of a run that is offline, with W&B's own reader."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.internal.datastore import DataStore


class OfflineRun:
    """The records of one run.

    Attributes:
        run: name, group, tags, project, git commit.
        config: key -> value.
        times_set: how many times each key of the config was set.
        history: what each call of `log` has logged.
        summary: key -> value.
        times_summarized: how many times each key of the summary was set.
        artifacts: kind of artifact -> their records.
    """

    def __init__(self, folder: Path) -> None:
        """Read `folder/run-ID.wandb`."""
        self.folder = folder
        self.config, self.summary, self.history, self.artifacts = {}, {}, [], []
        self.times_set, self.times_summarized = Counter(), Counter()
        (path,) = folder.glob("run-*.wandb")
        end_s = time.monotonic() + 20  # `finish` returns before W&B's process has written all
        while not any(record.HasField("exit") for record in records(path)):
            assert time.monotonic() < end_s, f"{path} is not finished"
            time.sleep(0.1)
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
            elif kind == "config":
                self.times_set.update(name(item) for item in record.config.update)
                self.config |= values(record.config.update)
            elif kind == "history":
                self.history.append(values(record.history.item))
            elif kind == "summary":
                self.times_summarized.update(name(item) for item in record.summary.update)
                self.summary |= values(record.summary.update)
            elif kind == "artifact":
                self.artifacts.append(record.artifact)

    def logged(self, key: str) -> list:
        """Give every value that was logged under a key, in order."""
        return [row[key] for row in self.history if key in row]

    @property
    def charts(self) -> set[str]:
        """Name the charts that `wandb leet` shows: numbers of the history, also of tables."""
        return {
            key
            for row in self.history
            for name, value in row.items()
            if not name.startswith("_")
            for key, leaf in leaves(name, value)
            if isinstance(leaf, int | float)
        }

    def file(self, path: str) -> Path:
        """Name a file of the run; it is there."""
        found = self.folder / "files" / path
        assert found.is_file(), found
        return found

    def table(self, key: str) -> tuple[list[str], list[list]]:
        """Read a table that was set once: columns and rows, as its artifact has them."""
        assert self.times_summarized[key] == 1
        table = json.loads(self.kept(f"{key}.table.json").read_text())
        return table["columns"], table["data"]

    def kept(self, path: str) -> Path:
        """Name the file that waits to be uploaded as a part of an artifact."""
        return next(
            Path(entry.local_path)
            for artifact in self.artifacts
            for entry in artifact.manifest.contents
            if entry.path == path
        )


def records(path: Path) -> list[Record]:
    """Read what has been written to a file of W&B."""
    store, found = DataStore(), []
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        found.append(Record.FromString(data))
    return found


def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values within a value; images are no charts, but the counts of tables."""
    if not isinstance(value, dict):
        yield name, value
    elif not str(value.get("_type")).startswith("image"):
        for key in value.keys() - {"size"}:
            yield from leaves(f"{name}.{key}", value[key])


def name(item) -> str:
    """Name what a record's item sets; nested keys with `.`."""
    return item.key or ".".join(item.nested_key)


def values(items: Sequence) -> dict:
    """Turn a record's items into key -> value; nested keys into mappings."""
    found: dict = {}
    for item in items:
        *outer, last = [item.key] if item.key else item.nested_key
        place = found
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found
