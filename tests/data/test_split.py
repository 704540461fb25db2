"""Splits: no subject in two of them, every row in one, stratification, and errors."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from emotion.config import check_config
from emotion.data.split import (
    DataSplit,
    GroupedSplit,
    IdSplit,
    KFold,
    LeaveOneSubjectOut,
    PartCounts,
    Split,
    count_parts,
    split_rows,
    spread,
)
from emotion.errors import UserError
from emotion.stacks.manifest import StackRow

LABELS = ("Anger", "Happy", "Neutral", "Sad", "Shock")


def row(clip: str, label: str = "Sad", subject: str = "", split: str = "train", segment: int = 1):
    stack = f"stacks/{clip}_{segment:04d}.tiff"
    digests = ("", "", "")
    return StackRow(
        stack, clip, segment, label, subject, split, 90, 1, "1" * 18, 18, 18, 30.0, *digests
    )


def rows_of(counts: np.ndarray, known: bool = True) -> list[StackRow]:
    """Make clips, of one stack each, from (subjects, classes) counts."""
    return [
        row(f"{person}-{label}-{number}", label, f"s{person:02d}" if known else "")
        for person, of_classes in enumerate(counts)
        for label, count in zip(LABELS, of_classes, strict=False)
        for number in range(count)
    ]


def random_rows(generator: np.random.Generator) -> list[StackRow]:
    """Draw a manifest of 6 to 12 subjects (all, some or none known), 1 to 3 stacks a clip."""
    known = generator.choice([0.0, 0.7, 1.0])
    rows = []
    for person in range(generator.integers(6, 13)):
        subject = f"s{person}" if generator.random() < known else ""
        for number in range(generator.integers(1, 12)):
            label = str(generator.choice(LABELS[: generator.integers(2, 6)]))
            for segment in range(1, generator.integers(2, 5)):
                rows.append(row(f"{person}/{number}", label, subject, segment=segment))
    generator.shuffle(rows)
    return rows


def folds_of(rows: Sequence[StackRow], seed: int) -> Iterator[list[StackRow]]:
    for fold in range(4):
        yield split_rows(rows, KFold("kfold", folds=4, fold=fold, seed=seed), None)


def cost(counts: np.ndarray, parts: np.ndarray, shares: Sequence[float]) -> float:
    """Compute the cost that `assign_groups` documents, by loops."""
    total = 0.0
    for part, share in enumerate(shares):
        for label in range(counts.shape[1]):
            wanted = share * sum(counts[:, label])
            have = sum(counts[g, label] for g in range(len(counts)) if parts[g] == part)
            total += (have - wanted) ** 2 / wanted
    return total


# No leaks


@pytest.mark.parametrize("draw", range(40))
def test_no_split_separates_subjects_or_clips(draw: int):
    generator = np.random.default_rng(draw)
    rows = random_rows(generator)
    splits: list[Split] = [
        GroupedSplit("grouped", seed=draw),
        GroupedSplit("grouped", train=0.5, val=0.5, test=0, seed=draw),
        *(KFold("kfold", folds=5, fold=fold, seed=draw) for fold in range(5)),
    ]
    if all(r.subject for r in rows):
        splits += [LeaveOneSubjectOut("leave_one_subject_out", fold=fold) for fold in range(6)]
    for split in splits:
        done = split_rows(rows, split, None)
        assert [r.stack for r in done] == [r.stack for r in rows]  # every row once, in order
        where: dict[str, set[str]] = {}
        for r in done:
            assert r.split in ("train", "val", "test")
            where.setdefault(f"clip {r.clip}", set()).add(r.split)
            if r.subject:
                where.setdefault(f"subject {r.subject}", set()).add(r.split)
        assert all(len(places) == 1 for places in where.values())
        expected = {"train", "val"} if getattr(split, "test", 1) == 0 else {"train", "val", "test"}
        assert {r.split for r in done} == expected


@pytest.mark.parametrize("draw", range(20))
def test_every_row_is_test_once_and_val_once_over_the_folds(draw: int):
    rows = random_rows(np.random.default_rng(draw))
    tested, validated = Counter(), Counter()
    for done in folds_of(rows, seed=draw):
        tested.update(r.stack for r in done if r.split == "test")
        validated.update(r.stack for r in done if r.split == "val")
    once = Counter(r.stack for r in rows)
    assert tested == validated == once


def test_every_subject_is_test_once():
    rows = rows_of(np.full((6, 5), 3))
    left_out = []
    for fold in range(6):
        done = split_rows(rows, LeaveOneSubjectOut("leave_one_subject_out", fold=fold), None)
        (test,) = {r.subject for r in done if r.split == "test"}
        (val,) = {r.subject for r in done if r.split == "val"}
        assert val == f"s{(fold + 1) % 6:02d}"
        assert {r.subject for r in done if r.split == "train"} == {
            f"s{n:02d}" for n in range(6)
        } - {test, val}
        left_out.append(test)
    assert left_out == ["s00", "s01", "s02", "s03", "s04", "s05"]


def test_val_subjects_sets_the_number_of_val_subjects():
    split = LeaveOneSubjectOut("leave_one_subject_out", fold=5, val_subjects=2)
    done = split_rows(rows_of(np.full((6, 5), 1)), split, None)
    assert {r.subject for r in done if r.split == "val"} == {"s00", "s01"}


# Seeds


def test_a_seed_gives_the_same_split_for_any_order_of_rows():
    rows = rows_of(np.random.default_rng(3).integers(1, 6, size=(20, 5)))
    for make in (
        lambda seed: GroupedSplit("grouped", seed=seed),
        lambda seed: KFold("kfold", seed=seed),
    ):
        first = {r.stack: r.split for r in split_rows(rows, make(7), None)}
        again = {r.stack: r.split for r in split_rows(rows[::-1], make(7), None)}
        others = [{r.stack: r.split for r in split_rows(rows, make(s), None)} for s in range(4)]
        assert first == again
        assert all(one != other for one, other in itertools.combinations(others, 2))


# Proportions


@pytest.mark.parametrize("draw", range(30))
def test_classes_are_stratified_nearly_optimally(draw: int):
    """The result is in the best 2 % of all ways to put 4 to 8 subjects into three parts."""
    generator = np.random.default_rng(draw)
    counts = generator.poisson(6, size=(generator.integers(4, 9), 3)) + 1
    shares = (0.7, 0.15, 0.15) if draw % 2 else (0.4, 0.4, 0.2)
    every = [cost(counts, np.array(parts), shares) for parts in all_parts(len(counts))]
    done = split_rows(rows_of(counts), GroupedSplit("grouped", *shares, seed=draw), None)
    part_of = {r.subject: ("train", "val", "test").index(r.split) for r in done}
    ours = cost(counts, np.array([part_of[f"s{g:02d}"] for g in range(len(counts))]), shares)
    assert min(every) - 1e-9 <= ours
    assert sum(other < ours - 1e-9 for other in every) <= 0.02 * len(every)


def all_parts(groups: int) -> Iterator[tuple[int, ...]]:
    return (p for p in itertools.product(range(3), repeat=groups) if len(set(p)) == 3)


@pytest.mark.parametrize("draw", range(10))
def test_folds_are_at_least_as_even_as_scikit_learns(draw: int):
    generator = np.random.default_rng(draw)
    counts = generator.integers(2, 12, size=(24, 5))
    rows = rows_of(counts)
    ours = np.empty(24, dtype=int)
    for fold in range(5):
        for r in split_rows(rows, KFold("kfold", fold=fold, seed=draw), None):
            if r.split == "test":
                ours[int(r.subject[1:])] = fold
    theirs = np.empty(24, dtype=int)
    labels, subjects = [r.label for r in rows], [r.subject for r in rows]
    library = StratifiedGroupKFold(5, shuffle=True, random_state=draw)
    for fold, (_, test) in enumerate(library.split(rows, labels, subjects)):
        for index in test:
            theirs[int(subjects[index][1:])] = fold
    assert cost(counts, ours, [0.2] * 5) <= cost(counts, theirs, [0.2] * 5)


def test_clips_of_unknown_subjects_have_exact_shares():
    rows = rows_of(np.array([[40, 20, 60, 100, 20]]), known=False)
    done = split_rows(rows, GroupedSplit("grouped"), None)
    counts = Counter((r.label, r.split) for r in done)
    for label, total in zip(LABELS, (40, 20, 60, 100, 20), strict=True):
        found = [counts[label, split] for split in ("train", "val", "test")]
        assert np.abs(np.array(found) - total * np.array([0.7, 0.15, 0.15])).max() <= 0.51


def test_thousands_of_stills_have_exact_shares():
    counts = {"Neutral": 1500, "Happy": 1500, "Shock": 368, "Sad": 268, "Anger": 252}
    rows = [row(f"{label}/{n}", label) for label, count in counts.items() for n in range(count)]
    split = split_rows(rows, GroupedSplit("grouped"), None)
    for name, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        found = Counter(each.label for each in split if each.split == name)
        for label, count in counts.items():
            assert found[label] == pytest.approx(share * count, abs=1)


def test_shares_count_clips_not_stacks():
    """Shares count clips; if they counted stacks, one clip of 30 stacks would fill train."""
    rows = [row("long", segment=s) for s in range(1, 31)] + [row(f"c{n}") for n in range(19)]
    done = split_rows(rows, GroupedSplit("grouped"), None)
    clips = Counter(split for _, split in {(r.clip, r.split) for r in done})
    assert clips == {"train": 14, "val": 3, "test": 3}


def test_a_small_share_gets_at_least_one_subject():
    rows = rows_of(np.full((3, 5), 10))
    done = split_rows(rows, GroupedSplit("grouped", train=0.98, val=0.01, test=0.01), None)
    assert {split: part.clips["Sad"] for split, part in count_parts(done).items()} == {
        "train": 10,
        "val": 10,
        "test": 10,
    }


# Splits of data sets


def test_the_split_of_the_data_set_is_kept():
    rows = [row("a", split="val"), row("b", split="test"), row("c")]
    assert split_rows(rows, DataSplit(), None) == rows


def test_ids_split_equals_the_seed_projects():
    names = [f"{label}_{n:04d}" for label in LABELS for n in range(1, 31)]
    rows = [row(name, name.split("_")[0], split="test") for name in names]
    split = IdSplit("ids", val=["0016-0020"])
    done = split_rows(rows, split, r"(?P<label>[A-Z][a-z]+)_(?P<id>\d+)")
    assert [r.clip for r in done if r.split == "val"] == [
        f"{label}_{n:04d}" for label in LABELS for n in (16, 17, 18, 19, 20)
    ]
    assert {r.split for r in done} == {"train", "val"}


def test_ids_split_by_another_group_or_the_subject():
    rows = [row("01-a", subject="ann"), row("02-b", subject="bea"), row("03-c", subject="cleo")]
    pattern = r"(?P<id>\d\d)-(?P<label>\w)"
    by_label = split_rows(rows, IdSplit("ids", by="label", val=["b"], test=["c"]), pattern)
    by_subject = split_rows(rows, IdSplit("ids", by="subject", val=["bea"], test=["cleo"]), None)
    by_id = split_rows(rows, IdSplit("ids", val=["02-b"], test=["03-c"]), None)  # of a list
    for done in (by_label, by_subject, by_id):
        assert [r.split for r in done] == ["train", "val", "test"]


# Errors name the key and the remedy


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["split=kfold", "split.folds=2"], "folds"),
        (["split=kfold", "split.fold=5"], "fold"),
        (["split=kfold", "split.seed=-1"], "seed"),
        (["split=grouped", "split.val=0.5"], "val"),
        (["split=grouped", "split.val=0"], "val"),
        (["split=grouped", "split.test=-0.1"], "test"),
        (["split=ids", "split.val=[16]"], "val"),
        (["split=leave_one_subject_out", "split.val_subjects=0"], "val_subjects"),
    ],
)
def test_settings_out_of_range_are_refused(compose: Callable, overrides: list, key: str):
    with pytest.raises(UserError, match=rf"split\.{key}\b"):
        check_config("train", compose("train", overrides))


FOUR = rows_of(np.full((4, 2), 2))


@pytest.mark.parametrize(
    ("split", "rows", "message"),
    [
        (KFold("kfold"), FOUR, r"split\.folds .* 4, .* got 5"),
        (KFold("kfold"), rows_of(np.full((1, 2), 2), False), r"split\.folds .* 4, .* got 5"),
        (
            KFold("kfold", folds=9),
            [*FOUR, row("x")],
            r"split\.folds .* 5, .* got 9",
        ),
        (
            GroupedSplit("grouped"),
            rows_of(np.full((2, 2), 2)),
            r"split=grouped .* 3 .* got 2",
        ),
        (
            LeaveOneSubjectOut("leave_one_subject_out", fold=4),
            FOUR,
            r"split\.fold .* 4, .* \(s00, s01, s02, s03\), got 4",
        ),
        (
            LeaveOneSubjectOut("leave_one_subject_out", val_subjects=3),
            FOUR,
            r"split=leave_one_subject_out .*split\.val_subjects=3 .* 5 .* got 4",
        ),
        (
            LeaveOneSubjectOut("leave_one_subject_out"),
            [*FOUR, row("x"), row("y")],
            r"split=leave_one_subject_out .* 2 .*\bx\b.*split=kfold",
        ),
        (IdSplit("ids", val=["7"]), FOUR, r"split=ids .* val .*split=grouped"),
        (IdSplit("ids", by="actor"), FOUR, r"split\.by .* id, subject .*'actor'"),
    ],
)
def test_a_split_that_does_not_fit_the_rows_is_refused(split: Split, rows: list, message: str):
    with pytest.raises(UserError, match=message) as refusal:
        split_rows(rows, split, None)
    assert "\n" not in str(refusal.value)


def test_errors_name_leaked_subjects_and_clips():
    people = [
        row("a", subject="ann"),
        row("b", subject="ann", split="val"),
        row("c", subject="bea", split="val"),
        row("d", subject="cleo", split="test"),
        row("e", subject="cleo", split="val"),
    ]
    with pytest.raises(UserError, match=r"^data\.split .*subject") as refusal:
        split_rows(people, DataSplit(), None)
    assert "ann in train and val; cleo in test and val;" in str(refusal.value)
    assert "bea" not in str(refusal.value) and "split=grouped" in str(refusal.value)

    clips = [row("a"), row("a", split="val", segment=2), row("b", split="val")]
    with pytest.raises(UserError, match=r"clip .*: a in train and val"):
        split_rows(clips, DataSplit(), None)

    by_sentence = [row("s1-x", subject="ann"), row("s2-y", subject="ann")]
    with pytest.raises(UserError, match=r"split=ids .*: ann in train and val"):
        split_rows(by_sentence, IdSplit("ids", val=["s2"]), r"(?P<id>s\d)-(?P<label>.)")


def test_a_class_missing_from_a_split_is_logged(caplog: pytest.LogCaptureFixture):
    counts = np.full((5, 5), 2)
    counts[1:, 4] = 0  # only one subject has clips of Shock
    for split in (KFold("kfold"), GroupedSplit("grouped")):
        caplog.clear()
        split_rows(rows_of(counts), split, None)
        warned = [r.message for r in caplog.records]
        assert len(warned) == 2 and all("no clip of Shock is in" in line for line in warned)
    caplog.clear()
    split_rows(rows_of(np.full((5, 5), 2)), KFold("kfold"), None)
    assert not caplog.records


# Counts


def test_count_parts():
    rows = [
        row("a", "Sad", "ann"), row("a", "Sad", "ann", segment=2), row("b", "Happy", "ann"),
        row("c", "Happy", "bea", "val"), row("d", "Sad", "", "val"),
    ]  # fmt: skip
    once = {"Happy": 1, "Sad": 1}
    none = {"Happy": 0, "Sad": 0}
    assert count_parts(rows) == {
        "train": PartCounts(("ann",), once, {"Happy": 1, "Sad": 2}),
        "val": PartCounts(("bea",), once, once),
        "test": PartCounts((), none, none),
    }


def test_spread_takes_evenly_spaced_rows():
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread(range(3), 4) == [0, 1, 2]
    assert spread(range(100), 1) == [0]
