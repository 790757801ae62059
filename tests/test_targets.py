"""Targets: indices and labels of classes."""

from __future__ import annotations

import pytest

from stream_cam.errors import UsageError
from stream_cam.targets import resolve_target

LABELS = ("tench", "Great White", "crane", "cat", "crane", "7")


@pytest.mark.parametrize(
    ("target", "index"),
    [(0, 0), (5, 5), ("tench", 0), ("TENCH", 0), ("great white", 1), (" cat ", 3), ("2", 2)],
)
def test_resolve_target_takes_numbers_and_labels(target: int | str, index: int) -> None:
    assert resolve_target(LABELS, target) == index


def test_resolve_target_prefers_the_label_to_the_number() -> None:
    assert resolve_target(LABELS, "7") == 5
    assert resolve_target(("1", "0"), "1") == 0
    assert resolve_target(("Cat", "cat"), "cat") == 1


@pytest.mark.parametrize("target", [-1, 6, "6", "-1", "99999999999999999999"])
def test_resolve_target_out_of_range_names_the_range(target: int | str) -> None:
    with pytest.raises(UsageError, match=r"does not exist; classes are 0 to 5"):
        resolve_target(LABELS, target)


def test_resolve_target_unknown_label_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown class 'tensh'; did you mean tench"):
        resolve_target(LABELS, "tensh")


def test_resolve_target_label_of_several_classes_gives_their_numbers() -> None:
    with pytest.raises(UsageError, match=r"'crane' is several \(2, 4\); give the number"):
        resolve_target(LABELS, "crane")
