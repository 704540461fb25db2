"""Learning curves of a sweep's entries by known clips of the person, computed once and kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from emotion.errors import DamagedFile, UserError
from emotion.evaluation.learning_curve import (
    FEATURES_FILE,
    INNER_FOLDS,
    ClipFeatures,
    CurvePoint,
    learning_curve,
)
from emotion.files import digest, read_sealed, write_sealed
from emotion.reports.results import Entry, Results, SweepRun

KEPT_FILE = "person.json"
MAX_FITS = 200  # of inner folds, for one entry: about 1 s for 10 of them
SUMMARY = (("corrected", (0, 1, 3, 5, 10, 15)), ("balanced", (8,)), ("skewed", (8,)))


class KeptCurves(BaseModel):
    """The curves of the entries of a sweep, by `curve_key`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2] = 2  # counts up when the same features give another curve
    curves: dict[str, tuple[CurvePoint, ...]] = {}


_KEPT = TypeAdapter(KeptCurves)


@dataclass(frozen=True)
class PersonCurve:
    """The learning curve of an entry, or why it has none."""

    points: Sequence[CurvePoint] = ()
    reason: str = ""


def person_curves(results: Results, sweep_dir: Path) -> dict[str, PersonCurve]:
    """Return the curves of the finished entries whose runs have features of people's clips.

    Curves that `person.json` in the sweep's folder does not have are computed and added to it.

    Returns:
        `curve_key` -> curve; entries of unknown subjects are left out.
    """
    path = sweep_dir / KEPT_FILE
    try:
        kept = dict(read_sealed(path, _KEPT).curves)
    except (FileNotFoundError, DamagedFile):  # missing, of another version or damaged
        kept = {}
    entries = [(key, entry) for entry in results.entries if (key := curve_key(entry))]
    curves = {
        key: PersonCurve(kept[key]) if key in kept else compute(entry) for key, entry in entries
    }
    known = {key: tuple(curve.points) for key, curve in curves.items() if curve.points}
    if known and known.keys() != kept.keys():
        write_sealed(path, _KEPT, KeptCurves(curves=known))
    return curves


def curve_runs(entry: Entry) -> list[SweepRun]:
    """Return the runs of an entry's first seed: one for each fold."""
    return [run for run in entry.runs if run.head.seed == entry.seeds[0]]


def curve_key(entry: Entry) -> str | None:
    """Identify the features of an entry by their digest; None if it has none of unseen people."""
    if not entry.is_finished:
        return None
    records = [run.record for run in curve_runs(entry)]
    if any(FEATURES_FILE not in r.files or r.reported_on != "test" for r in records):
        return None
    return digest(" ".join(record.files[FEATURES_FILE] for record in records).encode())


def compute(entry: Entry) -> PersonCurve:
    """Compute the curve of an entry that has a key."""
    runs = curve_runs(entry)
    parts = [run.record.parts for run in runs]
    num_fits = sum(
        min(INNER_FOLDS, len({*part["train"].subjects, *part["val"].subjects})) for part in parts
    )
    if num_fits > MAX_FITS:
        reason = f"{num_fits} models to fit: python -m emotion.reports.personal RUN_DIR ..."
        return PersonCurve(reason=f"not computed for the report, because there are {reason}")
    try:
        for run in runs:
            run.record.check_files(run.folder, FEATURES_FILE)
        points = learning_curve([ClipFeatures.read(run.folder / FEATURES_FILE) for run in runs])
    except UserError as error:  # a damaged file, or a class without a clip
        return PersonCurve(reason=str(error))
    return PersonCurve(points, "" if points else "too few clips of each person")


def accuracy_table(curves: Mapping[str, Sequence[CurvePoint]]) -> tuple[list[str], list[list[str]]]:
    """Tabulate accuracies of curves in percent.

    Args:
        curves: title -> points.

    Returns:
        The headings of those numbers of `SUMMARY` that a curve has, and a row for each title.
    """
    words = {"corrected": "corrected", "balanced": "unknown, balanced", "skewed": "unknown, skewed"}
    found = {
        title: {(point.kind, point.num): point.scores["accuracy"] for point in points}
        for title, points in curves.items()
    }
    known = {key for points in found.values() for key in points}
    keys = [(kind, num) for kind, nums in SUMMARY for num in nums if (kind, num) in known]
    rows = [
        [title, *(f"{100 * points[key]:.1f}" if key in points else "–" for key in keys)]
        for title, points in found.items()
    ]
    return [f"{num} {words[kind]}" for kind, num in keys], rows
