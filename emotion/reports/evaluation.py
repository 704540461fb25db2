"""The files of an evaluation of one model on one labeled data set."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from emotion.escape import for_terminal
from emotion.evaluation.calibration import calibration_error, confidence, mean_nll
from emotion.evaluation.learning_curve import CurvePoint
from emotion.evaluation.metrics import SCORES, Scores, judge
from emotion.evaluation.predictions import PREDICTIONS_FILE, Predictions
from emotion.files import unfinished, write_sealed
from emotion.reports.charts import STYLE, class_chart, confusion_chart, draw_confusion, percent
from emotion.reports.page import template
from emotion.reports.person_curves import accuracy_table
from emotion.reports.personal import curve_chart, curve_grid, curve_table, draw_curve
from emotion.tables import write_table

SCORES_FILE = "scores.json"
MAX_MISTAKES = 20  # on the page


@dataclass(frozen=True)
class Evaluation:
    """What a model answered for the labeled clips of a data set."""

    title: str  # of the model
    trained_on: str
    data: str
    predictions: Predictions  # of the N clips that were classified, calibrated
    unsure: int  # how many of them are below the model's threshold
    accuracy_if_sure: float | None  # of the others; None if there are none
    unanswered: Mapping[str, str]  # id of a clip without an answer -> why
    foreign: Mapping[str, int]  # class that the model lacks -> clips, which were left out
    curve: Sequence[CurvePoint] = ()  # by known clips of the person

    @cached_property
    def scores(self) -> Scores:
        """The scores of the clips that were classified."""
        return judge(self.predictions)

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) int64 counts of clips; rows are the true class."""
        return np.array(self.scores.confusion)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the numbers."""
        scores, lines = self.scores, []
        unit, num = scores.confidence.unit, scores.confidence.num_units
        lines.append(f"in brackets: 95 % confidence intervals, bootstrap over {num} {unit}")
        if self.data in self.trained_on.split():
            lines.append(
                f"the model was trained on clips of {self.data}: if they are among these, the "
                "scores are too high"
            )
        if absent := set(self.predictions.labels) - {s.label for s in self.predictions.samples}:
            names = ", ".join(sorted(absent))
            lines.append(f"no clip is of class {names}: UAR is the mean over the other classes")
        if self.foreign:
            counts = ", ".join(f"{number} of {label}" for label, number in self.foreign.items())
            lines.append(f"clips left out, because the model has no such class: {counts}")
        if self.unanswered:
            lines.append(
                f"clips without an answer, which are not in the scores: {len(self.unanswered)}"
            )
        return lines


@dataclass(frozen=True)
class EvaluationRecord:
    """The content of `scores.json`."""

    model: str
    trained_on: str
    data: str
    labels: tuple[str, ...]  # in the order of the lists in `scores`
    scores: Scores
    ece: float
    nll: float
    unsure: int
    accuracy_if_sure: float | None
    unanswered: dict[str, str]
    foreign: dict[str, int]
    curve: tuple[CurvePoint, ...]


_RECORD = TypeAdapter(EvaluationRecord)


def write_evaluation(evaluation: Evaluation, folder: Path, overrides: Sequence[str]) -> None:
    """Write scores, predictions, pictures and the page of an evaluation, and print the scores.

    Args:
        evaluation: what the model answered.
        folder: gets `scores.json`, `predictions.csv`, `unanswered.csv`, `confusion.png`,
            `index.html`, and with a learning curve `person.md` and `person.png`.
        overrides: of the command that repeats it.
    """
    predictions, curve = evaluation.predictions, evaluation.curve
    predictions.write(folder / PREDICTIONS_FILE)
    rows = ({"clip": clip, "reason": reason} for clip, reason in evaluation.unanswered.items())
    write_table(folder / "unanswered.csv", ["clip", "reason"], rows)
    record = EvaluationRecord(
        model=evaluation.title,
        trained_on=evaluation.trained_on,
        data=evaluation.data,
        labels=predictions.labels,
        scores=evaluation.scores,
        ece=calibration_error(predictions),
        nll=mean_nll(predictions),
        unsure=evaluation.unsure,
        accuracy_if_sure=evaluation.accuracy_if_sure,
        unanswered=dict(evaluation.unanswered),
        foreign=dict(evaluation.foreign),
        curve=tuple(curve),
    )
    write_sealed(folder / SCORES_FILE, _RECORD, record)
    draw_matrix(evaluation, folder / "confusion.png")
    texts = {"index.html": render_evaluation(evaluation, record, overrides)}
    if curve:
        texts["person.md"] = curve_table(curve) + "\n"
        draw_curve(curve, folder / "person.png")
    for name, text in texts.items():
        with unfinished(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    print_scores(evaluation, record, folder)


@matplotlib.rc_context(STYLE)
def draw_matrix(evaluation: Evaluation, path: Path) -> None:
    """Draw the confusion matrix to a picture."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    draw_confusion(axes, evaluation.predictions.labels, evaluation.confusion)
    axes.set(xlabel="predicted", ylabel="true")
    with unfinished(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def render_evaluation(
    evaluation: Evaluation, record: EvaluationRecord, overrides: Sequence[str]
) -> str:
    """Return the page of an evaluation."""
    predictions, scores, curve = evaluation.predictions, evaluation.scores, evaluation.curve
    labels, title = predictions.labels, f"{evaluation.title} on {evaluation.data}"
    top, right = confidence(predictions)
    wrong = [place for place in (-top).argsort(kind="stable").tolist() if not right[place]]
    headings, (row,) = accuracy_table({title: curve})
    return template("evaluation.html").render(
        title=title,
        record=record,
        notes=evaluation.notes,
        scores=score_texts(scores),
        classes=[
            (label, sum(row), *map(percent, values))
            for label, row, *values in zip(
                labels, scores.confusion, scores.precision, scores.recall, scores.f1, strict=True
            )
        ],
        confusion=confusion_chart(labels, evaluation.confusion, title),
        class_chart=class_chart(
            labels, list(map(sum, scores.confusion)), scores.recall, scores.f1, title
        ),
        mistakes=[
            (
                predictions.samples[place].clip,
                predictions.samples[place].label,
                labels[predictions.predicted[place]],
                percent(top[place]),
            )
            for place in wrong[:MAX_MISTAKES]
        ],
        num_wrong=len(wrong),
        person=curve_chart(curve, title) if curve else None,
        person_grid=curve_grid(curve) if curve else None,
        person_headings=headings,
        person_row=row[1:],
        person_kinds=list(dict.fromkeys(point.kind for point in curve)),
        command=shlex.join(["python", "evaluate.py", *overrides]),
    )


def score_texts(scores: Scores) -> list[tuple[str, str, str]]:
    """Return heading, value and interval of each of `SCORES`, in percent."""
    texts = []
    for name, heading in SCORES.items():
        low, high = scores.confidence.bounds[name]
        value = f"{100 * getattr(scores, name):.1f}"
        texts.append((heading, value, f"[{100 * low:.1f}, {100 * high:.1f}]"))
    return texts


def print_scores(evaluation: Evaluation, record: EvaluationRecord, folder: Path) -> None:
    """Print the scores, and where the files are."""
    console, scores = Console(), evaluation.scores
    table = Table("score", "%", "95 % interval", title=f"{scores.num} clips of {evaluation.data}")
    for texts in score_texts(scores):
        table.add_row(*texts)
    table.add_row("calibration error (ECE)", percent(record.ece), "")
    console.print(table)
    if evaluation.accuracy_if_sure is None:
        print("all answers are unsure")
    elif evaluation.unsure:
        share = percent(evaluation.accuracy_if_sure)
        print(f"{evaluation.unsure} answers are unsure; {share} % of the others are right")
    for note in evaluation.notes:
        print(for_terminal(f"- {note}"))
    if evaluation.curve:
        print("accuracy of the others by known clips of the person, %:")
        print(curve_table(evaluation.curve))
    print(for_terminal(f"files: {folder}"))
