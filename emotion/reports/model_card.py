"""Write a model card: what a model is, how accurate it is, what it is for and what it is not for.

`model_card.md` is the template, with the sections of Mitchell et al., "Model Cards for Model
Reporting", FAT* 2019. Every number is from the run's `metrics.json` and `recipe.json`, or from the
exported files.
"""

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from emotion import REPOSITORY
from emotion.evaluation.calibration import TEMPERATURES
from emotion.stacks.face_values import values_shape
from emotion.training.finished_run import Run
from emotion.training.record import FinishedRun

CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class ExportedFile:
    """An exported file that passed its check."""

    path: Path
    precision: str  # float32, int8
    checked: str  # the comparison and its result, in words

    @property
    def sha256(self) -> str:
        """Digest of the content, 64 hexadecimal digits."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def model_card(run: Run, files: Sequence[ExportedFile]) -> str:
    """Return a run's model card, in Markdown, with the files exported from it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "words": words}
    record, clips = run.record, run.record.reported.clips
    with open(REPOSITORY / "LICENSE", encoding="utf-8") as file:
        license_name = file.readline().strip()
    settings = {**record.split.settings, "fold": record.split.fold}
    return environment.get_template("model_card.md").render(
        run=run,
        record=record,
        recipe=run.recipe,
        clips=clips,
        files=files,
        license=license_name,
        split=", ".join(f"{key}={value}" for key, value in settings.items() if value is not None),
        same_clips=record.selected_on == record.reported_on,
        subjects_known=any(part.subjects for part in record.parts.values()),
        majority=max(map(sum, clips.confusion)) / clips.num,
        levels={"stacks": record.reported.stacks, "clips": clips},
        values_shape=None if run.recipe.inputs == "stacks" else values_shape(run.recipe.inputs),
        max_temperature=TEMPERATURES[1],
        command=train_command(record),
    )


def train_command(record: FinishedRun) -> str:
    """Return the command that trains the model again."""
    overrides = [
        re.sub(r"^(\w+)='(\d+)'$", r"\1=\2", each)  # train.py adds such quotes itself
        for each in record.overrides
        if not each.startswith("paths.")
    ]
    if not any(override.startswith("data=") for override in overrides):
        overrides.insert(0, f"data={record.data}")
    return shlex.join(["python", "train.py", *overrides])


def percent(share: float | None) -> str:
    """Format a share in percent; an undefined score is a dash."""
    return "-" if share is None else f"{100 * share:.1f} %"


def words(terms: Sequence[str], joint: str) -> str:
    """Format a list: `a, b or c`."""
    return f" {joint} ".join(filter(None, [", ".join(terms[:-1]), terms[-1]]))
