import pytest

from emotion.files import unfinished


def test_file_appears_whole_under_its_name_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "stack.tiff"
    with unfinished(path) as temporary:
        temporary.write_text("content")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "content" and list(path.parent.iterdir()) == [path]


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "stack.tiff"
    path.write_text("old")
    with pytest.raises(RuntimeError), unfinished(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
