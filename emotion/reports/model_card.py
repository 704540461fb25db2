"""Write a model card: what a model is, how accurate it is, what it is for and what it is not for.

`model_card.md` is the template, with the sections of Mitchell et al., "Model Cards for Model
Reporting", FAT* 2019. Every number is from the run's files or the exported ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from emotion.escape import for_markdown, for_terminal
from emotion.evaluation.calibration import BINS, TEMPERATURES, min_clips
from emotion.files import file_digest
from emotion.stacks.face_values import values_shape
from emotion.training.finished_run import Run

CARD_FILE = "MODEL_CARD.md"
LICENSE = "MIT License"  # of this project, and of models that it trains


@dataclass(frozen=True)
class ExportedFile:
    """An exported file that passed its check."""

    path: Path
    precision: str  # float32, int8
    checked: str  # the comparison and its result, in words

    @property
    def sha256(self) -> str:
        """Digest of the content, 64 hexadecimal digits."""
        return file_digest(self.path)


def model_card(run: Run, files: Sequence[ExportedFile]) -> str:
    """Return a run's model card, in Markdown, with the files exported from it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "words": words, "markdown": markdown, "code": code}
    record, clips = run.record, run.record.reported.clips
    settings = {**record.split.settings, "fold": record.split.fold}
    return environment.get_template("model_card.md").render(
        run=run,
        record=record,
        recipe=run.recipe,
        clips=clips,
        files=files,
        license=LICENSE,
        split=", ".join(f"{key}={value}" for key, value in settings.items() if value is not None),
        same_clips=record.selected_on == record.reported_on,
        subjects_known=any(part.subjects for part in record.parts.values()),
        majority=max(map(sum, clips.confusion)) / clips.num,
        levels={"stacks": record.reported.stacks, "clips": clips},
        values_shape=None if run.recipe.inputs == "stacks" else values_shape(run.recipe.inputs),
        max_temperature=TEMPERATURES[1],
        bins=BINS,
        min_clips=min_clips(record.calibration.accuracy),
    )


def markdown(value: object) -> Markup:
    """Escape a value that the template shows."""
    return value if isinstance(value, Markup) else Markup(for_markdown(str(value)))


def code(text: str) -> Markup:
    """Escape a text that stands in a line of code, where Markdown has no escapes."""
    return Markup(" ".join(for_terminal(text).replace("`", "'").split()))


def percent(share: float | None) -> str:
    """Format a share in percent; an undefined score is a dash."""
    return "-" if share is None else f"{100 * share:.1f} %"


def words(terms: Sequence[str], joint: str) -> str:
    """Format a list: `a, b or c`."""
    return f" {joint} ".join(filter(None, [", ".join(terms[:-1]), terms[-1]]))
