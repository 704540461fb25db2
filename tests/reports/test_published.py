import numpy as np
import pytest
from sklearn import metrics as independent

from emotion.reports.published import read_published

# Read off the seed's confusion matrices by hand: right ones of 92, interval by interval.
RIGHT = {5: (59, 79, 76), 10: (57, 68, 70), 15: (71, 73, 68)}


def test_matrices_are_those_that_were_published():
    table = read_published()
    assert (table.train_stacks, table.val_stacks) == (464, 92)
    for interval, rights in RIGHT.items():
        entries = [entry for entry in table.entries if entry.interval == interval]
        assert [entry.right for entry in entries] == list(rights)
        for entry in entries:
            assert entry.confusion.sum(axis=1).tolist() == [17, 13, 21, 30, 11]


def test_counted_is_the_accuracy_of_the_matrix():
    for entry in read_published().entries:
        true, said = np.repeat(np.indices((5, 5)).reshape(2, 25), entry.confusion.ravel(), axis=1)
        assert entry.counted == pytest.approx(
            100 * independent.accuracy_score(true, said), abs=5e-3
        )


def test_errata_name_what_is_wrong_and_nothing_else():
    assert read_published().errata() == [
        "interval 15: the table says 5 images, and 90 frames give 6",
        "interval 10, MobileNetV3-Large: the table says 61.69, and its confusion matrix gives "
        "61.96 (57 of 92)",
        "interval 10, EfficientNetV2-S: the table says 76.09, and its confusion matrix gives 73.91 "
        "(68 of 92); 76.09 is what the matrix of EfficientNetV2-M gives",
        "interval 10, EfficientNetV2-M: the table says 73.91, and its confusion matrix gives 76.09 "
        "(70 of 92); 73.91 is what the matrix of EfficientNetV2-S gives",
    ]


def test_margin_is_that_of_a_proportion():
    entry = read_published().entry(5, "mobilenetv3")  # 59 of 92: p = 0.6413
    assert entry.margin == pytest.approx(9.80, abs=0.005)
