"""The plan of a sweep, `sweep.json`: the cells that its last start asked for."""

from pathlib import Path

from omegaconf import DictConfig
from pydantic import TypeAdapter, field_validator

from emotion.errors import DamagedFile, UserError
from emotion.files import read_sealed, write_sealed
from emotion.stacks.sampling import num_images
from emotion.training.record import Part, RunHead

PLAN_FILE = "sweep.json"


class PlannedCell(RunHead):
    """A cell of a sweep."""

    folder: str  # its name inside the sweep's folder
    to_run: bool  # whether it was not finished when the sweep started
    work: float  # pixels per training stack times epochs, to compare run times

    @field_validator("folder")
    @classmethod
    def _is_inside(cls, folder: str) -> str:
        """Refuse a path that leads out of the sweep's folder."""
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise ValueError("it must be inside the sweep's folder")
        return folder


class Plan(Part):
    """The plan of a sweep."""

    command: str  # of its last start
    cells: tuple[PlannedCell, ...]


_PLAN = TypeAdapter(Plan)


def write_plan(sweep_dir: Path, plan: Plan) -> None:
    """Write the plan of a sweep atomically."""
    write_sealed(sweep_dir / PLAN_FILE, _PLAN, plan)


def read_plan(sweep_dir: Path) -> Plan:
    """Read the plan of a sweep."""
    try:
        plan = read_sealed(sweep_dir / PLAN_FILE, _PLAN)
    except FileNotFoundError:
        raise UserError(f"{sweep_dir} has no {PLAN_FILE}: start its sweep again") from None
    except DamagedFile as error:
        raise DamagedFile(f"{error}: start its sweep again") from None
    for folder in (sweep_dir / cell.folder for cell in plan.cells):
        if not folder.resolve().is_relative_to(sweep_dir.resolve()):
            raise DamagedFile(f"{folder} is a link that leads out of the sweep: remove it")
    return plan


def work(cfg: DictConfig) -> float:
    """Return a cell's pixels per training stack, as its network sees them, times its epochs."""
    pixels = (cfg.loader.image_px or cfg.face.size_px) ** 2
    if cfg.model.fusion == "late":  # each image passes through the network
        pixels *= num_images(cfg.sampling.segment_frames, cfg.interval.frames)
    return float(pixels * cfg.trainer.max_epochs)
