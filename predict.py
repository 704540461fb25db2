"""Tell the emotion in clips, or before a camera: python predict.py model_path=RUN clips=PATH."""

import logging
from contextlib import ExitStack, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig
from rich.console import Console

from emotion.cli import entry
from emotion.clips.find import named_clips
from emotion.clips.read_ahead import ReadAhead
from emotion.clips.video import Video, VideoError
from emotion.errors import UserError
from emotion.inference.answer import answers_table, verdict, write_csv, write_json_lines
from emotion.inference.backends import find_model, read_recipe, runtime_name
from emotion.inference.batch import Predictor, output_names
from emotion.inference.drawing import annotate, write_clip
from emotion.inference.live import Camera, PlayedClip, open_window, watch
from emotion.inference.recognizer import EmotionRecognizer
from emotion.models.recipe import Recipe
from emotion.stacks.sampling import NOMINAL_FPS

log = logging.getLogger(__name__)


@entry("predict")
def predict(cfg: DictConfig) -> None:
    """Answer clips, or watch a camera."""
    if cfg.model_path is None:
        raise UserError("which model? set model_path=RUN_DIR_OR_FILE")
    if (cfg.clips is None) == (cfg.source is None):
        raise UserError("set either clips=PATH, or source=0 for a camera")
    folder = Path(HydraConfig.get().runtime.output_dir)
    model = find_model(Path(str(cfg.model_path)))
    recipe = read_recipe(model)
    log.info("model: %s (%s)", model, runtime_name(model))
    log.info("trained on: %s", recipe.data)
    if cfg.clips is not None:
        answer_clips(cfg, model, recipe, folder)
    else:
        watch_source(cfg, model, folder)


def answer_clips(cfg: DictConfig, model: Path, recipe: Recipe, folder: Path) -> None:
    """Answer clips: a table here, files in the run's folder.

    Raises:
        UserError: there are no clips, none gave an answer, or with `strict` one failed.
    """
    clips = all_named(cfg.clips, "clips")
    predictor = Predictor(
        model,
        cfg.min_frames,
        cfg.unsure_below,
        named_neutral(cfg),
        stride=cfg.stride if cfg.render else None,
        rendered=folder / "rendered" if cfg.render else None,
    )
    answers = predictor.predict_all(clips, cfg.num_workers)
    write_json_lines(folder / "predictions.jsonl", answers)
    write_csv(folder / "predictions.csv", answers, recipe.labels)
    console = Console()
    if not console.is_terminal:  # a log, which need not be as narrow as Rich takes it for
        console.width = 120
    console.print(answers_table(answers, output_names(clips), recipe.labels))
    answered = sum(answer.label is not None for answer in answers)
    failed = [answer.clip for answer in answers if answer.failed]
    log.info(
        "%d of %d clips answered, %d of them unsure, %d failed",
        answered,
        len(answers),
        sum(answer.unsure for answer in answers),
        len(failed),
    )
    if recipe.temperature == 1.0:
        log.info("the probabilities are not calibrated: the model's recipe has no temperature")
    log.info("predictions.jsonl, predictions.csv%s: %s", ", rendered" * cfg.render, folder)
    if not answered:
        raise UserError(f"not one clip gave an answer; the first: {'; '.join(answers[0].reasons)}")
    if cfg.strict and failed:
        raise UserError(f"strict=true, and {len(failed)} clips failed: {', '.join(failed)}")


def named_neutral(cfg: DictConfig) -> tuple[Path, ...]:
    """Find the neutral clips of the person; none if none are named."""
    return tuple(all_named(cfg.calibrate, "calibrate")) if cfg.calibrate is not None else ()


def all_named(named: str | ListConfig, key: str) -> list[Path]:
    """Find the clips that the name, or the list of names, under a key stands for; each once."""
    names = named if isinstance(named, ListConfig) else [named]
    return list(dict.fromkeys(clip for name in names for clip in named_clips(str(name), key)))


def watch_source(cfg: DictConfig, model: Path, folder: Path) -> None:
    """Answer again and again what a camera, or a clip taken for one, shows.

    Raises:
        UserError: there is no such source, or no display for its window.
    """
    is_camera = isinstance(cfg.source, int) or str(cfg.source).isdigit()
    try:
        source = Camera(int(cfg.source)) if is_camera else Video(Path(str(cfg.source)).expanduser())
    except VideoError as error:
        raise UserError(f"source={cfg.source}: {error}") from None
    if cfg.realtime and not is_camera:
        source = PlayedClip(source)
    source = ReadAhead(source, drop_late=is_camera or cfg.realtime)
    recognizer = EmotionRecognizer.load(
        model, min_frames=cfg.min_frames, unsure_below=cfg.unsure_below
    )
    recognizer.calibrate(named_neutral(cfg))
    unsure_below = recognizer.recipe.unsure_below
    with ExitStack() as stack, suppress(KeyboardInterrupt):  # which is how to end it
        lines = stack.enter_context(open(folder / "live.jsonl", "w", encoding="utf-8"))
        show = stack.enter_context(open_window()) if cfg.window else None
        write = None
        if cfg.render:
            write = stack.enter_context(write_clip(folder / "live.mp4", NOMINAL_FPS))
        for frame in watch(recognizer, source, cfg.stride):
            if frame.is_answer:
                said = verdict(frame.probabilities, unsure_below)
                log.info("%6.1f s  %s", frame.time_s, said)
                print(frame.to_json(), file=lines, flush=True)
            if show is None and write is None:
                continue
            picture = annotate(
                frame.picture.rgb(),
                frame.box,
                frame.probabilities,
                unsure_below,
                note="no face" if frame.box is None else "looking ...",
            )
            if write is not None:
                write(picture)
            if show is not None and not show(picture):
                break
    log.info("live.jsonl%s: %s", ", live.mp4" * cfg.render, folder)
    if source.num_dropped:
        log.info("%d frames came too fast and were dropped", source.num_dropped)


if __name__ == "__main__":
    predict()
