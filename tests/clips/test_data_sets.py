"""The data sets in conf/data: their published names, what is left out, and data=csv to the end."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion.clips.find import find_clips
from emotion.clips.naming import Clip, Dropped, Scheme
from emotion.errors import UserError
from tests.caches import BuildableCache


@pytest.fixture
def scheme_of(compose: Callable) -> Callable[[str], Scheme]:
    """Give a function that reads the scheme of a data set's group file."""

    def scheme(data: str) -> Scheme:
        return BuildableCache.from_config(
            compose("train", [f"data={data}", "data.root=/clips"])
        ).scheme

    return scheme


# Names as published on Zenodo (record 1188976) and in CheyneyComputerScience/CREMA-D on GitHub,
# and, for MEAD, AFEW and DFEW, whose owners show no listing, as in published code that reads them


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
        ("ravdess", "Actor_12/01-01-06-01-02-01-12.mp4", "label 06 is left out"),
        ("ravdess", "Actor_12/01-01-07-01-02-01-12.mp4", "label 07 is left out"),
        ("ravdess", "Actor_12/01-01-02-01-02-01-12.mp4", "label 02 is left out"),
        ("ravdess", "Actor_12/02-01-06-01-02-01-12.mp4", "outside the scheme"),  # without sound
        ("ravdess", "Actor_12/01-02-03-01-02-01-12.mp4", "outside the scheme"),  # song
        ("cremad", "VideoFlash/1001_DFA_DIS_XX.flv", "label DIS is left out"),
        ("cremad", "VideoFlash/1001_IEO_FEA_HI.flv", "label FEA is left out"),
        ("mead", "M012/video/front/disgusted/level_2/027.mp4", "label disgusted is left out"),
        ("mead", "M012/video/front/contempt/level_2/027.mp4", "label contempt is left out"),
        ("mead", "M012/video/front/fear/level_2/027.mp4", "label fear is left out"),
        ("mead", "M012/video/left_30/angry/level_2/027.mp4", "outside the scheme"),
        ("folders", "train/Disgust/02578.mp4", "label Disgust is left out"),
        ("folders", "Val_AFEW/Fear/000223480.avi", "label Fear is left out"),
        ("folders", "Test_AFEW/000223480.avi", "label Test_AFEW is none of"),
        ("folders", "holiday/Angry/1.avi", "outside the scheme"),
        ("stills", "train/disgust/Training_1.jpg", "label disgust is left out"),
        ("stills", "fear/1.jpg", "label fear is left out"),
        ("stills", "contempt/S138_008_00000009.png", "label contempt is left out"),
        ("stills", "train/7/1.jpg", "label 7 is none of"),
        ("stills", "1.jpg", "outside the scheme"),
    ],
)
def test_what_a_data_set_has_beside_the_five_is_left_out(
    scheme_of: Callable, data: str, name: str, reason: str
):
    read = scheme_of(data).read(Path("/clips", name), Path("/clips"))
    assert isinstance(read, Dropped) and reason in read.reason


def test_stills_have_a_frame_each(compose: Callable):
    cache = BuildableCache.from_config(compose("train", ["data=stills", "data.root=/stills"]))
    assert (cache.scheme.kind, cache.settings.min_frames) == ("stills", 1)
    for data in ("demo", "csv", "folders"):
        cfg = compose("train", [f"data={data}", "data.root=/clips", "++data.list=/clips.csv"])
        assert cfg.data.kind == "clips"


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


# data=csv


def test_data_csv_needs_a_list(compose: Callable):
    with pytest.raises(UserError, match=r"data\.list"):
        BuildableCache.from_config(compose("train", ["data=csv"]))


def test_list_of_paths_and_labels_is_enough(compose: Callable, tmp_path: Path):
    (tmp_path / "1.mp4").touch()
    (tmp_path / "clips.csv").write_text("path,label\n1.mp4,Sad\n")
    cache = BuildableCache.from_config(
        compose("train", ["data=csv", f"data.list={tmp_path}/clips.csv"])
    )
    clips, dropped = find_clips(cache.root, cache.scheme, None, cache.builder.source.clip_list)
    assert clips == [Clip(tmp_path / "1.mp4", "1", "Sad", "", "train")] and dropped == []


def test_list_goes_all_the_way_and_an_edit_of_it_is_noticed(
    compose: Callable, demo_cache: BuildableCache, tmp_path: Path
):
    for name in ("Happy_0001.mp4", "Sad_0001.mp4"):
        shutil.copy(demo_cache.root / name, tmp_path / name)
    absolute = tmp_path / "Sad_0001.mp4"
    path = tmp_path / "lists" / "clips.csv"
    path.parent.mkdir()
    text = f"path,label,subject,split\n../Happy_0001.mp4,joy,ann,\n{absolute},Sad,bea,val\n"
    path.write_text(text)
    cache = BuildableCache.from_config(
        compose(
            "train",
            [
                "data=csv",
                f"data.list={path}",
                "+data.label_map={joy: Happy}",
                f"paths.cache={tmp_path}/cache",
                "num_workers=1",
            ],
        )
    )
    cache.ensure()
    found = [(row.label, row.subject, row.split) for row in cache.manifest()]
    assert found == [("Happy", "ann", "train"), ("Sad", "bea", "val")]
    stacks = [cache.directory / row.stack for row in cache.manifest()]
    assert all(stack.resolve().is_relative_to(cache.directory / "stacks") for stack in stacks)
    made = [stack.stat().st_mtime_ns for stack in stacks]

    path.write_text(text.replace("ann,", "ann,test").replace("joy", "Shock"))
    cache.ensure()
    found = [(row.label, row.subject, row.split) for row in cache.manifest()]
    assert found == [("Shock", "ann", "test"), ("Sad", "bea", "val")]
    assert [stack.stat().st_mtime_ns for stack in stacks] == made  # nothing is cut twice

    path.unlink()
    with pytest.raises(UserError, match="no list"):
        cache.ensure()
