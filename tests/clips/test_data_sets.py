"""The data sets of conf/data: published names, excluded labels, data=csv and data=mine."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from emotion.clips.demo.render import Format, write_clip
from emotion.clips.find import find_clips
from emotion.clips.naming import Clip, Dropped, Scheme

SMALL = Format(num_frames=12, size_px=160)
SHORT = ["data.min_frames=10", "sampling.segment_frames=10"]  # two images per stack


@pytest.fixture(scope="module")
def scheme_of(compose: Callable) -> Callable[[str], Scheme]:
    """Give a function that returns the scheme of a data set, composed once."""
    schemes: dict[str, Scheme] = {}

    def scheme(data: str) -> Scheme:
        if data not in schemes:
            cfg = compose("preprocess", [f"data={data}", "data.root=/clips"])
            schemes[data] = Scheme.from_config(cfg.data)
        return schemes[data]

    return scheme


@pytest.fixture
def preprocess(
    compose: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable:
    """Give a function that runs preprocess.py in this process and returns the cache."""

    def run(*overrides: str):  # -> Cache
        from emotion.commands.preprocess import preprocess as main
        from emotion.stacks.cache import Cache

        paths = [f"paths.cache={tmp_path}/cache", f"paths.output={tmp_path}/outputs"]
        overrides = [*overrides, *paths, *SHORT, "num_workers=1"]
        monkeypatch.setattr("sys.argv", ["preprocess.py", *overrides])
        main()
        return Cache.from_config(compose("preprocess", overrides))

    return run


# Names as published on Zenodo (record 1188976) and in CheyneyComputerScience/CREMA-D on GitHub.
# Those of MEAD, AFEW and DFEW, whose owners publish no listing, are from published code.


@pytest.mark.parametrize(
    ("data", "name", "label", "subject", "split"),
    [
        ("ravdess", "Actor_01/01-01-01-01-01-01-01.mp4", "Neutral", "01", "train"),
        ("ravdess", "Video_Speech_Actor_16/01-01-03-02-02-01-16.mp4", "Happy", "16", "train"),
        ("ravdess", "01-01-04-02-01-02-17.mp4", "Sad", "17", "val"),
        ("ravdess", "Actor_20/01-01-05-01-02-02-20.mp4", "Anger", "20", "val"),
        ("ravdess", "Actor_21/01-01-08-02-02-02-21.mp4", "Shock", "21", "test"),
        ("cremad", "VideoFlash/1001_DFA_ANG_XX.flv", "Anger", "1001", "train"),
        ("cremad", "1001_IEO_HAP_HI.flv", "Happy", "1001", "train"),
        ("cremad", "VideoFlash/1040_ITH_SAD_XX.flv", "Sad", "1040", "train"),
        ("cremad", "1002_DFA_NEU_XX.flv", "Neutral", "1002", "train"),
        ("cremad", "1056_IEO_SAD_LO.flv", "Sad", "1056", "val"),
        ("cremad", "1076_IEO_ANG_MD.flv", "Anger", "1076", "test"),
        ("mead", "M007/video/front/neutral/level_1/029.mp4", "Neutral", "M007", "train"),
        ("mead", "MEAD/M031/video/front/surprised/level_3/003.mp4", "Shock", "M031", "train"),
        ("mead", "W011/video/front/happy/level_3/024.mp4", "Happy", "W011", "train"),
        ("mead", "W037/video/front/sad/level_3/021.mp4", "Sad", "W037", "val"),
        ("mead", "W009/video/front/sad/level_3/021.mp4", "Sad", "W009", "test"),
        ("mead", "M003/video/front/angry/level_1/001.mp4", "Anger", "M003", "test"),
        ("folders", "Train_AFEW/Angry/000223480.avi", "Anger", "", "train"),
        ("folders", "Val_AFEW/Angry/005150814.avi", "Anger", "", "val"),
        ("folders", "train/Surprise/02522.mp4", "Shock", "", "train"),
        ("folders", "val/Surprise/02536.mp4", "Shock", "", "val"),
        ("folders", "test/Neutral/1.mp4", "Neutral", "", "test"),
        ("folders", "Happy/1.mp4", "Happy", "", "train"),
        ("stills", "train/angry/Training_3908.jpg", "Anger", "", "train"),
        ("stills", "test/surprise/PublicTest_9987.jpg", "Shock", "", "test"),
        ("stills", "validation/sad/1.jpg", "Sad", "", "val"),
        ("stills", "Val/happiness/test_0001_aligned.png", "Happy", "", "val"),
        ("stills", "neutral/1.2.webp", "Neutral", "", "train"),
        ("stills", "Shock/00001.jpg", "Shock", "", "train"),
        ("stills", "sadness/S011_005_00000020.png", "Sad", "S011", "train"),
    ],
)  # fmt: skip
def test_published_name_gives_class_subject_and_split(
    scheme_of: Callable, data: str, name: str, label: str, subject: str, split: str
):
    path = Path("/clips", name)
    clip_id = name.rpartition(".")[0]
    assert scheme_of(data).read(path, Path("/clips")) == Clip(path, clip_id, label, subject, split)


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        ("ravdess", "Actor_12/01-01-06-01-02-01-12.mp4", "label 06 is left out by data.label_map"),
        ("ravdess", "Actor_12/01-01-07-01-02-01-12.mp4", "label 07 is left out by data.label_map"),
        ("ravdess", "Actor_12/01-01-02-01-02-01-12.mp4", "label 02 is left out by data.label_map"),
        ("ravdess", "Actor_12/02-01-06-01-02-01-12.mp4", "data.pattern"),  # without sound
        ("ravdess", "Actor_12/01-02-03-01-02-01-12.mp4", "data.pattern"),  # song
        ("cremad", "VideoFlash/1001_DFA_DIS_XX.flv", "label DIS is left out by data.label_map"),
        ("cremad", "VideoFlash/1001_IEO_FEA_HI.flv", "label FEA is left out by data.label_map"),
        (
            "mead",
            "M012/video/front/disgusted/level_2/027.mp4",
            "label disgusted is left out by data.label_map",
        ),
        (
            "mead",
            "M012/video/front/contempt/level_2/027.mp4",
            "label contempt is left out by data.label_map",
        ),
        (
            "mead",
            "M012/video/front/fear/level_2/027.mp4",
            "label fear is left out by data.label_map",
        ),
        ("mead", "M012/video/left_30/angry/level_2/027.mp4", "data.pattern"),
        ("folders", "train/Disgust/02578.mp4", "label Disgust is left out by data.label_map"),
        ("folders", "Val_AFEW/Fear/000223480.avi", "label Fear is left out by data.label_map"),
        ("folders", "Test_AFEW/000223480.avi", "data.labels"),
        ("folders", "holiday/Angry/1.avi", "data.pattern"),
        ("stills", "train/disgust/Training_1.jpg", "label disgust is left out by data.label_map"),
        ("stills", "fear/1.jpg", "label fear is left out by data.label_map"),
        (
            "stills",
            "contempt/S138_008_00000009.png",
            "label contempt is left out by data.label_map",
        ),
        ("stills", "train/7/1.jpg", "data.labels"),
        ("stills", "1.jpg", "data.pattern"),
    ],
)
def test_other_names_and_labels_are_dropped_by_key(
    scheme_of: Callable, data: str, name: str, reason: str
):
    read = scheme_of(data).read(Path("/clips", name), Path("/clips"))
    assert isinstance(read, Dropped) and reason in read.reason


SEXES = {  # F and M, from actor 1001 on, as in CREMA-D's VideoDemographics.csv
    "cremad": "MFFFMFFFFFMFFMMMMFMFFMMFFMMFFFMMMMMMFMMMMMFMMF"
    "FMFMMFFFFFMFMFFMFMMMMMMMMFFFFFMFFMMFMFMMMMFMF",
    "ravdess": "MF" * 12,  # by its naming: odd actors are men
}


@pytest.mark.parametrize(("data", "first", "digits"), [("cremad", 1001, 4), ("ravdess", 1, 2)])
def test_half_of_each_held_out_split_are_women(
    scheme_of: Callable, data: str, first: int, digits: int
):
    names = {
        "cremad": "{}_DFA_ANG_XX.flv",
        "ravdess": "01-01-03-01-01-01-{}.mp4",
    }
    found = {"train": "", "val": "", "test": ""}
    for actor, sex in enumerate(SEXES[data], first):
        path = Path("/clips", names[data].format(f"{actor:0{digits}d}"))
        found[scheme_of(data).read(path, Path("/clips")).split] += sex
    for split in ("val", "test"):
        assert found[split].count("F") == found[split].count("M") >= 2


def test_stills_need_one_frame(compose: Callable):
    data = compose("preprocess", ["data=stills", "data.root=/stills"]).data
    assert (data.kind, data.min_frames) == ("stills", 1)


# data=csv


def test_data_csv_needs_a_list(preprocess: Callable):
    with pytest.raises(SystemExit, match=r"data\.list"):
        preprocess("data=csv")


def test_edited_list_is_applied_without_cutting_again(preprocess: Callable, tmp_path: Path):
    write_clip(tmp_path / "a.mp4", "Happy", 0, 1, SMALL)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    path = tmp_path / "lists" / "clips.csv"
    path.parent.mkdir()
    text = f"path,label,subject,split\n../a.mp4,joy,ann,\n{tmp_path}/b.mp4,Sad,bea,val\n"
    path.write_text(text)
    arguments = ["data=csv", f"data.list={path}", "+data.label_map={joy: Happy}"]
    cache = preprocess(*arguments)
    found = [(row.label, row.subject, row.split) for row in cache.manifest()]
    assert found == [("Happy", "ann", "train"), ("Sad", "bea", "val")]
    stacks = [cache.directory / row.stack for row in cache.manifest()]
    assert all(stack.resolve().is_relative_to(cache.directory / "stacks") for stack in stacks)
    written = [stack.stat().st_mtime_ns for stack in stacks]

    path.write_text(text.replace("ann,", "ann,test").replace("joy", "Shock"))
    cache = preprocess(*arguments)
    found = [(row.label, row.subject, row.split) for row in cache.manifest()]
    assert found == [("Shock", "ann", "test"), ("Sad", "bea", "val")]
    assert [stack.stat().st_mtime_ns for stack in stacks] == written


# data=mine


def test_own_clips_and_classes_give_all_three_splits(
    preprocess: Callable, compose: Callable, tmp_path: Path
):
    from hydra.utils import instantiate

    from emotion.data.split import split_rows

    root = tmp_path / "Mine"
    names = {"bored": "Sad", "neutral": "Neutral"}  # own class -> rendered expression
    for label, rendered in names.items():
        for number in range(1, 7):
            write_clip(root / f"{label}_{number:04d}.mp4", rendered, 0, number, SMALL)
    mine = ["data=mine", f"data.root={root}", "data.labels=[bored,neutral]"]
    cache = preprocess(*mine)
    assert len(cache.manifest()) == 12
    cfg = compose("train", ["data=mine"])
    rows = split_rows(cache.manifest(), instantiate(cfg.split), cfg.data.pattern)
    assert {(row.split, row.label) for row in rows} == {
        (split, label) for split in ("train", "val", "test") for label in names
    }


def test_scrapping_keeps_its_published_split(scheme_of: Callable, tmp_path: Path):
    for name in ("Happy_0001.mp4", "Happy_0016.mp4"):
        (tmp_path / name).touch()
    clips, dropped = find_clips(tmp_path, scheme_of("scrapping"))
    assert [clip.split for clip in clips] == ["train", "val"] and dropped == []
