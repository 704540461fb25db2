"""Train and evaluate one model, or sweep many: python train.py -m model=... interval=..."""

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import emotion.training.cell  # noqa: F401 registers the resolvers of conf/train.yaml
from emotion.cli import entry


@entry("train")
def train(cfg: DictConfig) -> float | None:
    """Train one model, alone or as a job of a sweep, and return its validation accuracy."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # imports here, so that --help stays fast
        from emotion.sweeps.job import run_job as run
    else:
        from emotion.training.run import train as run
    return run(cfg)


if __name__ == "__main__":
    train()
