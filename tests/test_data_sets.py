"""The data sets in conf/data: data=csv to the end."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion.cache import Cache
from emotion.clips import Clip, find_clips
from emotion.errors import UserError


def test_data_csv_needs_a_list(compose: Callable):
    with pytest.raises(UserError, match=r"data=csv has no list of its own: set data\.list=FILE"):
        Cache.from_config(compose("train", ["data=csv"]))


def test_list_of_paths_and_labels_is_enough(compose: Callable, tmp_path: Path):
    (tmp_path / "1.mp4").touch()
    (tmp_path / "clips.csv").write_text("path,label\n1.mp4,Sad\n")
    cache = Cache.from_config(compose("train", ["data=csv", f"data.list={tmp_path}/clips.csv"]))
    clips, dropped = find_clips(cache.root, cache.scheme, None, cache.clip_list)
    assert clips == [Clip(tmp_path / "1.mp4", "1", "Sad", "", "train")] and dropped == []


def test_list_goes_all_the_way_and_an_edit_of_it_is_noticed(
    compose: Callable, demo_cache: Cache, tmp_path: Path
):
    for name in ("Happy_0001.mp4", "Sad_0001.mp4"):
        shutil.copy(demo_cache.root / name, tmp_path / name)
    absolute = tmp_path / "Sad_0001.mp4"
    path = tmp_path / "lists" / "clips.csv"
    path.parent.mkdir()
    text = f"path,label,subject,split\n../Happy_0001.mp4,joy,ann,\n{absolute},Sad,bea,val\n"
    path.write_text(text)
    cache = Cache.from_config(
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
