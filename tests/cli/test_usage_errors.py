"""Every wrong word on the command line: the error names the word, the known ones, and the next
step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from stream_cam.cli import main
from stream_cam.cli.options import COMMANDS, RunCommand
from stream_cam.cli.parse import parse
from stream_cam.cli.usage_errors import options_of, without_none, words_for
from stream_cam.errors import UsageError, unknown_name

NEEDED = {"run": ["SOURCE"], "export": ["net.xml"]}
OPTIONS = [
    (name, option, without_none(kind))
    for name, command in COMMANDS.items()
    for option, kind in options_of(command).items()
]
"""Options of all commands, with their types."""
WITH_VALUE = [one for one in OPTIONS if one[2] is not bool]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder, without a display."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def error_of(*line: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(line)
    said = str(caught.value)
    assert "\n" not in said
    for internal in ("<class", "None", "[bold]", "Expected", "instantiated", "pathlib", "matter."):
        assert internal not in said
    return said


def kind_of(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "choice"
    if get_origin(kind) is tuple:
        return "several" if get_args(kind)[-1] is Ellipsis else "pair"
    return str(kind.__name__)


def one_of_each_kind() -> list[tuple[str, str, Any]]:
    """A command and an option for each kind of value: tyro words each in its own way."""
    return list({(name, kind_of(kind)): (name, option, kind) for name, option, kind in WITH_VALUE}
                .values())  # fmt: skip


def test_all_options_of_a_command_are_known_to_its_errors() -> None:
    known = options_of(RunCommand)
    for option in ("--weights", "--target", "--sink", "--live", "--no-live", "--no-hud", "--start"):
        assert option in known
    assert "--source" not in known


@pytest.mark.parametrize(("name", "option", "kind"), one_of_each_kind())
def test_value_that_is_missing_or_of_another_kind(name: str, option: str, kind: Any) -> None:
    if kind_of(kind) != "several":  # several may be none
        said = error_of(name, *NEEDED.get(name, []), option)
        assert said.startswith(f"{option} takes {words_for(kind)}, got nothing; see ")
        assert f"`stream-cam {name} --help`" in said
    if kind in (int, float):
        said = error_of(name, *NEEDED.get(name, []), option, "much")
        assert said.startswith(f"{option} takes {words_for(kind)}, got 'much'; see ")
    if kind_of(kind) == "choice":
        said = error_of(name, *NEEDED.get(name, []), option, "qqq")
        assert said == f"unknown {option} 'qqq'; known are {', '.join(sorted(get_args(kind)))}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run x --layout grid", "unknown --layout 'grid'; known are heatmap, overlay, side, top5"),
        (
            "run x --layout sidee",
            "unknown --layout 'sidee'; did you mean side? known are heatmap, overlay, side, top5",
        ),
        ("run x --device gpu", "unknown --device 'gpu'; did you mean cuda? known are"),
        ("bench --compare a.json", "--compare takes 2 paths, got 'a.json'; see"),
        ("bench --compare a b c", "--compare takes 2 paths, got 'a' 'b' 'c'; see"),
        ("bench --batch 1 x", "--batch takes one or more whole numbers, got '1' 'x'; see"),
        ("run x --wieghts demo --limt 3", "unknown option --wieghts; did you mean --weights? see"),
        ("run x --bogus 3", "unknown option --bogus of `stream-cam run`; see"),
        ("run x y z", "'z' is too much: `stream-cam run` takes SOURCE [OUTPUT]"),
        ("run", "`stream-cam run` needs SOURCE: where frames come from; see"),
        ("run --source x", "`stream-cam run` has no --source, which is for bench; see"),
        ("doctor x", "'x' is too much: `stream-cam doctor` takes options only; see"),
        ("--weights demo run x", "a command comes before --weights: stream-cam run | batch"),
        (
            "bench --precision fp32",
            "`stream-cam bench` has no --precision, which is for run, batch, cameras, build, "
            "export; give it with the engine: --engines openvino:bf16",
        ),
    ],
)
def test_error_names_value_known_names_and_next_step(line: str, said: str) -> None:
    assert said in error_of(*line.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_of_another_command_is_never_its_own_suggestion(name: str) -> None:
    own = options_of(COMMANDS[name])
    others = {option for _, option, _ in OPTIONS} - own.keys()
    for option in sorted(others)[:2]:
        said = error_of(name, *NEEDED.get(name, []), option, "1")
        assert f"did you mean {option}" not in said
        assert " which is for " in said or "did you mean --" in said


def test_few_names_are_all_listed_and_of_many_the_nearest_five() -> None:
    shapes = ["circle", "heart", "star"]
    assert str(unknown_name("class", "cat", shapes)) == (
        "unknown class 'cat'; known are circle, heart, star"
    )
    many = [*(f"thing {number}" for number in range(990)), "tiger cat", "Persian cat", "catamaran"]
    assert str(unknown_name("class", "Cat", many)) == (
        "unknown class 'Cat'; did you mean Persian cat, tiger cat?"
    )
    said = str(unknown_name("class", "xyzzy", many))
    assert said.startswith("unknown class 'xyzzy'; there are 993, the nearest are ")
    assert said.count(",") == 5


def refused(line: str, capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert main(line.split()) == code
    (said,) = capsys.readouterr().err.splitlines()
    return said


def test_class_that_is_none_lists_the_classes(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused("run demo://shapes null --engine eager --target cat", capsys, 2)
    assert "unknown class 'cat'; known are arrow, circle, crescent, cross, heart," in said
    assert "did you mean" not in said


def test_window_without_a_display_names_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused("run demo://shapes window", capsys, 1)
    assert "watch in the browser with -o web://" in said


def test_all_outputs_that_exist_are_named_at_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("demo.mp4", "demo.png", "a.mkv", "r.json", "s.png"):
        (place / name).write_text("mine")
    said = refused("demo", capsys, 1)
    assert "demo.mp4 and demo.png exist; give --overwrite to replace them" in said
    line = "run demo://shapes demo.mp4 -o b.mkv -o a.mkv --report r.json --sheet s.png"
    said = refused(line, capsys, 1)
    assert "demo.mp4 and a.mkv and s.png and r.json exist; give --overwrite" in said


def test_folder_of_videos_names_batch(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "my clips").mkdir()
    for name in ("a.mp4", "b.mkv"):
        (place / "my clips" / name).touch()
    assert main(["run", "my clips", "null"]) == 1
    said = capsys.readouterr().err
    assert "the folder my clips has no pictures in it, only 2 videos" in said
    assert "`stream-cam batch 'my clips'` annotates all" in said
    assert "`stream-cam run 'my clips/a.mp4'` one" in said


def test_folder_of_pictures_names_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "pics").mkdir()
    (place / "pics" / "a.png").touch()
    said = refused("batch pics", capsys, 1)
    assert "there are no videos in pics, only 1 picture: `stream-cam run pics annotated/`" in said


def test_drawn_scene_needs_no_download(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stream_cam.model.download.fetch", lambda *_: pytest.fail("a download"))
    source = "demo://shapes?size=96x64&fps=5&seconds=0.4"
    line = ["run", source, "null", "--engine", "eager", "--input-size", "64"]
    assert main([*line, "--report", "r.json"]) == 0
    assert '"weights": "demo"' in (place / "r.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "uri", "model", "meant"),
    [
        ("auto", "demo://shapes", "resnet18", "demo"),
        ("auto", "demo://shapes", "resnet50", "imagenet"),
        ("auto", "clip.mp4", "resnet18", "imagenet"),
        ("imagenet", "demo://shapes", "resnet18", "imagenet"),
        ("auto", "demo://photos", "resnet18", "imagenet"),
        ("mine.pth", "demo://shapes", "resnet18", "mine.pth"),
    ],
)
def test_weights_that_are_meant(given: str, uri: str, model: str, meant: str) -> None:
    from stream_cam.config import ModelConfig

    assert ModelConfig(model, given).for_source(uri).weights == meant
