"""The plan of a sweep, `sweep.json`: the cells that its last start asked for."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from pydantic import TypeAdapter, ValidationError

from emotion.errors import UserError, first_problem
from emotion.files import unfinished
from emotion.stacks.sampling import num_images
from emotion.training.record import RunHead

PLAN_FILE = "sweep.json"


class PlannedCell(RunHead):
    """A cell of a sweep."""

    folder: str  # its name inside the sweep's folder
    to_run: bool  # whether it was not finished when the sweep started
    work: float  # pixels per training stack times epochs, to compare run times


_PLAN = TypeAdapter(list[PlannedCell])


def write_plan(sweep_dir: Path, cells: Sequence[PlannedCell]) -> None:
    """Write the plan of a sweep atomically."""
    with unfinished(sweep_dir / PLAN_FILE) as temporary:
        temporary.write_bytes(_PLAN.dump_json(list(cells), indent=2))


def read_plan(sweep_dir: Path) -> list[PlannedCell]:
    """Read the plan of a sweep."""
    path = sweep_dir / PLAN_FILE
    try:
        return _PLAN.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_problem(error)
        raise UserError(f"{path} cannot be read ({reason}): start its sweep again") from None


def work(cfg: DictConfig) -> float:
    """Return a cell's pixels per training stack, as its network sees them, times its epochs."""
    pixels = (cfg.loader.image_px or cfg.face.size_px) ** 2
    if cfg.model.fusion == "late":  # each image passes through the network
        pixels *= num_images(cfg.sampling.segment_frames, cfg.interval.frames)
    return float(pixels * cfg.trainer.max_epochs)
