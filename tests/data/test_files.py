"""A kill leaves the old or the new file."""

import os
from pathlib import Path

import pytest

from elastic.data.files import CHECKSUMS, check_checksums, write_atomic, write_checksums


def test_text_is_written_as_utf_8(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "µ")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc2\xb5"


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a.txt", "x")
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_checksums_find_any_change_below_the_directory(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b").write_bytes(b"abc")
    (tmp_path / "empty").touch()
    write_checksums(tmp_path)
    # RFC 6234's test vector for "abc", and the digest of nothing
    assert (tmp_path / CHECKSUMS).read_text().splitlines() == [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  inner/b",
    ]
    check_checksums(tmp_path)
    (tmp_path / "new").touch()
    check_checksums(tmp_path)
    (tmp_path / "inner" / "b").write_bytes(b"abd")
    with pytest.raises(ValueError, match="inner/b is damaged"):
        check_checksums(tmp_path)
    (tmp_path / "empty").unlink()
    with pytest.raises(ValueError, match="empty is missing"):
        check_checksums(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no digest here\n", b"\xff\xfe"])
def test_a_damaged_list_of_checksums_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").touch()
    (tmp_path / CHECKSUMS).write_bytes(content)
    with pytest.raises(ValueError, match="SHA256SUMS"):
        check_checksums(tmp_path)
