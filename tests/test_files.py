"""Files that are there whole or not at all."""

import os

import pytest

from vistok.files import WriteError, publish, write_once


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


def test_the_first_of_two_writers_wins_also_where_the_answer_is_lost(tmp_path, monkeypatch):
    assert write_once(tmp_path / "a", b"first")
    assert not write_once(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    link = os.link

    def linked_but_not_said(source, target):  # as NFS does when it repeats a request
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", linked_but_not_said)
    assert write_once(tmp_path / "b", b"first")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b"]
