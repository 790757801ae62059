"""Imports run one way, light modules stay light, and the public names are held."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import stream_cam

PACKAGE = Path(stream_cam.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("_version", "errors", "config", "uri", "closing", "atomic_files", "host", "queues"),
    ("import_order", "frame"),
    ("targets",),
    ("settings",),
    ("sources",),
    ("cam",),
    ("draw",),
    ("model",),
    ("engine", "export"),
    ("explain",),
    ("sinks",),
    ("web",),
    ("results",),
    ("pipeline",),
    ("cameras",),
    ("bench",),
    ("cluster",),
    ("cli",),
    ("__main__",),
)
"""A module imports only from layers above its own line here, and from its own folder."""
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

PUBLIC = [
    *("CamNet", "CaptureConfig", "EngineError", "Explainer", "Explanation", "Features", "Frame"),
    *("LookConfig", "SteadyMaps"),
    *(
        "ModelConfig",
        "ModelError",
        "ModuleConfig",
        "NoCamError",
        "OutputExistsError",
        "Picture",
        "Pipeline",
    ),
    *(
        "PipelineConfig",
        "Prediction",
        "RecordConfig",
        "Region",
        "Renderer",
        "Report",
        "RunConfig",
        "Settings",
        "SettingsSnapshot",
        "Sink",
    ),
    *("SinkError", "Source", "SourceError", "SourceInfo", "SourceNotFoundError", "StreamCamError"),
    *("StreamInfo", "Truth", "UsageError", "WeightsError", "WebConfig", "__version__"),
    *("draw_heatmap", "draw_overlay"),
    *("Served", "open_sink", "open_source", "run", "serve"),
]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    """`sources/video.py` is a part of `sources`, `uri.py` is `uri`."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_names(path: Path) -> set[str]:
    """The names that a module imports, inside functions and for types as well."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_parts(path: Path) -> set[str]:
    """The parts of stream_cam that a module imports."""
    return {name.split(".")[1] for name in imported_names(path) if name.startswith("stream_cam.")}


def imported_modules() -> dict[str, set[str]]:
    """The modules of stream_cam that each of them imports; of a package it is its `__init__`."""
    files = {name_of(path): path for path in modules()}
    return {
        own: {
            module
            for name in imported_names(path)
            for module in [name if name in files else name.rpartition(".")[0]]
            if module in files and module != own
        }
        for own, path in files.items()
    }


def name_of(path: Path) -> str:
    """`sources/video.py` is `stream_cam.sources.video`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def neighbours(own: str, other: str) -> tuple[str, str, str]:
    """The package that holds both modules, and their parts of it; its `__init__` is one as well."""
    shared = []
    for one, two in zip(own.split("."), other.split("."), strict=False):
        if one != two:
            break
        shared.append(one)
    package = ".".join(shared)
    first, second = (
        name.removeprefix(package).lstrip(".").partition(".")[0] or "__init__"
        for name in (own, other)
    )
    return package, first, second


def test_every_module_has_its_layer() -> None:
    parts = {part_of(path) for path in modules()}
    assert parts == set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = part_of(path)
    wrong = {part for part in imported_parts(path) if part != own and LEVEL[part] >= LEVEL[own]}
    assert not wrong, f"{own} imports {', '.join(sorted(wrong))}, which is not below it"


def circle_of(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle_of_imports_inside_any_package() -> None:
    """Modules and packages of one folder import in one direction as well."""
    edges: dict[str, dict[str, set[str]]] = {}
    for own, others in imported_modules().items():
        for package, first, second in (neighbours(own, other) for other in others):
            edges.setdefault(package, {}).setdefault(first, set()).add(second)
    circles = {package: circle_of(graph) for package, graph in edges.items()}
    assert not {package: found for package, found in circles.items() if found}


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after running `code`."""
    code += "\nimport sys\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "torchvision", "cv2", "av", "openvino"}


@pytest.mark.parametrize("command", ["run", "bench"])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = f"from stream_cam.cli import main\nassert main(['{command}', '--help']) == 0"
    assert not HEAVY & loaded_by(code)


def test_drawn_scenes_need_no_video_library() -> None:
    assert "av" not in loaded_by("import stream_cam.sources.demo.source")


def test_import_of_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_by("import stream_cam")
    assert not (HEAVY | {"numpy", "tyro", "rich"}) & loaded


def test_mistakes_in_names_are_told_before_torch_is_loaded() -> None:
    code = "from stream_cam.cli import main\nassert main(['run', 'nix.mp4', 'out.mp4']) == 1"
    assert "torch" not in loaded_by(code)


def test_modules_for_the_cpu_load_without_triton() -> None:
    """Triton comes with torch on Linux only."""
    loaded = loaded_by(
        "import sys\nsys.modules['triton'] = None\nimport stream_cam.pipeline.pipeline"
        "\nimport stream_cam.explain.explainer"
    )
    assert "stream_cam.explain.explainer" in loaded


@pytest.mark.needs_triton
def test_triton_is_here_for_the_tests_of_the_kernels() -> None:
    """They skip as whole files, which STREAM_CAM_REQUIRE cannot see."""
    pytest.importorskip("triton", reason="no Triton for this system")


def test_public_names_are_held() -> None:
    assert sorted(PUBLIC) == sorted(stream_cam.__all__)
    assert dir(stream_cam) == stream_cam.__all__


def test_no_public_name_is_a_modules_too() -> None:
    """Import of the module would put it in the name's place."""
    assert not set(PUBLIC) & {part_of(path) for path in modules()}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_can_be_had(name: str) -> None:
    assert getattr(stream_cam, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = stream_cam.nonsense  # type: ignore[attr-defined]
