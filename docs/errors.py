"""Draw what a sweep is most wrong about: python -m docs.errors outputs/sweeps/<name>.

Writes `docs/errors.jpg`: of each emotion the clips that were taken for another with the highest
probability, as four images of their first stack, with what was said and whose clip it is. The
answers of seeds are averaged, those of folds put together.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from emotion.errors import UserError
from emotion.evaluation.personal import mean_of
from emotion.evaluation.predictions import Predictions
from emotion.stacks.contact_sheet import strip
from emotion.stacks.stack import read_stack
from emotion.training.finished_run import Run

PICTURE = Path(__file__).parent / "errors.jpg"
EACH = 3  # mistakes of an emotion
IMAGES, TILE_PX, CAPTION_PX, GAP_PX = 4, 80, 20, 10


def pooled(runs: list[Run]) -> Predictions:
    """Put the folds of each seed together and average the seeds, clip by clip."""
    by_seed: dict[int, list[Predictions]] = {}
    for run in runs:
        reported = run.predictions.of_split(run.metrics["reported_on"])
        by_seed.setdefault(run.metrics["seed"], []).append(reported)
    return mean_of([Predictions.joined(folds).of_clips() for folds in by_seed.values()])


def tile(stack: np.ndarray, caption: str) -> np.ndarray:
    """Draw images of a (T, H, W) stack under a caption, as gray (H, W)."""
    places = np.linspace(0, len(stack) - 1, IMAGES + 2).round().astype(int)[1:-1]
    images = strip(stack[places], TILE_PX)
    title = np.full((CAPTION_PX, images.shape[1]), 255, np.uint8)
    font, place = cv2.FONT_HERSHEY_SIMPLEX, (2, CAPTION_PX - 6)
    cv2.putText(title, caption, place, font, 0.45, 0, 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(
        np.vstack([title, images]), 0, GAP_PX, 0, GAP_PX, cv2.BORDER_CONSTANT, value=255
    )


def draw(runs: list[Run]) -> np.ndarray:
    """Lay the mistakes out, a row for each emotion that was mistaken; (H, W) gray."""
    answers = pooled(runs)
    cache = runs[0].cache
    paths = {row.clip: cache.directory / row.stack for row in reversed(cache.manifest())}
    said = answers.probabilities.argmax(axis=1)
    rows = []
    for index, label in enumerate(answers.labels):
        wrong = np.flatnonzero((answers.targets == index) & (said != index))
        worst = wrong[np.argsort(-answers.probabilities[wrong].max(axis=1))][:EACH]
        tiles = [
            tile(
                read_stack(paths[answers.clips[i]]),
                f"{label}: {answers.labels[said[i]]} {answers.probabilities[i].max():.0%}, "
                f"actor {answers.subjects[i]}",
            )
            for i in worst
        ]
        if tiles:
            tiles += [np.full_like(tiles[0], 255)] * (EACH - len(tiles))
            rows.append(np.hstack(tiles))
    if not rows:
        raise UserError("nothing was mistaken")
    return np.vstack(rows)


def main() -> None:
    """Draw the mistakes of the sweep that is named."""
    parser = argparse.ArgumentParser(prog="python -m docs.errors", description=__doc__)
    parser.add_argument("sweep_dir", type=Path, help="folder of a finished sweep")
    sweep_dir = parser.parse_args().sweep_dir
    try:
        runs = [Run.read(path.parent) for path in sorted(sweep_dir.glob("*/metrics.json"))]
        if not runs:
            raise UserError(f"{sweep_dir} holds no finished runs: give the folder of a sweep")
        cv2.imwrite(str(PICTURE), draw(runs))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
