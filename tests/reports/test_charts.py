"""Charts: marks lie where the numbers say, read off the SVG again."""

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from emotion.reports.charts import Axis, Point, class_chart, cost_chart, learning_chart


def parse(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart)


def scale(root: ElementTree.Element, names: dict[str, float]) -> tuple[float, float]:
    """Give (units per value, place of 0) of a vertical axis, from its numbers' places."""
    (low, low_y), (high, high_y) = (
        (value, float(next(t for t in root.iter("text") if t.text == name).get("y")) - 4)
        for name, value in names.items()
    )
    return (high_y - low_y) / (high - low), low_y - low * (high_y - low_y) / (high - low)


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0, 100, 0, 1), [0, 20, 40, 60, 80, 100]),
        (Axis(60, 100, 0, 1), [60, 70, 80, 90, 100]),
        (Axis(1, 2, 0, 1, whole=True), [1, 2]),
        (Axis(1, 50, 0, 1, whole=True), [10, 20, 30, 40, 50]),
        (Axis(2.2, 85, 0, 1, log=True), [5, 10, 20, 50]),
    ],
)
def test_ticks_are_round_numbers(axis, ticks):
    assert axis.ticks == pytest.approx(ticks)


def test_curve_passes_through_its_values():
    curve = [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    root = parse(learning_chart([{"val/accuracy": curve}], [3], 5, "net"))
    (line,) = (e for e in root.iter("polyline") if e.get("class") == "val")
    places = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    per_value, zero = scale(root, {"20": 20, "100": 100})
    assert [y for _, y in places] == pytest.approx(
        [zero + per_value * v for v in (25, 50, 75, 100)]
    )
    steps = [b[0] - a[0] for a, b in pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.11)
    (best,) = (e for e in root.iter("circle") if e.get("class") == "best")
    assert (float(best.get("cx")), float(best.get("cy"))) == places[2]


def test_one_epoch_is_a_dot_and_a_wild_loss_is_cut_off():
    root = parse(learning_chart([{"val/loss": [(1, 900.0)]}], [1], 5, "net"))
    dots = [e for e in root.iter("circle") if e.get("class") == "val"]
    assert len(dots) == 1 and 0 < float(dots[0].get("cy")) < 326


def test_bars_are_as_long_as_their_shares():
    root = parse(class_chart(["A", "B"], [3, 0], [0.5, None], [1.0, 0.0], "net"))
    full = next(float(e.get("width")) for e in root.iter("rect") if e.get("class") == "track")
    widths = {
        kind: [float(e.get("width")) / full for e in root.iter("rect") if e.get("class") == kind]
        for kind in ("recall", "f1")
    }
    assert widths["recall"] == [0.5] and widths["f1"] == [1.0, 0.0]  # undefined has no bar
    assert [e.text for e in root.iter("text")][2:4] == ["50.0", "100.0"]
    assert "B recall undefined, F1 0.0 %" in root.get("aria-label")


def test_whisker_spans_the_confidence_interval_and_equal_costs_do_not_hide_each_other():
    points = [
        Point(3.5, 0.9, 0.8, 0.95, 0, 0, "net 5"),
        Point(3.5, 0.7, None, None, 0, 1, "net 10"),
        Point(35.0, 0.9, 0.8, 0.95, 1, 0, "big 5"),
    ]
    root = parse(cost_chart(points, "million parameters"))
    per_value, zero = scale(root, {"80": 80, "100": 100})
    first, second, third = (e for e in root.iter("g"))
    line = first.find("line")
    ends = sorted((float(line.get("y1")), float(line.get("y2"))))
    assert ends == pytest.approx([zero + per_value * 95, zero + per_value * 80], abs=0.11)
    assert second.find("line") is None
    disc, square, other = first.find("circle"), second.find("rect"), third.find("circle")
    assert float(disc.get("cy")) == pytest.approx(zero + per_value * 90, abs=0.11)
    assert float(disc.get("cx")) < float(square.get("x")) < float(other.get("cx"))
    assert first.get("class") == "point c0" and third.get("class") == "point c1"
