"""run ──describe──> a model card: what a model is, how good, for what, and for what not.

In the sections of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. Every number comes
from the run's `metrics.json` and `recipe.json` and from the files that were exported.
"""

import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion import REPOSITORY
from emotion.models.temperature import TEMPERATURES
from emotion.stacks.landmarks import NUM_POINTS
from emotion.training.finished_run import Run

CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class ExportedFile:
    """A file that was exported and has passed its check.

    Attributes:
        path: where it lies.
        precision: `float32` or `int8`.
        checked: what was compared, and what came of it, in words.
    """

    path: Path
    precision: str
    checked: str

    def row(self) -> list[str]:
        """Give its name, precision, size and digest."""
        data = self.path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        return [self.path.name, self.precision, f"{len(data) / 1e6:.1f} MB", f"`{sha256}`"]


def model_card(run: Run, files: Sequence[ExportedFile]) -> str:
    """Write a run's model card.

    Args:
        run: finished.
        files: what was exported of it.

    Returns:
        Markdown.
    """
    sections = [
        f"# Model card: {run.recipe.title}",
        head(run),
        "## Model details",
        details(run),
        table(["file", "precision", "size", "SHA-256"], [file.row() for file in files]),
        "\n".join(f"- `{file.path.name}`: {file.checked}." for file in files),
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


def head(run: Run) -> str:
    """Say in three lines what most people want to know."""
    split, scores = reported(run)
    of_clips = scores["clips"]
    low, high = of_clips["confidence"]["bounds"]["accuracy"]
    lines = [
        f"Tells {words(run.recipe.labels, 'or')} from {run.recipe.num_images} gray pictures of a "
        f"face. Right on {percent(of_clips['accuracy'])} of {of_clips['num']} {split} clips "
        f"(95 % confidence interval {percent(low)} to {percent(high)}).",
    ]
    if run.metrics.get("notice"):
        lines.append(f"**Trained and judged on {run.metrics['notice']}.**")
    if run.metrics["selected_on"] == split:
        lines.append(
            "**The best epoch was selected on the clips that it is reported on; on others it is "
            "probably worse.**"
        )
    return "\n\n".join(lines)


def details(run: Run) -> str:
    """Say what the model is and what made it."""
    made, recipe = run.metrics, run.recipe
    settings = recipe.settings
    unit = "frames" if settings.by == "frames" else "thirtieths of a second"
    facts = [
        network_fact(run),
        f"Input `stacks`: (N, {recipe.num_images}, {recipe.image_px}, {recipe.image_px}) uint8, "
        f"the face in every {recipe.interval}th of {settings.segment_frames} {unit}, found by the "
        f"MediaPipe face mesh, cropped with a margin of {percent(settings.margin)}, in gray. "
        "`predict.py` makes them of a clip, by the recipe in the file.",
        *landmark_facts(run),
        f"Output `logits`: (N, {len(recipe.labels)}) float32. Divided by the temperature, softmax "
        f"makes of them the probabilities of {words(recipe.labels, 'and')}; those of a clip are "
        "the mean over its segments.",
        f"Training: epoch {made['best_epoch']} of {made['epochs']}, the best on "
        f"{made['selected_on']}; seed {made['seed']}; "
        "versions: "
        + ", ".join(f"{name} {number}" for name, number in recipe.versions.items())
        + ".",
        f"Licence: the code's is the {licence()}. The weights have none of their own: the terms "
        "of the clips that they were learned from apply, and of the weights that they started "
        "from.",
    ]
    return bullets(facts)


def network_fact(run: Run) -> str:
    """Say what computes the logits."""
    made, model = run.metrics, run.metrics["settings"]["model"]
    if model["backbone"] is None:
        return "No network: a regularised linear discriminant of the landmarks of the face."
    sees = f"its first convolution over {run.recipe.num_images} images"
    if model.get("fusion") == "late":
        sees = f"{run.recipe.num_images} images seen one by one"
    return (
        f"Network: {made['model_title']} (`{model['backbone']}` of timm), {sees}, "
        f"{made['parameters']:,} parameters; started from "
        f"{made['pretrained']['source'].removesuffix('.')}."
    )


def landmark_facts(run: Run) -> list[str]:
    """Say what landmarks a model takes; nothing if it takes none."""
    recipe = run.recipe
    if recipe.inputs != "landmarks":
        return []
    return [
        f"Input `landmarks`: (N, {recipe.num_images}, {NUM_POINTS}, 3) float32, the points of the "
        f"{'refined ' * recipe.settings.refine}face mesh in the same frames, with level eyes, in "
        "units of the distance between them."
    ]


def intended_use(run: Run) -> str:
    """Say what the model is for, and what it is not for."""
    return bullets(
        [
            "For: experiments with emotion recognition, and applications in which a wrong answer "
            "costs nothing, such as proposing a label or a cover picture for one's own clip.",
            "Clips like those of its data: one face, close up, from the front, of at least "
            f"{run.recipe.settings.min_frames} frames.",
            "**Not for decisions about people**: not for hiring, schooling, policing, border "
            "control, credit, insurance, health or lie detection, nor to watch anyone who has not "
            "agreed to it. In the European Union, inferring emotions at work and in schools is "
            "forbidden but for medical and safety reasons (Regulation (EU) 2024/1689, article 5).",
        ]
    )


def factors(run: Run) -> str:
    """Say who was in the data, as far as that is known."""
    parts = run.metrics["split"]["parts"]
    facts = [f"The clips show: {run.recipe.data}."]
    if not run.metrics.get("notice"):
        facts.append(
            "Who is seen in them, and whether emotions were acted, its config does not say "
            f"(`conf/data/{run.metrics['data']}.yaml`)."
        )
    if not any(part["subjects"] for part in parts.values()):
        facts.append(
            "The people in the clips are not told apart, so that the same person may be in "
            "several splits."
        )
    facts.append(
        "The project records no age, sex, skin colour, culture, glasses, beards, light or camera; "
        "how results differ by them is unknown."
    )
    return bullets(facts)


def data(run: Run) -> str:
    """Show how much of each class is in each split."""
    made = run.metrics
    rows = [
        [
            split,
            str(len(part["subjects"]) or "unknown"),
            str(made["clips"][split]),
            str(made["stacks"][split]),
            *(
                f"{part['clips'].get(label, 0)} / {part['stacks'].get(label, 0)}"
                for label in run.recipe.labels
            ),
        ]
        for split, part in made["split"]["parts"].items()
    ]
    settings = ", ".join(
        f"{key}={value}" for key, value in made["split"].items() if key not in ("name", "parts")
    )
    return (
        f"Data set `{made['data']}`, split `{made['split'].get('name', made['data'])}`"
        + (f" ({settings})" if settings else "")
        + f". Trained on train, the epoch and the "
        "calibration taken from val, reported on "
        f"{made['reported_on']}. Of each class: clips / stacks, which are segments of clips.\n\n"
        + table(["split", "people", "clips", "stacks", *run.recipe.labels], rows)
    )


def metrics(run: Run) -> str:
    """Say what is measured."""
    confidence = reported(run)[1]["clips"]["confidence"]
    return bullets(
        [
            "Accuracy; UAR, the mean of the classes' recalls, which does not reward naming the "
            "largest class; macro-F1.",
            "In brackets: 95 % confidence interval, percentile bootstrap over "
            f"{confidence['num_units']} {confidence['unit']}. It tells what other "
            f"{confidence['unit']} would change, not what training anew would.",
        ]
    )


def results(run: Run) -> list[str]:
    """Show scores, those of each class, and the confusion matrix."""
    split, scores = reported(run)
    labels = run.recipe.labels
    rows = []
    for level, of_level in scores.items():
        bounds = of_level["confidence"]["bounds"]
        rows.append(
            [
                level,
                str(of_level["num"]),
                *(
                    f"{percent(of_level[key])} [{percent(bounds[key][0])}, "
                    f"{percent(bounds[key][1])}]"
                    for key in ("accuracy", "uar", "macro_f1")
                ),
            ]
        )
    of_clips = scores["clips"]
    most = max(map(sum, of_clips["confusion"])) / of_clips["num"]
    verdict = f"Always naming the largest class would be right on {percent(most)} of the clips."
    if of_clips["confidence"]["bounds"]["accuracy"][0] <= most:
        verdict += " **The model is not shown to be better than that.**"
    by_class = [
        [label, *(percent(of_clips[key][i]) for key in ("precision", "recall", "f1"))]
        for i, label in enumerate(labels)
    ]
    confusion = [
        [label, *map(str, counts)]
        for label, counts in zip(labels, of_clips["confusion"], strict=True)
    ]
    return [
        f"On {split}:",
        table([split, "number", "accuracy", "UAR", "macro-F1"], rows),
        verdict,
        "Each class, clips:",
        table(["class", "precision", "recall", "F1"], by_class),
        "Confusion matrix, clips: rows are true, columns predicted.",
        table(["", *labels], confusion),
    ]


def calibration(run: Run) -> str:
    """Say how far probabilities can be believed."""
    facts = run.metrics["calibration"]
    rows = [
        [
            f"{split}, {level}",
            str(of_level["num"]),
            *(percent(of_level["ece"][when]) for when in ("before", "after")),
            *(f"{of_level['nll'][when]:.3f}" for when in ("before", "after")),
        ]
        for split in ("val", "test")
        if split in facts
        for level, of_level in facts[split].items()
    ]
    answered = [
        f"{of['answered']} of {of['num']} {split} clips are answered"
        + (f", {percent(of['accuracy'])} of these rightly" if of["answered"] else "")
        for split in ("val", "test")
        if split in facts
        for of in [facts[split]["clips"]]
    ]
    if facts["unsure_below"] == 0:
        rule = "No clip is called `unsure`"
    elif facts["unsure_below"] == 1:
        rule = "Every clip is called `unsure`"
    else:
        rule = f"A clip is `unsure` below a top probability of {percent(facts['unsure_below'])}"
    limit = (
        " That is as high as it may be: on val the model does no better than guessing."
        if facts["temperature"] == TEMPERATURES[1]
        else ""
    )
    return "\n\n".join(
        [
            f"Logits are divided by a temperature of {facts['temperature']:.4g}, fitted on "
            f"{facts['fitted_on']}.{limit} Expected calibration error ({facts['bins']} bins; few "
            "clips make it too large) and negative log-likelihood, before and after:",
            table(["on", "number", "ECE", "after", "NLL", "after"], rows),
            f"{rule}, which was set on {facts['fitted_on']} clips, asking for "
            f"{percent(facts['accuracy'])} right answers: {'; '.join(answered)}.",
            f"Numbers on {facts['fitted_on']} are those that all of this was fitted to.",
        ]
    )


def limits(run: Run) -> str:
    """Say what nobody should expect of it."""
    facts = [
        "A face shows an expression. What a person feels does not follow from it (Barrett et al., "
        '"Emotional Expressions Reconsidered", 2019).',
        "Actors exaggerate, and drawn faces are simpler than real ones: whoever is filmed in "
        "earnest is probably recognized worse than these numbers say.",
        f"It knows {len(run.recipe.labels)} classes and gives one of them to whatever face it "
        "sees, unless it is `unsure`.",
        "A clip in which no face is found gets no answer; of several people one is followed.",
    ]
    if run.metrics["selected_on"] == run.metrics["reported_on"]:
        facts.append("There was no test split: numbers are of clips that the epoch was chosen by.")
    return bullets(facts)


def reproduction(run: Run) -> str:
    """Give the commands that make it again."""
    made = run.metrics
    overrides = [
        re.sub(r"^(\w+)='(\d+)'$", r"\1=\2", each)  # train.py puts such quotes itself
        for each in made["overrides"]
        if not each.startswith("paths.")
    ]
    if not any(override.startswith("data=") for override in overrides):
        overrides.insert(0, f"data={made['data']}")
    commit = made.get("commit")
    lines = [
        *([f"git checkout {commit}"] if commit else []),
        "make install && source .venv/bin/activate",
        shlex.join(["python", "train.py", *overrides]),
        "pip install -r requirements-onnx.txt",
        "python -m emotion.inference.export RUN_DIR",
    ]
    notes = []
    if not commit:
        notes.append("The commit is not known: the run's code was in no git repository.")
    elif made.get("dirty"):
        notes.append("Its code had changes that are not in that commit.")
    notes.append(
        "One seed gives one result on one machine; another processor or version rounds otherwise."
    )
    return "```\n" + "\n".join(lines) + "\n```\n\n" + " ".join(notes)


def reported(run: Run) -> tuple[str, dict]:
    """Give the split that the run is reported on, and its scores of stacks and clips."""
    split = run.metrics["reported_on"]
    return split, run.metrics["scores"][split]


def percent(share: float | None) -> str:
    """Write a share in percent; a score that is undefined is a dash."""
    return "-" if share is None else f"{100 * share:.1f} %"


def words(terms: Sequence[str], joint: str) -> str:
    """Write a list: `a, b or c`."""
    return f" {joint} ".join(filter(None, [", ".join(terms[:-1]), terms[-1]]))


def bullets(facts: Iterable[str]) -> str:
    """Write a list in Markdown."""
    return "\n".join(f"- {fact}" for fact in facts)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown, with names to the left and numbers to the right."""
    lines = [headings, [":---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def licence() -> str:
    """Name the project's licence by the first line of its file."""
    return (REPOSITORY / "LICENSE").read_text(encoding="utf-8").partition("\n")[0]
