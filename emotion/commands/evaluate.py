"""Score a trained model on labeled clips: python evaluate.py model_path=RUN data=NAME."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from emotion.cli import describe_data, entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


@entry("evaluate")
def evaluate(cfg: "DictConfig") -> None:
    """Predict the clips of a data set, and write scores, predictions and a page."""
    from hydra.core.hydra_config import HydraConfig

    from emotion.inference.backends import find_model
    from emotion.inference.batch import Predictor
    from emotion.inference.evaluate import evaluate_clips
    from emotion.reports.evaluation import write_evaluation
    from emotion.stacks.source import ClipSource

    log.info(describe_data(cfg))
    model = find_model(Path(str(cfg.model_path)))
    predictor = Predictor(model, cfg.min_frames, face_model=cfg.face.model)
    source = ClipSource.from_config(cfg)
    evaluation = evaluate_clips(predictor, source, cfg.num_workers, person=cfg.person)
    typed = HydraConfig.get().overrides.task
    write_evaluation(evaluation, Path(HydraConfig.get().runtime.output_dir), typed)
