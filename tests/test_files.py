"""Files that are there whole or not at all."""

import pytest

from vistok.files import WriteError, publish


def test_publish_is_all_or_nothing(tmp_path):
    (tmp_path / "a").write_text("old")

    def half(folder):
        (folder / "a").write_text("new")
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match="No space left"):
        publish(tmp_path, half)
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    publish(tmp_path, lambda folder: (folder / "a").write_text("new"))
    assert (tmp_path / "a").read_text() == "new"
