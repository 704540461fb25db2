"""Train and evaluate one model, or sweep many: python train.py -m model=... interval=..."""

from typing import TYPE_CHECKING

from emotion.cli import entry  # first, because it names `make install` if packages are missing

# isort: split
import emotion.training.cell  # noqa: F401 registers the resolvers of conf/train.yaml

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("train")
def train(cfg: "DictConfig") -> float | None:
    """Train one model, alone or as a job of a sweep, and return its validation accuracy."""
    from hydra.core.hydra_config import HydraConfig  # imports are here, so that --help stays fast
    from hydra.types import RunMode

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from emotion.sweeps.job import run_job as run
    else:
        from emotion.training.run import train as run
    return run(cfg)


if __name__ == "__main__":  # `python -m`, as emotion/training/ranks.py starts it
    from emotion.commands import run_train

    run_train()
