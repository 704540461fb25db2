"""Write a model card: what a model is, how accurate it is, what it is for and what it is not for.

With the sections of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. Every number is
from the run's `metrics.json` and `recipe.json`, or from the exported files.
"""

import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion import REPOSITORY
from emotion.evaluation.metrics import LevelScores
from emotion.models.temperature import TEMPERATURES
from emotion.stacks.landmarks import NUM_POINTS
from emotion.training.finished_run import Run

CARD_FILE = "MODEL_CARD.md"
SCORES = ("accuracy", "uar", "macro_f1")


@dataclass(frozen=True)
class ExportedFile:
    """An exported file that passed its check.

    Attributes:
        path: the file.
        precision: `float32` or `int8`.
        checked: the comparison and its result, in words.
    """

    path: Path
    precision: str
    checked: str

    def row(self) -> list[str]:
        """Return the name, precision, size and digest."""
        data = self.path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        return [self.path.name, self.precision, f"{len(data) / 1e6:.1f} MB", f"`{sha256}`"]


def model_card(run: Run, files: Sequence[ExportedFile]) -> str:
    """Return a run's model card, in Markdown, with the files exported from it."""
    sections = [
        f"# Model card: {run.recipe.title}",
        summary(run),
        "## Model details",
        details(run),
        table(["file", "precision", "size", "SHA-256"], [file.row() for file in files]),
        bullets(f"`{file.path.name}`: {file.checked}." for file in files),
        "## Intended use",
        intended_use(run),
        "## Factors",
        factors(run),
        "## Data and split",
        data(run),
        "## Metrics",
        metrics(run),
        "## Results",
        *results(run),
        "## Calibration",
        calibration(run),
        "## Ethical considerations and limits",
        limits(run),
        "## How to reproduce it",
        reproduction(run),
    ]
    return "\n\n".join(sections) + "\n"


def summary(run: Run) -> str:
    """Summarize task, accuracy and the main caveats."""
    record, clips = run.record, run.record.reported.clips
    low, high = clips.confidence.bounds["accuracy"]
    classes = words(run.recipe.labels, "or")
    lines = [
        f"Predicts {classes} from {run.recipe.num_images} gray images of a face. Accuracy: "
        f"{percent(clips.accuracy)} of {clips.num} {record.reported_on} clips "
        f"(95 % confidence interval {percent(low)} to {percent(high)}).",
    ]
    if record.notice:
        lines.append(f"**Trained and evaluated on {record.notice}.**")
    if record.selected_on == record.reported_on:
        lines.append(
            "**The best epoch was selected on the clips of these scores: on others the model is "
            "probably less accurate.**"
        )
    return "\n\n".join(lines)


def details(run: Run) -> str:
    """Describe the model, its input and output, and its training."""
    record, recipe = run.record, run.recipe
    versions = ", ".join(f"{name} {number}" for name, number in recipe.versions.items())
    with open(REPOSITORY / "LICENSE", encoding="utf-8") as file:
        license_name = file.readline().strip()
    facts = [
        network(run),
        model_input(run),
        f"Output `logits`: (N, {len(recipe.labels)}) float32. Softmax of the logits divided by the "
        f"temperature gives the probabilities of {words(recipe.labels, 'and')}; those of a clip "
        "are the mean over its segments.",
        f"Training: epoch {record.best_epoch} of {record.epochs}, the best on "
        f"{record.selected_on}; seed {record.seed}; versions: {versions}.",
        f"License: {license_name} for the code. The weights are subject to the terms of the clips "
        "that they were trained on, and of the weights that training started from.",
    ]
    return bullets(facts)


def network(run: Run) -> str:
    """Describe the classifier."""
    record = run.record
    if record.backbone is None:
        return "No network: a regularized linear discriminant of the face landmarks."
    images = f"its first convolution takes {record.num_images} images"
    if record.settings["model"].get("fusion") == "late":
        images = f"it takes {record.num_images} images one by one"
    return (
        f"Network: {record.model_title} (`{record.backbone}` of timm), {images}, "
        f"{record.parameters:,} parameters; initial weights: "
        f"{record.pretrained.source.removesuffix('.')}."
    )


def model_input(run: Run) -> str:
    """Describe what the model takes."""
    recipe, settings = run.recipe, run.recipe.settings
    unit = "frames" if settings.by == "frames" else "thirtieths of a second"
    frames = f"every {recipe.interval}th of {settings.segment_frames} {unit}"
    mesh = f"MediaPipe {'refined ' * settings.refine}face mesh"
    made = "`predict.py` makes them of a clip, by the recipe in the file."
    if recipe.inputs == "landmarks":
        return (
            f"Input `landmarks`: (N, {recipe.num_images}, {NUM_POINTS}, 3) float32, the points of "
            f"the {mesh} in {frames}, with level eyes, in units of their distance. {made}"
        )
    return (
        f"Input `stacks`: (N, {recipe.num_images}, {recipe.image_px}, {recipe.image_px}) uint8, "
        f"the face in {frames}, found by the {mesh}, cropped with a margin of "
        f"{percent(settings.margin)}, in gray. {made}"
    )


def intended_use(run: Run) -> str:
    """Describe what the model is for, and what it is not for."""
    return bullets(
        [
            "For: experiments with emotion recognition, and applications in which a wrong answer "
            "costs nothing, such as proposing a label or a cover picture for one's own clip.",
            "Clips like those of its data: one face, close up, from the front, of at least "
            f"{run.recipe.settings.min_frames} frames.",
            "**Not for decisions about people**: not for hiring, schooling, policing, border "
            "control, credit, insurance, health or lie detection, nor to watch anyone who has not "
            "agreed to it. In the European Union, inferring emotions at work and in schools is "
            "forbidden except for medical and safety reasons (Regulation (EU) 2024/1689, "
            "article 5).",
        ]
    )


def factors(run: Run) -> str:
    """Describe who is in the data, as far as it is known."""
    facts = [f"The clips show: {run.recipe.data}."]
    if not run.record.notice:
        facts.append(
            "The data set's config does not state who is in the clips, and whether emotions were "
            f"acted (`conf/data/{run.record.data}.yaml`, `notice`)."
        )
    if not any(part.subjects for part in run.record.parts.values()):
        facts.append("Subjects are unknown: the same person may be in several splits.")
    facts.append(
        "The project records no age, sex, skin color, culture, glasses, beards, light or camera; "
        "how results depend on them is unknown."
    )
    return bullets(facts)


def data(run: Run) -> str:
    """Count the clips and stacks of each class in each split."""
    record = run.record
    rows = [
        [
            split,
            str(len(part.subjects) or "unknown"),
            str(record.clips[split]),
            str(record.stacks[split]),
            *(
                f"{part.clips.get(label, 0)} / {part.stacks.get(label, 0)}"
                for label in run.recipe.labels
            ),
        ]
        for split, part in record.parts.items()
    ]
    settings = dict(record.split.settings)
    if record.split.fold is not None:
        settings["fold"] = record.split.fold
    listed = ", ".join(f"{key}={value}" for key, value in settings.items())
    return (
        f"Data set `{record.data}`, split `{record.split.name}`{f' ({listed})' if listed else ''}. "
        f"Trained on train; epoch and calibration selected on {record.selected_on}; evaluated on "
        f"{record.reported_on}. For each class: clips / stacks (segments of clips).\n\n"
        + table(["split", "subjects", "clips", "stacks", *run.recipe.labels], rows)
    )


def metrics(run: Run) -> str:
    """Define the scores."""
    confidence = run.record.reported.clips.confidence
    return bullets(
        [
            "Accuracy; UAR, the mean of the recalls of all classes, which does not reward "
            "predicting the largest class; macro-F1.",
            "In brackets: 95 % confidence interval, percentile bootstrap over "
            f"{confidence.num_units} {confidence.unit}. It covers the choice of "
            f"{confidence.unit}, not the randomness of training.",
        ]
    )


def results(run: Run) -> list[str]:
    """List the scores, the scores of each class, and the confusion matrix."""
    split, scores, labels = run.record.reported_on, run.record.reported, run.recipe.labels
    clips = scores.clips
    majority = max(map(sum, clips.confusion)) / clips.num
    verdict = f"Always predicting the largest class has an accuracy of {percent(majority)}."
    if clips.confidence.bounds["accuracy"][0] <= majority:
        verdict += " **The model is not shown to be better than that.**"
    by_class = [
        [label, *(percent(column[i]) for column in (clips.precision, clips.recall, clips.f1))]
        for i, label in enumerate(labels)
    ]
    confusion = [
        [label, *map(str, counts)] for label, counts in zip(labels, clips.confusion, strict=True)
    ]
    return [
        f"On {split}:",
        table([split, "number", "accuracy", "UAR", "macro-F1"], score_rows(scores)),
        verdict,
        "Clips by class:",
        table(["class", "precision", "recall", "F1"], by_class),
        "Confusion matrix of clips: rows are true classes, columns predicted ones.",
        table(["", *labels], confusion),
    ]


def score_rows(scores: LevelScores) -> list[list[str]]:
    """Return a row of scores, with their confidence intervals, for stacks and for clips."""
    rows = []
    for level, of_level in (("stacks", scores.stacks), ("clips", scores.clips)):
        cells = [level, str(of_level.num)]
        for key in SCORES:
            low, high = of_level.confidence.bounds[key]
            cells.append(f"{percent(getattr(of_level, key))} [{percent(low)}, {percent(high)}]")
        rows.append(cells)
    return rows


def calibration(run: Run) -> str:
    """Describe the temperature, the confidence threshold, and the calibration error."""
    made = run.record.calibration
    rows, answered = [], []
    for split, of_split in made.splits.items():
        for level, quality in (("stacks", of_split.stacks), ("clips", of_split.clips)):
            ece = (percent(quality.ece.before), percent(quality.ece.after))
            nll = (f"{quality.nll.before:.3f}", f"{quality.nll.after:.3f}")
            rows.append([f"{split}, {level}", str(quality.num), *ece, *nll])
        clips = of_split.clips
        accuracy = f", {percent(clips.accuracy)} of these correctly" if clips.answered else ""
        answered.append(f"{clips.answered} of {clips.num} {split} clips are answered{accuracy}")
    limit = (
        " It is the largest allowed one: on validation stacks the model is not better than chance."
        if made.temperature == TEMPERATURES[1]
        else ""
    )
    if not made.threshold_set:
        rule = (
            f"No clip is called `unsure`: a threshold needs at least {made.min_clips} "
            f"{made.fitted_on} clips"
        )
    elif made.unsure_below == 0:
        rule = "No clip is called `unsure`"
    elif made.unsure_below == 1:
        rule = "Every clip is called `unsure`"
    else:
        rule = f"A clip is `unsure` below a top probability of {percent(made.unsure_below)}"
    return "\n\n".join(
        [
            f"Logits are divided by a temperature of {made.temperature:.4g}, fitted on "
            f"{made.fitted_on}.{limit} Expected calibration error ({made.bins} bins; too high "
            "for few clips) and negative log-likelihood, before and after:",
            table(["on", "number", "ECE", "after", "NLL", "after"], rows),
            f"{rule}; the rule is an accuracy of {percent(made.accuracy)} on answered "
            f"{made.fitted_on} clips: {'; '.join(answered)}.",
            f"Temperature and threshold were fitted on {made.fitted_on}.",
        ]
    )


def limits(run: Run) -> str:
    """List what the model cannot do."""
    facts = [
        "A face shows an expression. What a person feels does not follow from it (Barrett et al., "
        '"Emotional Expressions Reconsidered", 2019).',
        "Actors exaggerate, and synthetic faces are simpler than real ones: on spontaneous "
        "expressions the model is probably less accurate than these numbers.",
        f"It predicts one of {len(run.recipe.labels)} classes for any face, unless it is `unsure`.",
        "A clip without a face gets no prediction; of several people one is followed.",
    ]
    if run.record.selected_on == run.record.reported_on:
        facts.append("There was no test split: the epoch was selected on the clips of the scores.")
    return bullets(facts)


def reproduction(run: Run) -> str:
    """List the commands that train and export the model again."""
    record = run.record
    overrides = [
        re.sub(r"^(\w+)='(\d+)'$", r"\1=\2", each)  # train.py adds such quotes itself
        for each in record.overrides
        if not each.startswith("paths.")
    ]
    if not any(override.startswith("data=") for override in overrides):
        overrides.insert(0, f"data={record.data}")
    commit = record.provenance.commit
    lines = [
        *([f"git checkout {commit}"] if commit else []),
        "make install && source .venv/bin/activate",
        shlex.join(["python", "train.py", *overrides]),
        "pip install -r requirements-onnx.txt",
        "python -m emotion.inference.export RUN_DIR",
    ]
    notes = []
    if not commit:
        notes.append("The commit is unknown: the code was not in a git repository.")
    elif record.provenance.dirty:
        notes.append("The code had uncommitted changes.")
    notes.append(
        "One seed gives one result on one machine; other processors or versions round differently."
    )
    return "```\n" + "\n".join(lines) + "\n```\n\n" + " ".join(notes)


def percent(share: float | None) -> str:
    """Format a share in percent; an undefined score is a dash."""
    return "-" if share is None else f"{100 * share:.1f} %"


def words(terms: Sequence[str], joint: str) -> str:
    """Format a list: `a, b or c`."""
    return f" {joint} ".join(filter(None, [", ".join(terms[:-1]), terms[-1]]))


def bullets(facts: Iterable[str]) -> str:
    """Format a list in Markdown."""
    return "\n".join(f"- {fact}" for fact in facts)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table in Markdown, names to the left and numbers to the right."""
    lines = [headings, [":---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
