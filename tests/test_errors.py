"""The exception tree and its messages."""

from __future__ import annotations

import inspect

import pytest

from stream_cam import errors
from stream_cam.errors import (
    StreamCamError,
    UsageError,
    first_line,
    unknown_name,
    why_not_captured,
)

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if each.__module__ == errors.__name__
]
TREE = {each.__name__: each for each in CLASSES if issubclass(each, StreamCamError)}


def test_every_error_is_a_stream_cam_error() -> None:
    assert {each.__name__ for each in CLASSES} == set(TREE)
    assert TREE.keys() >= {"NoCamError", "WeightsError", "EngineError"}


def test_tree_in_the_docstring_names_every_error() -> None:
    assert [name for name in TREE if name not in (errors.__doc__ or "")] == []


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (errors.SourceNotFoundError, errors.SourceError),
        (errors.OutputExistsError, errors.SinkError),
        (errors.NoCamError, errors.ModelError),
        (UsageError, ValueError),
    ],
)
def test_narrow_errors_are_caught_as_wide_ones(
    child: type[Exception], parent: type[Exception]
) -> None:
    assert issubclass(child, parent)


def test_exit_code_is_2_for_usage_and_1_for_the_world() -> None:
    assert {name for name, each in TREE.items() if each.exit_code == 2} == {"UsageError"}
    assert {each.exit_code for each in TREE.values()} == {1, 2}


def test_unknown_name_names_the_nearest() -> None:
    many = ["resnet18", "resnet34", *(f"vgg{number}" for number in range(20))]
    error = unknown_name("model", "ResNet81", many)
    assert isinstance(error, UsageError)
    assert "unknown model 'ResNet81'; did you mean resnet18" in str(error)
    assert "vgg11" not in str(error)


def test_unknown_name_keeps_the_names_own_case() -> None:
    assert "Great White Shark" in str(unknown_name("class", "great shark", ["Great White Shark"]))


def test_unknown_name_lists_the_known_ones_when_none_is_near() -> None:
    message = str(unknown_name("colormap", "xyz", ["turbo", "jet"]))
    assert message.endswith("known are jet, turbo")


def test_unknown_name_cuts_long_lists() -> None:
    message = str(unknown_name("class", "???", [f"label {index}" for index in range(1000)]))
    assert message.count("label ") == 5
    assert len(message) < 300
    assert "\n" not in message


def test_end_of_a_failed_capture_does_not_hide_its_reason() -> None:
    """`torch.cuda.graph` raises a second error while the first one is on its way."""

    def capture() -> None:
        try:
            raise ValueError("no kernel for sm_90\nand much more")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    with pytest.raises(RuntimeError) as caught:
        capture()
    assert why_not_captured(caught.value) == (
        "no kernel for sm_90; then: operation failed due to a previous error during capture"
    )
    assert why_not_captured(KeyError()) == first_line(KeyError()) == "KeyError"


def test_openvinos_places_in_its_source_are_no_reason() -> None:
    import openvino

    with pytest.raises(RuntimeError) as raised:
        openvino.Core().import_model(b"no model" * 100, "CPU", {})
    assert "core.cpp" in str(raised.value)
    assert first_line(raised.value).startswith("[CPU] Cannot import compiled blob")
