"""Measure data beyond memory: python -m benchmarks.reading FOLDER [STACKS].

Writes STACKS (20,000) synthetic stacks of 18 x 224 x 224 (0.9 MB each) to FOLDER, as a cache holds
them, and reads all of them in random order in one worker process: as `train.py` does, and, where
the package webdataset can be imported, from tar shards of the same files. Augmentation, the same
for both, is off. Between the two, MobileNetV3 trains one epoch on them, with augmentation. The page
cache is dropped before each row if the user is root. Prints stacks a second, the processor time of
a stack, and the largest private memory of the process and its worker.
"""

import argparse
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytorch_lightning as pl
import tifffile
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from benchmarks.train import NUM_IMAGES, SIZE_PX, composed, module_of, random_stacks
from emotion.data.batch import collate
from emotion.data.datamodule import StackDataModule
from emotion.stacks.cache import Cache
from emotion.stacks.manifest import StackRow
from emotion.stacks.stack import model_images

BATCH = 24  # stacks
SHARD_STACKS = 500  # 450 MB in a tar file
BUFFER_STACKS = 500  # which WebDataset shuffles in memory
ROWS = {  # epochs; only the first of train.py compares digests
    "train.py": 2,
    "training": 1,
    "webdataset": 1,
}


def config_in(folder: Path) -> DictConfig:
    """Compose the config of a cache below a folder."""
    return composed([f"paths.cache={folder}", "data=demo"])


def measure(folder: Path, row: str) -> None:
    """Read the stacks of `FOLDER/rows.json`, and print a JSON line for each epoch."""
    cfg = config_in(folder)
    rows = [StackRow(**values) for values in json.loads((folder / "rows.json").read_text())]
    if row == "webdataset":
        import webdataset

        shards = sorted(map(str, folder.glob("*.tar")))
        stacks = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
        stacks = stacks.shuffle(BUFFER_STACKS).map(partial(decode, list(cfg.data.labels)))
        loader: Iterable = DataLoader(stacks, BATCH, num_workers=1, collate_fn=collate)
    else:
        augmentation = instantiate(cfg.augmentation) if row == "training" else None
        settings = {"labels": cfg.data.labels, "batch_size": BATCH, "num_workers": 1}
        data = StackDataModule(Cache.from_config(cfg), 5, augmentation, **settings)
        data.rows = {"train": rows, "val": rows[:1], "test": []}
        loader = data.train_dataloader()
    for _ in range(ROWS[row]):
        if os.geteuid() == 0:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3")
        watch = Watch(len(rows))
        if row == "training":
            logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
            quiet = {"logger": False, "enable_checkpointing": False, "limit_val_batches": 0}
            trainer = instantiate(cfg.trainer, max_epochs=1, callbacks=[watch], **quiet)
            trainer.fit(module_of(cfg), datamodule=data)
        else:
            for _ in loader:
                watch.look()
        print(json.dumps(watch.row()), flush=True)


class Watch(pl.Callback):
    """Measures an epoch; `look` is called with every batch, while its worker lives."""

    def __init__(self, num_stacks: int) -> None:
        """Start."""
        self.num_stacks, self.start_s, self.used_s = num_stacks, time.perf_counter(), processor_s()
        self.spent_s, self.peaks_mb = 0.0, [0.0, 0.0]

    def look(self) -> None:
        """Take down the processor time so far, and the memory if it is a new peak."""
        self.spent_s = max(self.spent_s, processor_s() - self.used_s)
        self.peaks_mb = [max(pair) for pair in zip(self.peaks_mb, private_mb(), strict=True)]

    def on_train_batch_end(self, *_: object) -> None:
        """Look."""
        self.look()

    def row(self) -> list[float]:
        """Return the stacks, the stacks a second, the processor ms of a stack, and the peaks."""
        rate = self.num_stacks / (time.perf_counter() - self.start_s)
        return [self.num_stacks, rate, 1000 * self.spent_s / self.num_stacks, *self.peaks_mb]


def processor_s() -> float:
    """Return the processor time of this process and of its children."""
    me = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in (me, *me.children(recursive=True)))


def private_mb() -> tuple[float, float]:
    """Return the memory of this process and of its children that no other process shares."""
    me = psutil.Process()
    children = sum(child.memory_full_info().uss for child in me.children(recursive=True))
    return me.memory_full_info().uss / 1e6, children / 1e6


def decode(labels: list[str], sample: dict) -> tuple[torch.Tensor, int]:
    """Decode a sample of a shard as `StackDataset` does."""
    stack = tifffile.imread(io.BytesIO(sample["tiff"]))
    images = model_images(stack, [True] * NUM_IMAGES, 1, SIZE_PX)
    images = np.ascontiguousarray(images.transpose(1, 2, 0))
    return torch.from_numpy(images).permute(2, 0, 1), labels.index(sample["cls"].decode())


def write_shards(folder: Path, cache: Cache, rows: list[StackRow]) -> None:
    """Move the TIFFs of stacks into tar shards, in random order."""
    import webdataset

    pattern = f"{folder}/%06d.tar"
    with webdataset.ShardWriter(pattern, maxcount=SHARD_STACKS, verbose=0) as shards:
        for index in np.random.default_rng(0).permutation(len(rows)).tolist():
            path = cache.directory / rows[index].stack
            sample = {"tiff": path.read_bytes(), "cls": rows[index].label}
            shards.write({"__key__": f"{index:06d}", **sample})
            path.unlink()


def main(folder: Path, num: int) -> None:
    """Write the stacks and read them, each row in a process of its own."""
    console = Console()
    table = Table("step", "stacks", "stacks/s", "processor ms", "MB, process", "MB, worker")

    def timed(name: str, function: Callable[[], list[StackRow] | None]) -> list[StackRow] | None:
        start_s = time.perf_counter()
        result = function()
        table.add_row(name, str(num), f"{num / (time.perf_counter() - start_s):.0f}", "", "", "")
        return result

    folder.mkdir(parents=True)
    try:
        cfg = config_in(folder)
        cache = Cache.from_config(cfg)
        rows = timed("write", lambda: list(random_stacks(cache, cfg.data.labels, num)))
        (folder / "rows.json").write_text(json.dumps([asdict(row) for row in rows]))
        for row in ROWS:
            if row == "webdataset":
                if find_spec("webdataset") is None:
                    continue
                timed("write shards", lambda: write_shards(folder, cache, rows))
            command = [sys.executable, "-m", "benchmarks.reading", str(folder), "--row", row]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            for epoch, line in enumerate(output.splitlines(), start=1):
                count, rate, ms, *peaks = json.loads(line)
                numbers = [f"{rate:.0f}", f"{ms:.1f}", *(f"{mb:.0f}" for mb in peaks)]
                table.add_row(f"read, {row}, epoch {epoch}", str(count), *numbers)
    finally:
        shutil.rmtree(folder)
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading")
    parser.add_argument("folder", type=Path, help="a folder of its own in it is removed at the end")
    parser.add_argument("stacks", type=int, nargs="?", default=20_000)
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)  # of a process of its own
    arguments = parser.parse_args()
    if arguments.row:
        measure(arguments.folder, arguments.row)
    else:
        main(arguments.folder.absolute() / "stacks_beyond_memory", arguments.stacks)
