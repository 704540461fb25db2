"""Charts: marks lie where the numbers are, and the SVG fits into a page."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from emotion.reports.results import Curve, Estimate


@pytest.fixture(scope="module")
def charts():
    from emotion.reports import charts

    return charts


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_confusion_cells_hold_counts_and_shares_of_the_true_class(charts, axes):
    charts.draw_confusion(axes, ["A", "B"], np.array([[3, 1], [0, 0]]))
    assert texts(axes) == ["3", "1", "0", "0"]
    alphas = [patch.get_alpha() for patch in axes.patches]
    assert alphas[0] > alphas[1] > alphas[2] == alphas[3]  # an absent class has no share
    assert axes.get_ylim() == (1.5, -0.5)  # the first class is at the top


@pytest.fixture
def figures(charts, monkeypatch):
    """Let charts return their figures instead of SVG."""
    monkeypatch.setattr(charts, "to_svg", lambda figure, title, text: figure)


def test_curve_passes_through_its_values_and_marks_the_best_epoch(charts, figures):
    curves = [
        Curve("val", "accuracy", [1, 2, 3, 4], [0.25, 0.5, 0.75, 1.0]),
        Curve("train", "loss", [1, 2], [0.9, 0.8]),
        Curve("val", "uar", [1, 2], [0.1, 0.2]),  # not drawn
    ]
    accuracy, loss = charts.learning_chart([curves], [3], 4, "net").axes
    chance, line, best = accuracy.lines
    assert set(chance.get_ydata()) == {0.25} and loss.lines[0].get_ydata()[0] == np.log(4)
    assert line.get_xydata().tolist() == [[1, 0.25], [2, 0.5], [3, 0.75], [4, 1]]
    assert best.get_xydata().tolist() == [[3, 0.75]]
    assert len(loss.lines) == 2 and loss.lines[1].get_xydata().tolist() == [[1, 0.9], [2, 0.8]]


def test_one_epoch_is_a_dot_and_a_diverging_loss_is_cut_off(charts, figures):
    curves = [Curve("val", "loss", [1], [900.0])]
    _, line, _ = charts.learning_chart([curves], [1], 2, "net").axes[1].lines
    assert line.get_marker() == "o" and line.get_xydata().tolist() == [[1, 2 * np.log(2)]]


def test_bars_are_as_long_as_their_shares(charts, figures):
    (axes,) = charts.class_chart(["A", "B"], [3, 0], [0.5, None], [1.0, 0.0], "net").axes
    assert [bar.get_width() for bar in axes.patches] == [50, 0, 100, 0]
    assert texts(axes) == ["50.0", "undefined", "100.0", "0.0"]


def test_whisker_spans_the_interval_and_equal_costs_do_not_hide_each_other(charts, figures):
    points = [
        charts.Point(3.5, Estimate(0.9, None, 0.8, 0.95), 0, 0, "net 5"),
        charts.Point(3.5, Estimate(0.7, 0.1, None, None), 0, 1, "net 10"),
        charts.Point(35.0, Estimate(0.9, None, 0.8, 0.95), 1, 0, "big 5"),
    ]
    (axes,) = charts.cost_chart(points, "million parameters", "costs").axes
    first, second, third = axes.containers
    (bar,) = first.lines[2][0].get_segments()
    assert bar[:, 1] == pytest.approx([0.8, 0.95])
    assert not second.has_yerr
    places = [container.lines[0].get_xydata()[0] for container in axes.containers]
    assert places[0][0] < places[1][0] < places[2][0]
    assert [y for _, y in places] == pytest.approx([0.9, 0.7, 0.9])
    assert first.lines[0].get_color() != third.lines[0].get_color()
    assert first.lines[0].get_marker() != second.lines[0].get_marker()


def test_svg_follows_the_style_sheet_and_is_readable_without_eyes(charts):
    written = charts.class_chart(["A & B", "C"], [3, 1], [0.5, None], [1.0, 0.0], "net <1>")
    root = ElementTree.fromstring(written)
    assert root.get("role") == "img" and "C recall undefined, F1 0.0" in root.get("aria-label")
    assert "var(--accent)" in written and "url(http" not in written
    assert not [color for color in charts.PALETTE.values() if color in written]
    shown = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "A & B" in shown and "50.0" in shown  # text, not outlines
    assert root.get("width") is None


def test_charts_of_one_page_share_no_ids_and_points_have_tooltips(charts):
    curves = [Curve("val", "accuracy", [1, 2], [0.5, 0.75])]
    pages = [charts.learning_chart([curves], [2], 5, title) for title in ("net 5", "net 10")]
    first, second = (set(re.findall(r' id="([^"]+)"', page)) for page in pages)
    assert first and not first & second
    for page in pages:  # markers are found by browsers, which know `xlink:` only
        assert set(re.findall(r'xlink:href="#([^"]+)"', page)) <= first | second
        assert "<title>best epoch 2: 75.0 %</title>" in page
