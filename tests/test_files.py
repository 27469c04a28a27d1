"""Files are whole or absent."""

import json
import os

import pytest

from lsc_ext.files import write_json, write_whole


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    target = tmp_path / "r.json"
    write_whole(target, b"old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "absent" / "r.json", b"x")


def test_json_holds_null_for_what_is_not_finite(tmp_path):
    path = write_json(tmp_path / "r.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": (True, None)})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, None], "c": [True, None]}
