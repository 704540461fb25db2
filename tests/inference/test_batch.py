"""Many clips: an error in one does not affect the others."""

import errno
from pathlib import Path

import pytest

from emotion.errors import UserError
from emotion.inference.batch import Predictor, output_names


@pytest.mark.slow  # starts worker processes
def test_a_broken_clip_stops_no_other(run_dir: Path, demo_cache, tmp_path: Path):
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 99)
    clips = [tmp_path / "broken.mp4", demo_cache.root / "Happy_0001.mp4", tmp_path / "nowhere.mp4"]
    answers = dict(Predictor(run_dir / "best.ckpt").predict_all(clips, num_workers=2))
    first, second, third = (answers[clip] for clip in clips)
    assert first.failed and first.reasons
    assert not second.failed and second.label is not None and second.windows == []
    assert third.failed and third.reasons
    assert [answer.clip for answer in (first, second, third)] == list(map(str, clips))
    alone = Predictor(run_dir / "best.ckpt").predict((clips[1], "x"))
    assert alone == second


def test_a_full_disk_stops_all_clips(run_dir, demo_cache, tmp_path: Path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full", "annotated.mp4")

    monkeypatch.setattr("emotion.inference.drawing.render", full)
    predictor = Predictor(run_dir / "best.ckpt", stride=90, rendered=tmp_path)
    with pytest.raises(OSError, match="full"):
        predictor.predict((demo_cache.root / "Happy_0001.mp4", "x"))


def test_a_picture_that_cannot_be_written_fails_its_clip_alone(run_dir, demo_cache, tmp_path: Path):
    (tmp_path / "rendered").write_text("in the way")
    predictor = Predictor(run_dir / "best.ckpt", stride=90, rendered=tmp_path / "rendered")
    answer = predictor.predict((demo_cache.root / "Happy_0001.mp4", "x"))
    assert answer.failed
    assert answer.reasons[0].startswith(("NotADirectoryError", "FileExistsError"))


def test_wrong_settings_are_an_error_for_all(run_dir: Path, demo_cache):
    clips = [demo_cache.root / "Happy_0001.mp4"]
    with pytest.raises(UserError, match="stride"):
        list(Predictor(run_dir / "best.ckpt", stride=7).predict_all(clips, None))
    with pytest.raises(UserError, match="min_frames"):
        list(Predictor(run_dir / "best.ckpt", min_frames=91).predict_all(clips, None))


def test_a_single_clip_is_predicted_in_this_process(run_dir: Path, demo_cache, monkeypatch):
    monkeypatch.setattr("emotion.inference.batch.LocalExecutor", None)
    clip = demo_cache.root / "Happy_0001.mp4"
    ((_, answer),) = Predictor(run_dir / "best.ckpt").predict_all([clip], None)
    assert answer.label is not None and not answer.failed


@pytest.mark.parametrize(
    ("clips", "names"),
    [
        (["a/x.mp4"], ["x"]),
        (["a/x.mp4", "a/y.mov"], ["x", "y"]),
        (["a/x.mp4", "b/c/x.mp4"], ["a/x", "b/c/x"]),
        (["a/x.mp4", "a/x.mov", "a/y.mp4"], ["x.mp4", "x.mov", "y"]),
        (["a/../a/x.mp4", "a/b/x.mp4"], ["x", "b/x"]),
    ],
)
def test_every_clip_has_a_unique_name(clips: list[str], names: list[str]):
    assert output_names([Path(clip) for clip in clips]) == names
