"""Predict emotions in clips or from a webcam: python predict.py model_path=RUN clips=PATH."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from emotion.cli import entry
from emotion.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig, ListConfig

    from emotion.models.recipe import Recipe

log = logging.getLogger(__name__)


@entry("predict")
def predict(cfg: "DictConfig") -> None:
    """Predict clips, or watch a camera."""
    from hydra.core.hydra_config import HydraConfig

    from emotion.inference.backends import STARTER, backend_name, find_model, read_recipe

    folder = Path(HydraConfig.get().runtime.output_dir)
    model = find_model(Path(str(cfg.model_path)))
    recipe = read_recipe(model)
    log.info("model: %s (%s)\ntrained on: %s", model, backend_name(model), recipe.data)
    if recipe.temperature == 1.0 and model != STARTER:
        log.info("the probabilities are not calibrated")
    if cfg.clips is None:
        watch_source(cfg, model, folder)
    else:
        predict_clips(cfg, model, recipe, folder)


def predict_clips(cfg: "DictConfig", model: Path, recipe: "Recipe", folder: Path) -> None:
    """Predict clips, print a table and write the files of the run."""
    from rich.console import Console

    from emotion.inference.answer import answers_table, write_csv
    from emotion.inference.batch import Predictor, output_names
    from emotion.inference.judge import threshold

    clips = files_of(cfg.clips, "clips")
    pictures = {"stride": cfg.stride, "rendered": folder / "rendered"} if cfg.render else {}
    person = profile_path(cfg.person, cfg.learn)
    options = {"face_model": cfg.face.model, "person": person, **pictures}
    predictor = Predictor(model, cfg.min_frames, cfg.unsure_below, **options)
    answers = predictor.predict_to_file(clips, cfg.num_workers, folder / "predictions.jsonl")
    if cfg.learn:
        log.info("%s: %s", person, predictor.learn(answers).counts)
    write_csv(folder / "predictions.csv", answers, recipe.labels)
    console = Console()
    if not console.is_terminal:  # Rich assumes 80 columns for a log file
        console.width = 120
    console.print(answers_table(answers, output_names(clips), recipe.labels))
    num_classified = sum(answer.label is not None for answer in answers)
    num_unsure = sum(answer.unsure for answer in answers)
    failed = [answer.clip for answer in answers if answer.failed]
    counts = f"{num_classified} of {len(answers)} clips classified, {num_unsure} of them unsure"
    log.info("%s, %d failed", counts, len(failed))
    unsure_below = threshold(recipe.unsure_below, cfg.unsure_below, knows_person=person is not None)
    if unsure_below == 0:
        log.info("no confidence threshold is set, so no clip is unsure: unsure_below=0.5 sets one")
    elif num_unsure:
        of = "the model" if cfg.unsure_below is None else "the command line"
        log.info("unsure: top probability below unsure_below=%.3g, set by %s", unsure_below, of)
    log.info("predictions.jsonl, predictions.csv%s: %s", ", rendered" * cfg.render, folder)
    if not num_classified:
        raise UserError(f"no clip could be classified; the first: {'; '.join(answers[0].reasons)}")
    if cfg.strict and failed:
        raise UserError(f"strict=true, and {len(failed)} clips failed: {', '.join(failed)}")


def watch_source(cfg: "DictConfig", model: Path, folder: Path) -> None:
    """Predict what a camera, or a clip in place of one, shows, until its end or Ctrl-C."""
    from emotion.inference.live import open_source, watch_to_files
    from emotion.inference.recognizer import EmotionRecognizer

    source = open_source(cfg.source, cfg.realtime)
    options = {key: cfg[key] for key in ("min_frames", "unsure_below")}
    options["person"] = profile_path(cfg.person, may_be_new=False)
    recognizer = EmotionRecognizer.load(model, face_model=cfg.face.model, **options)
    watch_to_files(recognizer, source, cfg.stride, folder, window=cfg.window, render=cfg.render)


def profile_path(person: str | None, may_be_new: bool) -> Path | None:
    """Return the path of a person's profile, or raise a UserError if there is none."""
    path = None if person is None else Path(person).expanduser()
    if path is not None and not may_be_new and not path.exists():
        raise UserError(f"person={person}: no such file; learn=true begins a profile")
    return path


def files_of(paths: "str | ListConfig | None", key: str) -> tuple[Path, ...]:
    """Find the clips of a path, or of a list of paths, each once; none for null."""
    from emotion.clips.find import named_clips

    names = [] if paths is None else [paths] if isinstance(paths, str | int | float) else paths
    return tuple(dict.fromkeys(clip for name in names for clip in named_clips(str(name), key)))
