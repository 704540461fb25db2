"""Cut a folder of clips into cached stacks: python preprocess.py data=demo."""

import logging
from typing import TYPE_CHECKING

from emotion.cli import describe_data, entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


@entry("preprocess")
def preprocess(cfg: "DictConfig") -> None:
    """Make the stacks that are missing and log a report."""
    from emotion.stacks.build import CacheBuilder  # here, so that --help loads no library of it

    log.info(describe_data(cfg))
    builder = CacheBuilder.from_config(cfg)
    if cfg.dry_run:
        log.info(builder.plan())
    else:
        builder.build(cfg.strict, cfg.verify)
