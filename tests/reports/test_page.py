"""The page of a sweep: it holds all results, loads nothing, and a browser shows it whole."""

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from emotion.data.split import PartCounts
from emotion.evaluation.predictions import Predictions, Sample
from emotion.reports.callback import SweepReport
from emotion.reports.report import page_path, write_report
from emotion.reports.results import Results, read_runs
from emotion.stacks.build_report import LostClips, describe_lost
from emotion.training.record import SplitSettings, Throughput
from tests.reports.runs import fail_run, plan, write_run

LABELS = ("Anger", "Happy", "Neutral", "Sad", "Shock")
MODELS = {
    "mobilenetv3": ("mobilenetv3_large_100", 3_468_709, 14.2),
    "effv2s": ("tf_efficientnetv2_s", 20_839_165, 61.0),
    "effv2m": ("tf_efficientnetv2_m", 53_520_033, 143.0),
}
DROPPED = (LostClips("no face", ["gone_0001 (0 of 18)", "gone_0002"], segments=1),)
PHONE_PX = 390


def predict(share: float, seed: int, num: int = 120, start: int = 0) -> Predictions:
    """Make predictions of which about a share is correct."""
    generator = np.random.default_rng(seed)
    targets = np.arange(num) % 5
    predicted = np.where(generator.random(num) < share, targets, generator.integers(5, size=num))
    probabilities = np.full((num, 5), 0.1, np.float32)
    probabilities[np.arange(num), predicted] = 0.6
    samples = [
        Sample("test", f"{LABELS[target]}_{start + i:04d}", 1, "", LABELS[target])
        for i, target in enumerate(targets)
    ]
    return Predictions(LABELS, samples, probabilities)


def write_cell(folder: Path, share: float, *, model="mobilenetv3", interval=5, seed=0, **changes):
    """Write a finished run of five classes, with curves."""
    backbone, parameters, ms = MODELS[model]
    parts = {
        split: PartCounts(
            stacks=dict.fromkeys(LABELS, n), clips=dict.fromkeys(LABELS, n), subjects=()
        )
        for split, n in (("train", 112), ("val", 24), ("test", 24))
    }
    fields = {
        "model": model, "backbone": backbone, "parameters": parameters, "interval": interval,
        "seed": seed, "num_images": 90 // interval, "labels": LABELS, "parts": parts,
        "stacks": {"train": 560, "val": 120, "test": 120}, "dropped": DROPPED,
        "throughput": Throughput(ms_per_stack=ms, train_stacks_per_s=31.5), **changes,
    }  # fmt: skip
    predictions = fields.pop("predictions", None) or predict(share, seed + interval)
    write_run(folder, predictions, **fields)
    lines = ["epoch,step,train/accuracy,train/loss,val/accuracy,val/loss"]
    for epoch in range(12):
        grown = share * (1 - np.exp(-(epoch + 1 + 0.3 * seed) / 4))
        lines.append(f"{epoch},0,,,{grown:.4f},{1.7 * (1 - grown) + 0.1:.4f}")
        lines.append(f"{epoch},0,{1.05 * grown:.4f},{1.6 * (1 - grown):.4f},,")
    (folder / "curves").mkdir()
    (folder / "curves" / "metrics.csv").write_text("\n".join(lines) + "\n")


def table_sweep(folder: Path) -> None:
    """Three models at three intervals, two seeds; one cell failed, one was not asked for."""
    shares = iter((0.78, 0.91, 0.9, 0.74, 0.93, 0.88, 0.7, 0.86))
    cells = {}
    for interval in (5, 10, 15):
        for model, (backbone, *_) in MODELS.items():
            head = {"model": model, "backbone": backbone, "interval": interval, "labels": LABELS}
            if (interval, model) == (10, "effv2m"):
                fail_run(folder / "failed", "OutOfMemoryError: <b>too large</b>", **head)
                cells["failed"] = head
            elif (interval, model) != (15, "effv2m"):
                share = next(shares)
                for seed in (0, 1):
                    name = f"{model}_{interval}_{seed}"
                    write_cell(folder / name, share, model=model, interval=interval, seed=seed)
                    typed = (f"model={model}", f"interval='{interval}'", f"seed={seed}")
                    cells[name] = head | {"seed": seed, "overrides": typed}
    plan(folder, "python train.py -m interval=5,10,15 '+n=${hydra:job.num}'", **cells)


def nothing_finished(folder: Path) -> None:
    fail_run(folder / "0", model="effv2s")
    fail_run(folder / "1", model="effv2s", interval=10)


def many_protocols(folder: Path) -> None:
    """Other data, folds, and settings of which one has no curves."""
    write_cell(folder / "0", 0.8, overrides=("augmentation=none",))
    write_cell(folder / "1", 0.7, overrides=("augmentation=original",))
    shutil.rmtree(folder / "1" / "curves")
    write_cell(folder / "2", 0.6, data="scrapping", notice=None, model="effv2m", dropped=())
    for fold in range(3):
        parts = {
            split: PartCounts(
                subjects=(f"{fold}{split}",), clips={"Sad": 4 + fold}, stacks={"Sad": 9}
            )
            for split in ("train", "val", "test")
        }
        split = SplitSettings(name="kfold", fold=fold, settings={"folds": 3, "seed": 0})
        own = predict(0.9, fold, 40, 200 * fold)
        write_cell(folder / f"{3 + fold}", 0.9, split=split, parts=parts, predictions=own)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the folders of three reported sweeps, by the name of the function that wrote them."""
    folders = {}
    for sweep in (table_sweep, nothing_finished, many_protocols):
        folders[sweep.__name__] = tmp_path_factory.mktemp(sweep.__name__)
        sweep(folders[sweep.__name__])
        write_report(folders[sweep.__name__])
    return folders


@pytest.fixture(scope="module")
def page(sweeps: dict[str, Path]) -> "Page":
    return Page(page_path(sweeps["table_sweep"]).read_text())


class Page(HTMLParser):
    """Keeps a page's words, tables, labels of charts, and what it would load."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "source"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.labels: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.feed(page)
        assert not self.open, self.open  # every element is closed, in the right order

    def handle_starttag(self, name, attributes):
        attributes = dict(attributes)
        if name not in self.VOID:
            self.open.append(name)
        if name == "tr":
            self.rows.append([])
        elif name in ("td", "th"):
            self.rows[-1].append("")
        elif name == "svg" and attributes.get("role") == "img":
            self.labels.append(attributes["aria-label"])
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.note_loads(attributes)
        assert name not in ("script", "iframe", "object", "img", "image"), name

    def handle_startendtag(self, name, attributes):
        self.ids += [value for key, value in attributes if key == "id"]
        self.note_loads(dict(attributes))

    def note_loads(self, attributes: dict[str, str]) -> None:
        self.loads += [
            attributes[key]
            for key in ("src", "href", "xlink:href", "srcset", "data", "action")
            if attributes.get(key) and not attributes[key].startswith(("#", "data:"))
        ]

    def handle_endtag(self, name):
        assert self.open.pop() == name, (name, self.open)

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(" ".join(data.split()))
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data}".strip()

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)

    def row(self, *start: str) -> list[str]:
        """Give the first row that starts so, its entries' words one space apart."""
        rows = [[" ".join(entry.split()) for entry in row] for row in self.rows]
        return next(row for row in rows if row[: len(start)] == list(start))


# Content


def test_page_is_one_file_that_loads_nothing(sweeps: dict[str, Path]):
    for folder in sweeps.values():
        written = page_path(folder).read_text()
        page = Page(written)
        assert page.loads == [] and len(page.ids) == len(set(page.ids))
        assert set(re.findall(r"url\((.)", written)) <= {"#"} and "@import" not in written


def test_page_holds_the_results(page: Page, sweeps: dict[str, Path]):
    results = Results(*read_runs(sweeps["table_sweep"]))
    entry = results.entries[0]
    low, high = entry.levels["stacks"].confidence.bounds["accuracy"]
    assert f"Sweep {sweeps['table_sweep'].name} 14 of 15 runs finished" in page.text
    shown = page.row("5", "18")
    mean, std = entry.estimate().mean, entry.estimate().std
    assert shown[2] == f"{100 * mean:.2f} ± {100 * std:.2f} [{100 * low:.1f}, {100 * high:.1f}]"
    assert page.row("10", "9")[4] == "failed" and page.row("15", "6")[4] == "-"
    assert "failed: EfficientNetV2-M, interval 10, seed 0: OutOfMemoryError: <b>too" in page.text
    for entry in (entry for entry in results.entries if entry.is_finished):
        title = f"{entry.model.title}, interval {entry.interval}"
        (matrix,) = (label for label in page.labels if label.startswith(f"{title}: confusion"))
        assert f"Anger: {entry.levels['stacks'].confusion[0, 0]} Anger" in matrix
        (classes,) = (label for label in page.labels if label.startswith(f"{title}: scores of"))
        recall = entry.levels["stacks"].confusion[0, 0] / entry.levels["stacks"].confusion[0].sum()
        assert f"Anger recall {100 * recall:.1f}," in classes
        (learning,) = (label for label in page.labels if label.startswith(f"{title}: learning"))
        assert "12 epochs" in learning and learning.count("best epoch 9") == 2
    for name in ("million parameters", "milliseconds per stack"):
        (cost,) = (label for label in page.labels if label.startswith(f"Accuracy against {name}"))
        assert cost.count("interval") == 7
    assert page.row("EfficientNetV2-S", "5")[3:] == ["20,839,165", "61", "31.5", "3.17"]


def test_page_has_no_other_tables_and_no_claim_about_the_clips(sweeps: dict[str, Path]):
    page = Page(page_path(sweeps["many_protocols"]).read_text())  # with data=scrapping
    assert "seed's" not in page.text and "64.13" not in page.text and "ublished" not in page.text


def test_page_shows_data_and_the_commands_that_repeat_it(page: Page, sweeps: dict[str, Path]):
    assert page.row("train") == ["train", *["112 112 clips"] * 5, "560 560 clips", "0"]
    assert "python train.py -m interval=5,10,15 '+n=${hydra:job.num}'" in page.text
    assert "python train.py data=demo model=effv2s interval=10 seed=1" in page.text
    assert f"python -m emotion.reports {sweeps['table_sweep']}" in page.text
    assert "git checkout 0123abc" in page.text
    assert "Synthetic <faces>." in page.text  # escaped, since a config holds no markup


def test_folds_are_shown_as_they_differ(sweeps: dict[str, Path]):
    page = Page(page_path(sweeps["many_protocols"]).read_text())
    rows = [row for row in page.rows if row and row[0] == "val"]
    assert [" ".join(entry.split()) for entry in rows[-1]] == [
        "val", *["0 0 clips"] * 3, "9 4 to 6 clips", "0 0 clips", "9 4 to 6 clips", "1"
    ]  # fmt: skip
    assert "demo, split kfold (folds=3, seed=0)" in page.text and "augmentation=none" in page.text


def test_nothing_finished_still_makes_a_page(sweeps: dict[str, Path]):
    page = Page(page_path(sweeps["nothing_finished"]).read_text())
    assert "0 of 2 runs finished" in page.text and page.row("5")[-1] == "failed"


# Lost clips


def test_page_lists_lost_clips_as_preprocess_does(page: Page):
    lines = describe_lost(DROPPED)
    assert len(lines) == 2 and all(line in page.text for line in lines)


# Files and commands


def test_files_hold_the_table(sweeps: dict[str, Path]):
    folder = sweeps["table_sweep"]
    markdown = (folder / "results.md").read_text()
    assert markdown.count("| 10 | 9 |") == 3
    assert markdown.index("accuracy of stacks") < markdown.index("- demo") < markdown.index("UAR")
    picture = cv2.imread(str(folder / "confusion.png"))
    assert min(picture.shape[:2]) > 300 and picture.std() > 10


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("out/sweeps/first", "out/reports/first/index.html"),
        ("out/runs/one", "out/reports/one/index.html"),
        ("elsewhere", "elsewhere/index.html"),
    ],
)
def test_page_is_beside_the_sweeps(tmp_path: Path, folder: str, expected: str):
    assert page_path(tmp_path / folder) == tmp_path / expected


def test_sweep_without_a_report_exits_with_an_error(tmp_path: Path):
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    with pytest.raises(SystemExit, match=str(tmp_path)):
        SweepReport().on_multirun_end(config)


def test_command_line_names_a_folder_without_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from emotion.reports.__main__ import main

    monkeypatch.setattr("sys.argv", ["reports", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"error: .*{tmp_path}"):
        main()


def test_reports_load_neither_networks_nor_what_cuts_clips(sweeps: dict[str, Path]):
    """A report must not need what trains or what builds a cache."""
    code = (
        "import sys; sys.argv = ['reports', sys.argv[1]]\n"
        "from emotion.reports.__main__ import main\n"
        "main()\n"
        "heavy = {'torch', 'mediapipe', 'cv2', 'av', 'pytorch_lightning', 'wandb', 'joblib'}\n"
        "loaded = sorted(heavy & set(sys.modules)); sys.exit(' '.join(loaded) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(sweeps["nothing_finished"])],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


# In a browser


LOOK = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll")
    && !e.closest("svg") && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.outerHTML.slice(0, 80));
  const small = [...document.querySelectorAll("svg text")].filter(e => e.getClientRects().length
    && parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.clientWidth
      / e.ownerSVGElement.viewBox.baseVal.width < 9).length;
  const out = [...document.querySelectorAll("svg.chart")].filter(s =>
    [...s.querySelectorAll("text")].some(t => { const a = t.getBoundingClientRect();
      const b = s.getBoundingClientRect(); return a.left < b.left - 1 || a.top < b.top - 1
        || a.right > b.right + 1 || a.bottom > b.bottom + 1; }))
    .map(s => s.getAttribute("aria-label").slice(0, 60));
  const seen = {width: innerWidth, scroll: document.documentElement.scrollWidth, wide, small, out,
    loaded: performance.getEntriesByType("resource").length,
    charts: [...document.querySelectorAll("svg.chart")].filter(s => s.clientHeight > 99).length};
  const pre = document.createElement("pre"); pre.id = "seen";
  pre.textContent = JSON.stringify(seen); document.body.append(pre); });</script>"""


def look(browser: str, page: str, width: int, folder: Path) -> tuple[dict, list[str]]:
    """Open a page; return what a script measures in it, and the lines of the browser's console."""
    framed = page.replace("</body>", f"{LOOK}</body>")
    frame = folder / f"frame{width}.html"
    # Chromium's own window is at least 500 px wide; a frame inside it may be narrower
    frame.write_text(
        '<!doctype html><body style="margin:0">'
        f'<iframe style="border:0;width:{width}px;height:99px"'
        f' srcdoc="{html.escape(framed)}"></iframe><script>addEventListener("load", () => '
        "setTimeout(() => document.body.append(document.querySelector('iframe').contentDocument"
        ".getElementById('seen')), 0))</script>"
    )
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--no-first-run", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
         "--host-resolver-rules=MAP * ~NOTFOUND", frame.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(html.unescape(found[1])) if found else {}, console


@pytest.mark.slow
def test_browser_shows_pages_whole(sweeps: dict[str, Path], browser: str, tmp_path: Path):
    for name, folder in sweeps.items():
        for width in (PHONE_PX, 1280):
            seen, console = look(browser, page_path(folder).read_text(), width, tmp_path)
            assert console == []
            assert seen["width"] == width and seen["scroll"] <= width, seen
            assert seen["wide"] == [] and seen["small"] == 0 and seen["out"] == [], seen
            assert seen["loaded"] == 0, seen
            assert (seen["charts"] > 0) == (name != "nothing_finished")
    wide = '<!doctype html><body><p style="width:700px">wide</p><script>no()</script></body>'
    seen, console = look(browser, wide, PHONE_PX, tmp_path)  # the test itself finds mistakes
    assert seen["scroll"] >= 700 and len(seen["wide"]) == 1 and len(console) == 1
