"""predict.py: from the command line to the files."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion.clips.video import Video
from emotion.commands.predict import predict

pytestmark = pytest.mark.slow

CLIP_KEYS = {
    "clip": str, "label": str, "unsure": bool, "probabilities": dict, "num_faces": int,
    "reasons": list, "failed": bool, "fps": float, "num_frames": int, "segments": list,
    "windows": list, "runner_up": str, "why": list,
}  # fmt: skip
SEGMENT_KEYS = {
    "number": int, "start_s": float, "stop_s": float, "num_frames": int, "num_faces": int,
    "face_frames": int, "label": str, "probabilities": dict, "reason": str,
}  # fmt: skip
WINDOW_KEYS = {"start_s": float, "stop_s": float, "label": str, "probabilities": dict}
NULLABLE = {"label", "probabilities", "runner_up"}


@pytest.fixture
def run_predict(monkeypatch, tmp_path, run_dir):
    """Call predict.py's entry in this process; returns the folder of what it has written."""

    def run(*arguments: str) -> Path:
        if not any(argument.startswith("model_path=") for argument in arguments):
            arguments = (f"model_path={run_dir}", *arguments)
        monkeypatch.setattr("sys.argv", ["predict.py", *arguments, f"paths.output={tmp_path}/out"])
        predict()
        (folder,) = (tmp_path / "out" / "predict").iterdir()
        return folder

    return run


@pytest.fixture
def clips(tmp_path, demo_cache, join_clips, write_video) -> Path:
    """A folder with a good clip, a longer one, one without a face, a broken one, and notes."""
    folder = tmp_path / "clips"
    (folder / "sub").mkdir(parents=True)
    happy, sad = (demo_cache.root / name for name in ("Happy_0001.mp4", "Sad_0001.mp4"))
    (folder / "good.mp4").symlink_to(happy)
    join_clips(folder / "sub" / "long.mp4", (happy, 0, 90), (sad, 0, 30))
    write_video(folder / "gray.mp4", [np.full((90, 120, 3), 99, np.uint8)] * 80)
    (folder / "broken.mp4").write_text("no video")
    (folder / "notes.txt").write_text("no clip")
    return folder


def test_stills_are_predicted_and_drawn(run_predict, stills):
    (stills / "Happy" / "beside.mp4").unlink()
    (stills / "Sad" / "broken.jpg").write_text("no picture")
    folder = run_predict(f"clips={stills}", "min_frames=1", "render=true", "num_workers=1")
    lines = lines_of(folder)
    assert len(lines) == 5  # of two folders, of the same four names
    assert lines.pop("broken.jpg")["failed"]
    assert all(line["label"] and line["num_frames"] == 1 for line in lines.values())
    drawn = sorted(p.name for p in (folder / "rendered" / "Happy" / "1-30").iterdir())
    assert drawn == ["annotated.mp4", "blendshapes.png", "cover.jpg", "timeline.png"]
    (picture,) = Video(folder / "rendered" / "Happy" / "1-30" / "annotated.mp4").pictures()
    assert picture.rgb().std() > 10


def lines_of(folder: Path) -> dict[str, dict]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return {Path(line["clip"]).name: line for line in map(json.loads, lines)}


def check_schema(value: dict, keys: dict[str, type]) -> None:
    assert value.keys() == keys.keys()
    for key, kind in keys.items():
        assert isinstance(value[key], kind) or (value[key] is None and key in NULLABLE), key
    assert (value["label"] is None) == (value["probabilities"] is None)
    if value["label"]:
        assert list(value["probabilities"]) == ["Anger", "Happy", "Neutral", "Sad", "Shock"]
        assert sum(value["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert value["label"] == max(value["probabilities"], key=value["probabilities"].get)


def test_a_folder_of_clips(run_predict, clips, capsys):
    folder = run_predict(f"clips={clips}", "num_workers=2", "render=true", "stride=30")
    lines = lines_of(folder)
    assert list(lines) == ["broken.mp4", "good.mp4", "gray.mp4", "long.mp4"]
    for line in lines.values():
        check_schema(line, CLIP_KEYS)
        for segment in line["segments"]:
            check_schema(segment, SEGMENT_KEYS)
        for window in line["windows"]:
            check_schema(window, WINDOW_KEYS)
    assert [line["failed"] for line in lines.values()] == [True, False, False, False]
    assert lines["gray.mp4"]["label"] is None and lines["gray.mp4"]["reasons"]
    assert [s["num_frames"] for s in lines["long.mp4"]["segments"]] == [90, 30]
    assert [w["start_s"] for w in lines["long.mp4"]["windows"]] == [0.0, 1.0]

    with open(folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [(Path(row["clip"]).name, row["level"] + row["segment"]) for row in rows]
    assert numbers == [
        ("broken.mp4", "clip"),
        *(("good.mp4", "clip"), ("good.mp4", "segment1")),
        *(("gray.mp4", "clip"), ("gray.mp4", "segment1")),
        *(("long.mp4", "clip"), ("long.mp4", "segment1"), ("long.mp4", "segment2")),
    ]
    good = lines["good.mp4"]
    assert float(rows[1]["p_Sad"]) == good["probabilities"]["Sad"]
    assert rows[1]["label"] == good["label"] and rows[3]["p_Sad"] == ""

    files = folder.rglob("rendered/**/*.*")
    rendered = {path.relative_to(folder / "rendered").as_posix() for path in files}
    assert rendered == {
        *(f"{clip}/{name}" for clip in ("good", "sub/long")
          for name in ("annotated.mp4", "blendshapes.png", "cover.jpg", "timeline.png")),
        "gray/annotated.mp4", "gray/timeline.png",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "PyTorch 2" in printed and "0.0 to 3.0 s" in printed


def test_a_pattern_and_a_list(run_predict, clips, capsys):
    folder = run_predict(f"clips=[{clips}/g*.mp4,{clips}/good.mp4]", "num_workers=1")
    assert list(lines_of(folder)) == ["good.mp4", "gray.mp4"]
    assert not (folder / "rendered").exists()


def test_the_threshold_is_named_if_answers_are_unsure_or_there_is_none(run_predict, clips, capsys):
    folder = run_predict(f"clips={clips}/good.mp4", "unsure_below=0.99")
    (line,) = lines_of(folder).values()
    assert line["unsure"] is True and line["label"] is not None
    assert "unsure_below=0.99" in capsys.readouterr().out
    shutil.rmtree(folder.parent)
    run_predict(f"clips={clips}/good.mp4")  # whose training has set none
    assert "no confidence threshold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["clips={clips}/broken.mp4"], "no clip could be classified"),
        (["clips={clips}/gray.mp4"], "no clip could be classified"),
        (["clips={clips}/nowhere.mp4"], "clips={clips}/nowhere.mp4"),
        (["clips={clips}/*.mov"], "clips={clips}/*.mov"),
        ([], "clips"),
        (["clips=x", "source=0"], "source"),
        (["model_path=null", "clips=x"], "model_path"),
        (["clips={clips}", "learn=true"], "person=FILE"),
        (["clips={clips}", "person={clips}/none.json"], "person={clips}/none.json"),
        (["model_path={clips}/notes.txt", "clips=x"], "model_path={clips}/notes.txt"),
        (["model_path={clips}", "clips=x"], "model_path={clips}"),
        (["source={clips}/nowhere.mp4"], "source={clips}/nowhere.mp4"),
        (["source=99"], "source=99"),
        (["clips={clips}/good.mp4", "render=true", "stride=7"], "stride"),
    ],
)
def test_a_mistake_ends_in_one_line(run_predict, clips, arguments, key):
    with pytest.raises(SystemExit) as caught:
        run_predict(*(argument.format(clips=clips) for argument in arguments))
    assert str(caught.value.code).startswith("error: ")
    assert key.format(clips=clips) in caught.value.code and "\n" not in caught.value.code


def test_strict_makes_a_broken_clip_an_error_after_the_others(run_predict, clips, tmp_path):
    with pytest.raises(SystemExit, match=r"strict=true.*broken\.mp4"):
        run_predict(f"clips=[{clips}/good.mp4,{clips}/broken.mp4]", "strict=true")
    (folder,) = (tmp_path / "out" / "predict").iterdir()
    assert lines_of(folder)["good.mp4"]["label"] is not None


@pytest.mark.parametrize("realtime", ["false", "true"])
def test_a_clip_is_watched_in_place_of_a_camera(run_predict, clips, capsys, realtime):
    folder = run_predict(
        f"source={clips}/sub/long.mp4", f"realtime={realtime}", "window=false", "render=true"
    )
    lines = [json.loads(line) for line in (folder / "live.jsonl").read_text().splitlines()]
    assert lines and all(0 < line["time_s"] <= 4.1 for line in lines)
    printed = capsys.readouterr().out
    assert all(f"{line['time_s']:.1f} s  {line['label']}" in printed for line in lines)
    pictures = [picture.rgb() for picture in Video(folder / "live.mp4").pictures()]
    assert pictures[0].shape[0] > 480  # with the strip below
    if realtime == "false":  # else a slow machine may drop frames
        assert len(pictures) == 120
        assert [round(line["time_s"], 1) for line in lines] == [2.4, 2.9, 3.4, 3.9]


def test_without_a_display_a_window_is_an_error(run_predict, clips, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match="window=true"):
        run_predict(f"source={clips}/good.mp4")


def test_the_window_shows_the_overlay_until_q(run_predict, clips, monkeypatch):
    shown = []
    monkeypatch.setattr("subprocess.run", lambda *_, **__: type("Done", (), {"returncode": 0}))
    monkeypatch.setattr(cv2, "imshow", lambda _, frame: shown.append(frame))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 20 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    run_predict(f"source={clips}/good.mp4")
    assert len(shown) == 20 and shown[0].shape[0] > 480
