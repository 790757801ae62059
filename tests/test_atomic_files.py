"""Files take their names for good, also on file systems that sync no folders."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from stream_cam.atomic_files import replace_durably


def failing_fsync(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_synced_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing_fsync(number, monkeypatch)
    made = tmp_path / "made"
    made.write_bytes(b"whole")
    replace_durably(made, tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"whole"
    assert not made.exists()


def test_a_disk_that_fails_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_fsync(errno.EIO, monkeypatch)
    made = tmp_path / "made"
    made.write_bytes(b"whole")
    with pytest.raises(OSError, match="Input/output"):
        replace_durably(made, tmp_path / "there")
