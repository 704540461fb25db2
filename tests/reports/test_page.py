"""The page of a sweep: all that it promises is in it, and a browser shows it as it is meant."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from emotion.evaluation.predictions import Predictions
from emotion.reports.page import render_page
from emotion.reports.report import page_path, write_report
from emotion.reports.results import Results, read_runs

pytestmark = pytest.mark.slow

LABELS = ["Anger", "Happy", "Neutral", "Sad", "Shock"]
MODELS = {
    "mobilenetv3": ("MobileNetV3-Large", 3_468_709, 14.2),
    "effv2s": ("EfficientNetV2-S", 20_839_165, 61.0),
    "effv2m": ("EfficientNetV2-M", 53_520_033, 143.0),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PHONE_PX = 390


def predict(share: float, seed: int, num: int = 120, start: int = 0) -> Predictions:
    """Make predictions of which about a share is right."""
    generator = np.random.default_rng(seed)
    targets = np.arange(num) % 5
    said = np.where(generator.random(num) < share, targets, generator.integers(5, size=num))
    probabilities = np.full((num, 5), 0.1, np.float32)
    probabilities[np.arange(num), said] = 0.6
    clips = [f"{LABELS[target]}_{start + i:04d}" for i, target in enumerate(targets)]
    return Predictions(LABELS, ["test"] * num, clips, [1] * num, [""] * num, targets, probabilities)


def write_run(folder: Path, share: float, *, model="mobilenetv3", interval=5, seed=0, **others):
    """Write what a finished run leaves behind: record, predictions and curves."""
    title, parameters, ms = MODELS[model]
    (folder / "curves").mkdir(parents=True)
    parts = {
        split: {kind: dict.fromkeys(LABELS, n) for kind in ("clips", "stacks")} | {"subjects": []}
        for split, n in (("train", 112), ("val", 24), ("test", 24))
    }  # fmt: skip
    run = {
        "status": "finished", "model": model, "model_title": title, "interval": interval,
        "seed": seed, "num_images": 90 // interval, "parameters": parameters, "labels": LABELS,
        "data": "demo", "split": {"name": "data", "parts": parts}, "notice": "drawn <faces>",
        "overrides": [],
        "stacks": {"train": 560, "val": 120, "test": 120}, "reported_on": "test",
        "selected_on": "val", "pretrained": {"loaded": False, "source": "random weights"},
        "best_epoch": 9, "seconds": 95.0, "cache": str(folder.parent / "cache"),
        "dropped": [{"reason": "no face", "clips": 2, "segments": 1}], "commit": "0123abc",
        "throughput": {"ms_per_stack": ms, "train_stacks_per_s": 31.5}, **others,
    }  # fmt: skip
    predict(share, seed + interval).write(folder / "predictions.csv")
    (folder / "metrics.json").write_text(json.dumps(run))
    lines = ["epoch,step,train/accuracy,train/loss,val/accuracy,val/loss"]
    for epoch in range(12):
        grown = share * (1 - np.exp(-(epoch + 1 + 0.3 * seed) / 4))
        lines.append(f"{epoch},0,,,{grown:.4f},{1.7 * (1 - grown) + 0.1:.4f}")
        lines.append(f"{epoch},0,{1.05 * grown:.4f},{1.6 * (1 - grown):.4f},,")
    (folder / "curves" / "metrics.csv").write_text("\n".join(lines) + "\n")


def fail_run(folder: Path, model: str, interval: int, seed: int = 0) -> None:
    """Write what a run leaves behind that broke off."""
    folder.mkdir(parents=True)
    run = {
        "status": "failed", "error": "OutOfMemoryError: <b>too large</b>", "model": model,
        "model_title": MODELS[model][0], "interval": interval, "seed": seed, "data": "demo",
        "labels": LABELS, "split": {"name": "data"}, "overrides": [],
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(run))


def table_sweep(folder: Path) -> None:
    """Three models at three intervals, two seeds; one cell failed, one was not asked for."""
    shares = iter((0.78, 0.91, 0.9, 0.74, 0.93, 0.88, 0.7, 0.86))
    plan = []
    for interval in (5, 10, 15):
        for model in MODELS:
            if (interval, model) == (10, "effv2m"):
                fail_run(folder / "failed", model, interval)
                plan.append({"folder": "failed", "overrides": []})
            elif (interval, model) != (15, "effv2m"):
                share = next(shares)
                for seed in (0, 1):
                    name = f"{model}_{interval}_{seed}"
                    write_run(folder / name, share, model=model, interval=interval, seed=seed)
                    typed = [f"model={model}", f"interval='{interval}'", f"seed={seed}"]
                    plan.append({"folder": name, "overrides": typed})
    (folder / "sweep.json").write_text(json.dumps(plan))
    (folder / "cache").mkdir()
    (folder / "cache" / "dropped.csv").write_text(
        "clip,reason,detail,segment\n"
        "Sad_0001,no face,0 of 18,0\nSad_0002,no face,0 of 18,0\nSad_0003,no face,3 of 18,2\n"
    )
    (folder / "multirun.yaml").write_text(
        "hydra:\n  overrides:\n    hydra: [hydra.mode=MULTIRUN, hydra/launcher=joblib]\n"
        """    task: ["model=mobilenetv3,effv2s,effv2m", "interval='5','10','15'", "seed=0,1","""
        """ "+n=${hydra:job.num}"]\n"""
    )


def one_run(folder: Path) -> None:
    write_run(folder / "0", 0.8)


def nothing_finished(folder: Path) -> None:
    fail_run(folder / "0", "effv2s", 5)
    fail_run(folder / "1", "effv2s", 10)


def many_protocols(folder: Path) -> None:
    """Other data, folds, and settings of which one has neither curves nor throughput."""
    write_run(folder / "0", 0.8, overrides=["augmentation=none"])
    write_run(folder / "1", 0.7, overrides=["augmentation=seed"], throughput={})
    shutil.rmtree(folder / "1" / "curves")
    write_run(folder / "2", 0.6, data="scrapping", notice=None, model="effv2m")
    nine = {"Sad": 9}
    for fold in range(3):
        parts = {
            split: {"subjects": [f"{fold}{split}"], "clips": {"Sad": 4 + fold}, "stacks": nine}
            for split in ("train", "val", "test")
        }  # fmt: skip
        split = {"name": "kfold", "folds": 3, "fold": fold, "seed": 0, "parts": parts}
        write_run(folder / f"{3 + fold}", 0.9, split=split, seed=0)
        predict(0.9, fold, 40, 200 * fold).write(folder / f"{3 + fold}" / "predictions.csv")


SWEEPS = [table_sweep, one_run, nothing_finished, many_protocols]


def page_of(folder: Path) -> str:
    return render_page(Results(read_runs(folder)), folder)


class Page(HTMLParser):
    """Keeps a page's words, tables, pictures and what it would load."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "source"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.labels: list[str] = []
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
        self.loads += [
            attributes[key]
            for key in ("src", "href", "srcset", "data", "action")
            if attributes.get(key) and not attributes[key].startswith(("#", "data:"))
        ]
        assert name not in ("script", "iframe", "object", "img"), name

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


@pytest.mark.parametrize("sweep", SWEEPS)
def test_page_is_one_whole_file_that_loads_nothing(tmp_path: Path, sweep):
    sweep(tmp_path)
    written = page_of(tmp_path)
    page = Page(written)
    assert page.loads == []
    assert set(re.findall(r"url\((.)", written)) <= {"#"} and "@import" not in written


def test_page_holds_the_results(tmp_path: Path):
    table_sweep(tmp_path)
    results = Results(read_runs(tmp_path))
    page = Page(page_of(tmp_path))
    entry = results.entries[0]
    low, high = entry.confidence["stacks"].bounds["accuracy"]
    shown = page.row("5", "18")
    mean, std = entry.estimate().mean, entry.estimate().std
    assert shown[2] == f"{100 * mean:.2f} ± {100 * std:.2f} [{100 * low:.1f}, {100 * high:.1f}]"
    assert page.row("10", "9")[4] == "failed" and page.row("15", "6")[4] == "-"
    assert "failed: effv2m, interval 10, seed 0: OutOfMemoryError: <b>too large</b>" in page.text
    assert "seed's" not in page.text  # no statement about whose clips they are


def test_page_shows_matrices_classes_curves_and_costs_of_every_entry(tmp_path: Path):
    table_sweep(tmp_path)
    results = Results(read_runs(tmp_path))
    page = Page(page_of(tmp_path))
    for entry in (entry for entry in results.entries if entry.is_finished):
        title = f"{entry.title}, interval {entry.interval}"
        (matrix,) = (label for label in page.labels if label.startswith(f"{title}: confusion"))
        assert f"Anger: {entry.confusion['stacks'][0, 0]} Anger" in matrix
        (classes,) = (label for label in page.labels if label.startswith(f"{title}: scores of"))
        recall = entry.confusion["stacks"][0, 0] / entry.confusion["stacks"][0].sum()
        assert f"Anger recall {100 * recall:.1f} %" in classes
        (learning,) = (label for label in page.labels if label.startswith(f"{title}: learning"))
        assert "12 epochs" in learning and learning.count("best epoch 9") == 2
    for name in ("million parameters", "milliseconds a stack"):
        (cost,) = (label for label in page.labels if label.startswith(f"Accuracy against {name}"))
        assert cost.count("interval") == 7
    assert page.row("EfficientNetV2-S", "5")[3:] == ["20,839,165", "61", "31.5", "3.17"]


def test_page_tells_data_and_the_commands_that_repeat_it(tmp_path: Path):
    table_sweep(tmp_path)
    page = Page(page_of(tmp_path))
    assert page.row("train") == ["train", *["112 112 clips"] * 5, "560 560 clips", "0"]
    assert "no face: 2 clips, 1 segment of other clips" in page.text
    assert "Sad_0003, segment 2 (3 of 18)" in page.text
    assert (
        "python train.py -m model=mobilenetv3,effv2s,effv2m interval=5,10,15 seed=0,1 "
        "'+n=${hydra:job.num}' hydra/launcher=joblib"
    ) in page.text
    assert "python train.py model=effv2s interval=10 seed=1" in page.text
    assert f"python -m emotion.reports {tmp_path}" in page.text
    assert "git checkout 0123abc" in page.text
    assert "Drawn <faces>." in page.text  # escaped, for what a config says is no markup


def test_folds_are_told_as_they_differ(tmp_path: Path):
    many_protocols(tmp_path)
    page = Page(page_of(tmp_path))
    rows = [row for row in page.rows if row and row[0] == "val"]
    assert [" ".join(entry.split()) for entry in rows[-1]] == [
        "val", *["0 0 clips"] * 3, "9 4 to 6 clips", "0 0 clips", "9 4 to 6 clips", "1"
    ]  # fmt: skip
    assert "demo, split kfold (folds=3, seed=0)" in page.text
    assert "augmentation=none" in page.text


def test_nothing_finished_still_makes_a_page(tmp_path: Path):
    nothing_finished(tmp_path)
    page = Page(page_of(tmp_path))
    assert "0 of 2 runs finished" in page.text and page.row("5")[-1] == "failed"
    assert "No entry is finished." in page.text


def test_page_lies_beside_the_sweeps(tmp_path: Path):
    for kind, expected in (
        ("out/sweeps/first", "out/reports/first/index.html"),
        ("out/runs/one", "out/reports/one/index.html"),
        ("elsewhere", "elsewhere/index.html"),
    ):
        one_run(tmp_path / kind)
        write_report(tmp_path / kind)
        assert page_path(tmp_path / kind) == tmp_path / expected
        assert "<title>Sweep" in (tmp_path / expected).read_text()


# In a browser


@pytest.fixture(scope="session")
def browser() -> str:
    """Name a browser of this machine, or skip the test."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    pytest.skip(f"none of {', '.join(BROWSERS)} is here (Debian: apt-get install chromium)")


LOOK = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80));
  const small = [...document.querySelectorAll("svg text")].filter(e => e.getClientRects().length
    && parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.clientWidth
      / e.ownerSVGElement.viewBox.baseVal.width < 9).length;
  const out = [...document.querySelectorAll("svg.chart")].filter(s => { const b = s.getBBox();
    const v = s.viewBox.baseVal; return b.x < -1 || b.y < -1 || b.x + b.width > v.width + 1
      || b.y + b.height > v.height + 1; }).map(s => s.getAttribute("aria-label").slice(0, 60));
  const seen = {width: innerWidth, scroll: document.documentElement.scrollWidth, wide, small, out,
    loaded: performance.getEntriesByType("resource").length,
    charts: [...document.querySelectorAll("svg.chart")].filter(s => s.clientHeight > 99).length,
    broken: [...document.images].filter(i => !i.naturalWidth).length};
  const pre = document.createElement("pre"); pre.id = "seen";
  pre.textContent = JSON.stringify(seen); document.body.append(pre); });</script>"""


def look(browser: str, page: Path, width: int, profile: Path) -> tuple[dict, list[str]]:
    """Open a page; give what a script sees in it, and what the browser's console says."""
    copy = page.with_name("looked-at.html")
    framed = page.read_text().replace("</body>", f"{LOOK}</body>")
    # a window of less than 500 px is more than Chromium's own frame allows; a frame in it is not
    copy.write_text(
        '<!doctype html><body style="margin:0">'
        f'<iframe style="border:0;width:{width}px;height:99px"'
        f' srcdoc="{html.escape(framed)}"></iframe><script>addEventListener("load", () => '
        "setTimeout(() => document.body.append(document.querySelector('iframe').contentDocument"
        ".getElementById('seen')), 0))</script>"
    )
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--no-first-run", f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND",
         "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(html.unescape(found[1])) if found else {}, console


@pytest.mark.parametrize("width", [PHONE_PX, 1280])
@pytest.mark.parametrize("sweep", SWEEPS)
def test_browser_shows_it_whole(tmp_path: Path, browser: str, sweep, width: int):
    sweep(tmp_path)
    write_report(tmp_path)
    seen, console = look(browser, page_path(tmp_path), width, tmp_path / "profile")
    assert console == []
    assert seen["width"] == width and seen["scroll"] <= width, seen
    assert seen["wide"] == [] and seen["small"] == 0 and seen["out"] == [], seen
    assert seen["loaded"] == 0 and seen["broken"] == 0, seen
    assert (seen["charts"] > 0) == (sweep is not nothing_finished)


def test_the_look_itself_sees_what_is_wrong(tmp_path: Path, browser: str):
    page = tmp_path / "index.html"
    page.write_text(
        '<!doctype html><body><p style="width:700px">wide</p><img src="missing.png">'
        "<script>nothing.there()</script></body>"
    )
    seen, console = look(browser, page, PHONE_PX, tmp_path / "profile")
    assert seen["scroll"] >= 700 and len(seen["wide"]) == 1 and seen["broken"] == 1
    assert any("nothing is not defined" in line for line in console)
