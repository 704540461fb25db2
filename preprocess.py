"""Turn a folder of clips into cached stacks: python preprocess.py data=demo."""

import logging

from omegaconf import DictConfig

from emotion.cli import describe_data, entry
from emotion.stacks.cache import Cache

log = logging.getLogger(__name__)


@entry("preprocess")
def preprocess(cfg: DictConfig) -> None:
    """Make the stacks that are missing and report what came of it."""
    log.info(describe_data(cfg))
    cache = Cache.from_config(cfg)
    if cfg.dry_run:
        log.info(cache.plan())
    else:
        cache.build(strict=cfg.strict)


if __name__ == "__main__":
    preprocess()
