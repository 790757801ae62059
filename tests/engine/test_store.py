"""The store: whole engines or none, though builders are killed and files damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from support import toy_engine
from support.toy_engine import KEY, ToyBuilder, toy_blob, with_version
from torch import Tensor

from stream_cam.engine import inventory, store
from stream_cam.engine.inventory import list_engines, prune
from stream_cam.engine.machine import Machine
from stream_cam.engine.manifest import EngineKey, Figures, Manifest
from stream_cam.engine.prepare import load_or_build
from stream_cam.engine.store import EngineStore, UnusableEngineError, engines_folder
from stream_cam.errors import EngineError, GateError

SUPPORT = Path(__file__).parents[1] / "support"
DEADLINE_SECONDS = 120.0
N_CORRUPTIONS = 1000

FIGURES = Figures(1e-6, 1e-6, 1.0, 1e-5, 1.0)


def manifest_of(blob: bytes, key: EngineKey = KEY) -> Manifest:
    sha256 = hashlib.sha256(blob).hexdigest()
    return Manifest(key, 1.5, 1_700_000_000, 12.5, FIGURES, len(blob), sha256)


@pytest.fixture
def engines(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def kept(engines: EngineStore, key: EngineKey = KEY, blob: bytes = b"blob") -> Path:
    with engines.building(key) as locked:
        assert locked
        path = engines.publish(blob, manifest_of(blob, key))
    assert path is not None
    return path


def left_overs(engines: EngineStore) -> list[str]:
    return [path.name for path in engines.folder.glob(".*.tmp")]


def machine(backend: str) -> list[Machine]:
    if backend != "toy":
        raise EngineError(f"this version has no {backend} engines")
    return [(dict(KEY.versions), dict(KEY.hardware))]


class Builder:
    """One process of `engine_builder.py`, which says its number when it is ready."""

    def __init__(self, nursery: subprocess.Popen[str], folder: Path, stop: str) -> None:
        pipes = tempfile.mkdtemp(dir=folder.parent)
        for name in ("in", "out"):
            os.mkfifo(f"{pipes}/{name}")
        assert nursery.stdin is not None
        nursery.stdin.write(f"{folder}\t{stop}\t{pipes}\n")
        nursery.stdin.flush()
        self._out = os.fdopen(os.open(f"{pipes}/out", os.O_RDONLY))
        self._in = os.fdopen(os.open(f"{pipes}/in", os.O_WRONLY), "w")
        self._number = int(self.heard())

    def heard(self) -> str:
        """The next word it says; empty when it has ended."""
        return self._out.readline().strip()

    def go(self) -> None:
        self._in.write("\n")
        self._in.flush()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._number, signal.SIGKILL)
        assert self.heard() == ""

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._number, signal.SIGKILL)
        self._out.close()
        with suppress(BrokenPipeError):
            self._in.close()


BuilderMaker = Callable[[Path, str], Builder]


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(SUPPORT / "engine_builder.py")]
    path = os.pathsep.join(filter(None, [str(SUPPORT.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=environment)
    deadline = threading.Timer(DEADLINE_SECONDS, process.kill)
    deadline.start()
    yield process
    deadline.cancel()
    process.communicate()


@pytest.fixture
def builder_in(nursery: subprocess.Popen[str]) -> Iterator[BuilderMaker]:
    with ExitStack() as closing:

        def start(folder: Path, stop: str) -> Builder:
            builder = Builder(nursery, folder, stop)
            closing.callback(builder.close)
            return builder

        yield start


# Whole and of the right key, or not at all.


def test_a_published_engine_is_read_again(engines: EngineStore) -> None:
    path = kept(engines)
    found = engines.read(KEY)
    assert found is not None
    assert found == (b"blob", manifest_of(b"blob"))
    assert json.loads((path / "manifest.json").read_text())["key"]["versions"]["toy"] == "1.0"
    assert left_overs(engines) == []


def test_publishing_again_replaces(engines: EngineStore) -> None:
    kept(engines, blob=b"one")
    kept(engines, blob=b"two")
    found = engines.read(KEY)
    assert found is not None
    assert found[0] == b"two"
    assert len(engines.entries()) == 1
    assert left_overs(engines) == []


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, backend="other"),
        replace(KEY, model="other"),
        replace(KEY, network="fedcba9876543210"),
        replace(KEY, input_shape=(1, 3, 64, 96)),
        replace(KEY, precision="bf16"),
        replace(KEY, options={"HINT": "THROUGHPUT"}),
        with_version("1.1"),
        replace(KEY, hardware={**KEY.hardware, "cpu": "another cpu"}),
        replace(KEY, hardware={**KEY.hardware, "driver": "600.1"}),
        replace(KEY, format=KEY.format + 1),
    ],
)
def test_every_part_of_the_key_keeps_engines_apart(engines: EngineStore, other: EngineKey) -> None:
    kept(engines)
    assert engines.read(other) is None
    assert KEY.difference(other) != "nothing"


def test_names_of_models_do_not_leave_the_folder(engines: EngineStore) -> None:
    path = kept(engines, replace(KEY, model="../../etc/passwd"))
    assert path.parent == engines.folder
    assert engines.entries() == [path]


def test_an_engine_under_another_name_is_foreign(engines: EngineStore) -> None:
    other = replace(KEY, network="fedcba9876543210")
    shutil.copytree(kept(engines), engines.path(other))
    with pytest.raises(UnusableEngineError, match="network 0123456789abcdef") as caught:
        engines.read(other)
    assert caught.value.kind == "foreign"


def test_paths_in_the_manifest_lead_nowhere(engines: EngineStore, tmp_path: Path) -> None:
    path = kept(engines)
    said = json.loads((path / "manifest.json").read_text())
    (tmp_path / "evil").write_bytes(b"evil")
    said |= {"path": str(tmp_path / "evil"), "blob": str(tmp_path / "evil")}
    (path / "manifest.json").write_text(json.dumps(said))
    found = engines.read(KEY)
    assert found is not None
    assert found[0] == b"blob"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "flipped bit": (store.BLOB, _flip, "checksum"),
    "cut off": (store.BLOB, lambda path: os.truncate(path, 100), "100 bytes instead of"),
    "blob gone": (store.BLOB, Path.unlink, "No such file"),
    "blob a pipe": (store.BLOB, _fifo, "bytes instead of"),
    "manifest gone": (store.MANIFEST, Path.unlink, "No such file"),
    "manifest empty": (store.MANIFEST, lambda path: os.truncate(path, 0), "not a manifest"),
    "manifest a pipe": (store.MANIFEST, _fifo, "not a file"),
    "manifest nested": (
        store.MANIFEST,
        lambda path: path.write_text("[" * 200_000),
        "not a manifest",
    ),
    "manifest large": (store.MANIFEST, lambda path: os.truncate(path, 2_000_000), "longer than"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_one_warning_and_mended(
    what: str, engines: EngineStore, caplog: pytest.LogCaptureFixture
) -> None:
    name, damage, expected = DAMAGE[what]
    path = load_or_build(ToyBuilder(), engines).path
    assert path is not None
    damage(path / name)
    builder = ToyBuilder()
    assert load_or_build(builder, engines).built
    assert builder.n_deserialized == 0
    (line,) = caplog.messages
    assert line.startswith(f"a kept engine is rebuilt: {path.name} is damaged")
    assert expected in line
    assert not load_or_build(ToyBuilder(), engines).built


def test_an_engine_that_missed_its_gate_is_not_built_again(engines: EngineStore) -> None:
    def spoilt(logits: Tensor, features: Tensor) -> None:
        logits.mul_(2)

    builder = ToyBuilder(change=spoilt)
    for _ in range(3):
        with pytest.raises(GateError, match="logits' difference"):
            load_or_build(builder, engines)
    assert builder.n_compiled == 1
    with pytest.raises(GateError, match="found before; `stream-cam build --force` tries it again"):
        load_or_build(ToyBuilder(), engines)
    other = replace(KEY, precision="fp16")
    assert load_or_build(ToyBuilder(other), engines).built
    # Mended, by a newer library under the same name say: built anew when asked for, then taken.
    assert load_or_build(ToyBuilder(), engines, force=True).built
    assert not load_or_build(ToyBuilder(), engines).built
    # Forgotten by prune.
    with pytest.raises(GateError):
        load_or_build(ToyBuilder(with_version("2.0"), change=spoilt), engines)
    prune(engines, list_engines(engines, machine), machine)
    assert load_or_build(ToyBuilder(with_version("2.0")), engines).built


def test_a_refusal_that_cannot_be_read_is_none(engines: EngineStore) -> None:
    with engines.building(KEY):
        engines.refuse(KEY, "it differs")
    assert engines.refusal(KEY) == "it differs"
    assert engines.entries() == []
    (path,) = engines.folder.glob(".*.refused.tmp")
    path.write_bytes(b"\xff\xff")
    assert engines.refusal(KEY) is None
    path.write_bytes(b"")
    assert engines.refusal(KEY) is None


def test_a_thousand_corruptions_never_hand_out_another_engine(engines: EngineStore) -> None:
    path = kept(engines, blob=toy_blob(KEY))
    whole = {name: (path / name).read_bytes() for name in (store.BLOB, store.MANIFEST)}
    chance = random.Random(0)
    n_noticed = 0
    for _ in range(N_CORRUPTIONS):
        name = chance.choice([store.BLOB, store.MANIFEST])
        (path / name).write_bytes(_corrupted(whole[name], chance))
        try:
            found = engines.read(KEY)
        except UnusableEngineError:
            n_noticed += 1
        else:
            assert found is not None
            assert found[0] == whole[store.BLOB]
            assert found[1].key == KEY
        list_engines(engines, machine)
        (path / name).write_bytes(whole[name])
    # Only changes of figures or white space in the manifest may pass unnoticed.
    assert n_noticed > N_CORRUPTIONS * 0.7


def _corrupted(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    place = chance.randrange(len(data))
    kind = chance.randrange(4)
    if kind == 0:
        changed[place] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        del changed[place : place + chance.randrange(1, 50)]
    else:
        changed[place : place + 8] = chance.randbytes(chance.randrange(1, 9))
    return bytes(changed) if changed != data else data[1:]


# Several at once, and killed ones.


def test_builders_at_once_build_once(engines: EngineStore, builder_in: BuilderMaker) -> None:
    started = [builder_in(engines.folder, "compile") for _ in range(3)]
    for builder in started:
        builder.go()
    words = {builder: builder.heard() for builder in started}
    assert sorted(words.values()) == ["compile", "waiting", "waiting"]
    next(builder for builder in started if words[builder] == "compile").go()
    assert sorted(builder.heard() for builder in started) == ["built", "taken", "taken"]
    assert len(engines.entries()) == 1


def test_a_builder_killed_while_compiling_leaves_the_way_free(
    engines: EngineStore, builder_in: BuilderMaker
) -> None:
    builder = builder_in(engines.folder, "compile")
    builder.go()
    assert builder.heard() == "compile"
    builder.kill()
    assert engines.read(KEY) is None
    assert load_or_build(ToyBuilder(), engines).built
    assert engines.read(KEY) is not None


@pytest.mark.parametrize("moment", ["blob", "rename", "replace"])
def test_a_builder_killed_while_publishing_publishes_nothing(
    moment: str, engines: EngineStore, builder_in: BuilderMaker
) -> None:
    if moment == "replace":
        kept(engines, blob=toy_blob(KEY))
    builder = builder_in(engines.folder, moment)
    builder.go()
    assert builder.heard() == moment
    builder.kill()
    assert engines.read(KEY) is None
    assert engines.entries() == []
    assert len(left_overs(engines)) == (2 if moment == "replace" else 1)
    with engines.building(KEY):  # before it builds: on a full disk it needs the room
        assert left_overs(engines) == []
    assert load_or_build(ToyBuilder(), engines).built
    assert left_overs(engines) == []
    assert not load_or_build(ToyBuilder(), engines).built


def test_left_overs_of_a_builder_at_work_stay(engines: EngineStore) -> None:
    kept(engines)
    (engines.folder / f".{engines.path(KEY).name}.abcd1234.tmp").mkdir()
    with EngineStore(engines.folder).building(with_version("2.0")):
        assert len(left_overs(engines)) == 1
    lock = engines._lock(engines.path(KEY).name)
    with lock:
        assert engines.remove_left_overs() == 0
        assert not EngineStore(engines.folder).remove(engines.path(KEY))
    assert len(left_overs(engines)) == 1
    engines.remove_left_overs()
    assert left_overs(engines) == []


def test_the_newest_engine_of_any_calibration(engines: EngineStore) -> None:
    for number, frames in enumerate(("first", "third", "second")):
        key = replace(KEY, calibration={"frames": frames})
        newer = replace(manifest_of(b"blob", key), built_unix_seconds=(1, 3, 2)[number])
        with engines.building(key):
            engines.publish(b"blob", newer)
    kept(engines, with_version("0.9"))
    kept(engines, replace(KEY, options={"HINT": "THROUGHPUT"}, calibration={"frames": "others"}))
    found = engines.calibrated(KEY)
    assert found is not None
    assert found.calibration == {"frames": "third"}
    _flip(engines.path(found) / store.BLOB)
    found = engines.calibrated(KEY)
    assert found is not None
    assert found.calibration == {"frames": "second"}
    assert engines.calibrated(replace(KEY, network="00000000000000ff")) is None


def test_an_interrupted_build_leaves_nothing(engines: EngineStore) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    builder = ToyBuilder()
    builder.compile = interrupted  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        load_or_build(builder, engines)
    assert engines.entries() == []
    assert left_overs(engines) == []
    assert load_or_build(ToyBuilder(), engines).built


# Folders that do not take it.


def test_engines_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_CAM_ENGINES", str(tmp_path / "here"))
    assert engines_folder() == tmp_path / "here"
    monkeypatch.delenv("STREAM_CAM_ENGINES")
    assert engines_folder().name == "engines"
    monkeypatch.setattr(store, "__file__", "/usr/lib/site-packages/stream_cam/engine/store.py")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engines_folder() == tmp_path / "stream-cam" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    # Other systems have other folders.
    assert sys.platform != "linux" or engines_folder() == tmp_path / ".cache/stream-cam/engines"


@pytest.fixture
def obstacles(tmp_path: Path) -> Path:
    """A file where a folder should be, and a folder that only its owner, root, may write to."""
    (tmp_path / "file").write_text("")
    (tmp_path / "closed").mkdir(mode=0o500)
    return tmp_path


@pytest.mark.parametrize("place", ["closed", "closed/engines", "file", "file/engines"])
def test_a_folder_that_may_not_be_written_to_costs_one_warning(
    place: str, obstacles: Path, unprivileged: None, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = load_or_build(ToyBuilder(), EngineStore(obstacles / place))
    assert prepared.built
    assert prepared.path is None
    (line,) = caplog.messages
    assert "the engine is not kept" in line


def test_a_good_engine_in_a_read_only_folder_is_taken(
    engines: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_or_build(ToyBuilder(), engines)

    def no_lock(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", no_lock)
    builder = ToyBuilder()
    assert not load_or_build(builder, engines).built
    assert builder.n_compiled == 0


@pytest.mark.parametrize("failing", ["_write_synced", "sync_folder"])
def test_a_full_disk_costs_one_warning(
    failing: str,
    engines: EngineStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(path: Path, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(store, failing, full)
        prepared = load_or_build(ToyBuilder(), engines)
    assert prepared.path is None
    (line,) = caplog.messages
    assert "No space left on device" in line
    assert engines.entries() == []
    assert left_overs(engines) == []
    assert load_or_build(ToyBuilder(), engines).path is not None


def test_a_disk_that_is_really_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        builder = ToyBuilder()
        engines = EngineStore(folder)
        with engines.building(KEY) as locked:
            assert locked
            blob = bytes(100_000)
            assert engines.publish(blob, manifest_of(blob)) is None
        assert "No space left on device" in caplog.text
        assert [path.name for path in folder.iterdir()] == [f".{engines.path(KEY).name}.lock"]
        assert load_or_build(builder, engines).path is not None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# Kept engines, and those that may be removed.


def test_second_start_builds_nothing(engines: EngineStore) -> None:
    first, second = ToyBuilder(), ToyBuilder()
    assert load_or_build(first, engines).built
    prepared = load_or_build(second, engines)
    assert not prepared.built
    assert (first.n_compiled, second.n_compiled, second.n_deserialized) == (1, 0, 1)
    assert prepared.manifest.latency_p50_ms > 0
    assert load_or_build(second, engines, force=True).built


def test_an_engine_that_the_backend_does_not_take_is_rebuilt(
    engines: EngineStore, caplog: pytest.LogCaptureFixture
) -> None:
    kept(engines, blob=b"whole, but of an unknown kind")
    assert load_or_build(ToyBuilder(), engines).built
    assert "not my blob" in caplog.text


def test_a_builder_without_frames_names_the_damage(
    engines: EngineStore, caplog: pytest.LogCaptureFixture
) -> None:
    """An int8 engine, in a run, which has no frames to quantise with."""
    path = kept(engines, blob=b"whole, but of an unknown kind")
    builder = ToyBuilder()
    builder.can_build = False
    stages: list[str] = []
    with pytest.raises(EngineError, match=r"without frames no other is built.*not my blob"):
        load_or_build(builder, engines, on_stage=stages.append)
    assert builder.n_compiled == 0
    assert stages == []
    assert caplog.messages == []
    assert engines.entries() == [path]


def test_a_gpu_that_fails_while_building_names_the_option(
    engines: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    monkeypatch.setattr(ToyBuilder, "compile", fails)
    with pytest.raises(EngineError, match=r"\(CUDA out of memory.*\): free its memory, or give"):
        load_or_build(ToyBuilder(), engines)
    assert engines.entries() == []


def test_an_outdated_engine_is_one_warning_and_built_anew(
    engines: EngineStore, caplog: pytest.LogCaptureFixture
) -> None:
    load_or_build(ToyBuilder(), engines)
    builder = ToyBuilder(with_version("1.1"))
    assert load_or_build(builder, engines).built
    (line,) = caplog.messages
    assert "outdated" in line
    assert "toy 1.0 (here 1.1)" in line


def _stock(engines: EngineStore) -> dict[str, inventory.StoredEngine]:
    return {engine.path.name: engine for engine in list_engines(engines, machine)}


def test_list_gives_each_status_and_prune_keeps_usable_engines(engines: EngineStore) -> None:
    usable = kept(engines)
    outdated = kept(engines, with_version("0.9"))
    elsewhere = kept(engines, replace(KEY, hardware={"cpu": "another", "cpu_can": "FP32"}))
    unknown = kept(engines, replace(KEY, backend="tensorrt"))
    renamed = engines.folder / f"toy-toy-{16 * '0'}"
    shutil.copytree(usable, renamed)
    damaged = kept(engines, replace(KEY, network="fedcba9876543210"))
    _flip(damaged / store.BLOB)
    old = kept(engines, replace(KEY, network="00000000000000ff"))
    said = json.loads((old / store.MANIFEST).read_text())
    said["key"]["format"] = 1
    (old / store.MANIFEST).write_text(json.dumps(said))
    stock = _stock(engines)
    expected = {
        usable: ("usable", ""),
        outdated: ("outdated", "toy 0.9 (here 1.0)"),
        elsewhere: ("foreign", "cpu another (here toy cpu)"),
        unknown: ("foreign", "no tensorrt engines"),
        renamed: ("foreign", "of another engine"),
        damaged: ("damaged", "checksum"),
        old: ("outdated", "format 1"),
    }
    for path, (status, why) in expected.items():
        assert stock[path.name].status == status
        assert why in stock[path.name].why
    size_bytes = sum(engine.size_bytes for engine in stock.values())
    removed, freed_bytes = prune(engines, list(stock.values()), machine)
    assert {engine.path for engine in removed} == expected.keys() - {usable}
    assert freed_bytes == size_bytes - stock[usable.name].size_bytes
    assert engines.entries() == [usable]


def test_engines_of_each_of_a_machines_gpus_are_usable(engines: EngineStore) -> None:
    gpus = [{"gpu": "small"}, {"gpu": "large"}]
    keys = [replace(KEY, hardware=gpu) for gpu in (*gpus, {"gpu": "another"})]
    keys.append(replace(keys[1], versions={"toy": "0.9", "torch": "2.0"}))
    paths = [kept(engines, key) for key in keys]
    stock = list_engines(engines, lambda _: [(dict(KEY.versions), gpu) for gpu in gpus])
    found = {engine.path: (engine.status, engine.why) for engine in stock}
    assert [found[path] for path in paths] == [
        ("usable", ""),
        ("usable", ""),
        ("foreign", "another machine: gpu another (here small)"),
        ("outdated", "toy 0.9 (here 1.0)"),
    ]


def test_prune_keeps_engines_mended_meanwhile(engines: EngineStore) -> None:
    path = kept(engines, KEY)
    whole = (path / store.BLOB).read_bytes()
    _flip(path / store.BLOB)
    stock = list_engines(engines, machine)
    assert [engine.status for engine in stock] == ["damaged"]
    (path / store.BLOB).write_bytes(whole)
    assert prune(engines, stock, machine) == ([], 0)
    assert engines.read(KEY) is not None


def test_others_may_read_an_administrators_engine(engines: EngineStore) -> None:
    before = os.umask(0o022)
    try:
        path = kept(engines, KEY)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    for file in path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_an_unreadable_engine_is_not_called_damaged(
    engines: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept(engines, KEY)

    def denied(path: Path, max_bytes: int) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store, "_read_plain", denied)
    with pytest.raises(UnusableEngineError, match="may not be read by this user") as refused:
        engines.read(KEY)
    assert refused.value.kind == "foreign"
    assert path.is_dir()


def test_a_user_without_a_home_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless(*_: object, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    for name in ("STREAM_CAM_ENGINES", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store, "__file__", "/usr/lib/site-packages/stream_cam/engine/store.py")
    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    engines = EngineStore()
    assert engines.read(KEY) is None
    assert engines.entries() == []
    with engines.building(KEY) as locked:
        assert not locked
    assert "$STREAM_CAM_ENGINES names another folder" in caplog.text


def test_prune_touches_nothing_that_is_not_an_engine(engines: EngineStore) -> None:
    name = f"holiday-pictures-{16 * 'a'}"
    (engines.folder / name).mkdir(parents=True)
    (engines.folder / name / "beach.jpg").write_bytes(b"sand")
    (engines.folder / "notes").mkdir()
    (engines.folder / f"link-{16 * 'b'}").symlink_to(engines.folder / "notes")
    prune(engines, list_engines(engines, machine), machine)
    assert (engines.folder / name / "beach.jpg").read_bytes() == b"sand"
    assert (engines.folder / "notes").is_dir()
    assert (engines.folder / f"link-{16 * 'b'}").is_symlink()


def test_toy_engine_has_the_shapes_it_declares() -> None:
    assert toy_engine.ToyEngine(toy_engine.toy_net()).info.features_shape == (1, 8, 7, 7)
