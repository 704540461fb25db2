"""Reports on runs whose names were chosen to break pages, tables and terminals."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from emotion.evaluation.predictions import Predictions, Sample
from emotion.reports.report import page_path, write_report
from tests.reports.runs import fail_run, write_run
from tests.reports.test_page import Page

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # as emotion.reports.charts does

SCRIPT = "<script>alert(1)</script>"
HOSTILE = (SCRIPT, r"$\frac$", "=cmd()", "\x1b[31mred", "a|b", "two\nlines", "x" * 200, "快乐" * 20)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    samples = [Sample("test", f"{label}_1", 1, "", label) for label in HOSTILE for _ in "1"]
    predictions = Predictions(HOSTILE, samples, np.eye(len(HOSTILE), dtype=np.float32))
    for name in ("=1", SCRIPT):
        overrides = (f"augmentation={name}",)
        same = {"labels": HOSTILE, "data": SCRIPT, "overrides": overrides}
        number = len(list(folder.iterdir()))
        write_run(
            folder / str(number), predictions, **same, notice=SCRIPT, model=SCRIPT, backbone=SCRIPT
        )
    curves = folder / "0" / "curves"
    curves.mkdir()
    (curves / "metrics.csv").write_text("epoch,val/accuracy,val/loss\n0,0.5,1\n1,0.6,0.9\n")
    fail_run(folder / "2", f"{SCRIPT} \x1b[31m [red]", labels=HOSTILE, data=SCRIPT)
    return folder


def test_no_foreign_text_is_obeyed(sweep: Path, capsys: pytest.CaptureFixture[str]):
    write_report(sweep)
    page = Page(page_path(sweep).read_text())  # refuses script elements, and tags that do not match
    assert page.loads == [] and SCRIPT in page.text
    assert any(SCRIPT in label for label in page.labels)

    written = (sweep / "results.md").read_text()
    assert "\x1b" not in written and "<script" not in written
    tokens = MarkdownIt().enable("table").parse(written)
    widths = [token for token in tokens if token.type == "tr_open"]
    assert widths and not [token for token in tokens if token.type.startswith("html")]

    shown = capsys.readouterr()
    assert "\x1b" not in shown.out and "[red]" in shown.out and shown.err == ""

    with open(sweep / "results.csv", newline="") as file:
        cells = {cell for row in csv.reader(file) for cell in row}
    assert not [cell for cell in cells if cell.startswith("=")] and "'=cmd()" in cells


def test_long_labels_leave_room_for_the_chart(sweep: Path):
    write_report(sweep)
    matrix = re.search(r'<svg class="chart".*?</svg>', page_path(sweep).read_text(), re.DOTALL)[0]
    paths = re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+)', matrix)
    cells = [float(right) - float(left) for left, right in paths[2:]]  # after the backgrounds
    assert len(cells) == len(HOSTILE) ** 2 and min(cells) > 12  # px, of 340 in all
