"""Counts the machine instructions of the GPU kernels, without a GPU.

    python scripts/kernel_sass.py [--json docs/benchmarks/kernels-sass.json]

Every kernel is compiled by Triton for each architecture just as its launcher would launch it for a
1920×1080 frame, and disassembled with the tools in Triton's wheel. The count is one thread's way
through the innermost loop over pixels, divided by the number of its pixels. The count of a whole
pixel adds its share of the work before the loop. It says nothing about time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stream_cam.cam import class_maps, overlay, overlay_nv12, preprocess, preprocess_nv12
from stream_cam.cam.geometry import plan_fit
from stream_cam.cam.nv12 import planes
from stream_cam.cam.overlay_plan import overlay_table, plan_overlay, plan_overlay_nv12
from stream_cam.config import Upsampling
from stream_cam.frame import Region

ARCHITECTURES = (90, 89, 80)
"""Compute capabilities times 10: H100 and H200; L4, L40 and RTX 40; A100."""
FRAME_HW = (1080, 1920)

_TYPES = {
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}


@dataclass(frozen=True)
class Launch:
    """A kernel and the arguments from its launcher."""

    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """The counts of one kernel on one architecture."""

    kernel: str
    architecture: str
    registers: int
    stack_bytes: int
    local_instructions: int
    instructions: int
    """In the whole kernel."""
    loop_instructions: int | None = None
    """In the innermost loop that works on pixels."""
    loop_pixels: int | None = None
    """Pixels that a thread works on in one round of it; for `preprocess` those of the frame, each
    of which lies under about four of the network's."""
    instructions_per_pixel: float | None = None
    with_walk_per_pixel: float | None = None
    """Including the instructions before the loop over rows, divided among the loop's pixels."""
    loop_loads: dict[str, int] | None = None
    loop_stores: dict[str, int] | None = None


@dataclass(frozen=True)
class Sass:
    """A kernel's machine code: addresses, instructions and resources."""

    code: list[tuple[int, str]]
    registers: int
    stack_bytes: int

    def loops(self) -> list[list[str]]:
        """The instructions of each loop, innermost (shortest) first."""
        found = []
        for address, text in self.code:
            branch = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
            if branch and int(branch[1], 16) < address:
                start = int(branch[1], 16)
                found.append([one for at, one in self.code if start <= at <= address])
        return sorted(found, key=len)


def recorded(module: Any, name: str, launch: Callable[[], None]) -> list[Launch]:
    """Records a launcher's launches without running them."""
    kernel, launches = getattr(module, name), []

    class Recorder:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            return lambda *arguments, **options: launches.append(Launch(kernel, arguments, options))

    setattr(module, name, Recorder())
    try:
        launch()
    finally:
        setattr(module, name, kernel)
    return launches


def disassemble(launch: Launch, architecture: int) -> Sass:
    """Compiles as Triton would at the launch: it specialises on arguments that are 1 or a multiple
    of 16, except those that the kernel excludes."""
    names: Sequence[str] = launch.kernel.arg_names
    values = dict(zip(names, launch.arguments, strict=False))
    options = {key: value for key, value in launch.options.items() if key not in names}
    values |= {key: value for key, value in launch.options.items() if key in names}
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[object]]] = {}
    for place, name in enumerate(names):
        value = values[name]
        told = not launch.kernel.params[place].do_not_specialize
        if name.isupper() or (told and isinstance(value, int) and value == 1):
            signature[name], constants[place,] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = _TYPES[value.dtype]
            attributes[place,] = [["tt.divisibility", 16]]  # CUDA allocates so
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if told and value % 16 == 0:
                attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        code = [
            (int(line[1], 16), line[2])
            for line in re.finditer(
                r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", _tool("-sass", cubin), re.MULTILINE
            )
        ]
        usage = _tool("-res-usage", cubin)
    registers, stack = re.search(r"REG:(\d+)", usage), re.search(r"STACK:(\d+)", usage)
    if not code or registers is None or stack is None:
        raise RuntimeError(f"cannot read what cuobjdump says: {usage}")
    return Sass(code, int(registers[1]), int(stack[1]))


def _tool(option: str, cubin: Path) -> str:
    program = Path(triton.knobs.nvidia.cuobjdump.path)
    path = f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"  # it calls nvdisasm
    done = subprocess.run(
        [program, option, cubin], capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    return done.stdout


def overlay_launch(pitch_bytes: int, upsampling: Upsampling = "bilinear") -> Launch:
    """The overlay of a frame whose rows begin every so many bytes."""
    height, width = FRAME_HW
    frame = torch.empty(height * pitch_bytes, dtype=torch.uint8).as_strided(
        (1, height, width, 3), (height * pitch_bytes, pitch_bytes, 3, 1)
    )
    plan = plan_overlay(FRAME_HW, (7, 7), Region.whole(FRAME_HW), upsampling, device="cpu")
    table, scaled = overlay_table(device="cpu"), torch.zeros(1, 1, 7, 7)
    out = torch.empty_strided((1, *frame.shape), (0, *frame.stride()), dtype=torch.uint8)
    launches = recorded(
        overlay, "_overlay_kernel", lambda: overlay.overlay(frame, scaled, plan, table, out=out)
    )
    return launches[0]


def overlay_nv12_launch(plane: int) -> Launch:
    """The overlay of a packed frame's luma (0) or chroma (1)."""
    height, width = FRAME_HW
    luma, chroma = planes(torch.empty((1, height // 2 * 3, width), dtype=torch.uint8))
    plan = plan_overlay_nv12(FRAME_HW, (7, 7), Region.whole(FRAME_HW), device="cpu")
    table, scaled = overlay_table(device="cpu"), torch.zeros(1, 1, 7, 7)
    out = [torch.empty_like(part)[:, None] for part in (luma, chroma)]
    launches = recorded(
        overlay,
        "_overlay_kernel",
        lambda: overlay_nv12.overlay_nv12(
            luma, chroma, scaled, plan, table, out_luma=out[0], out_chroma=out[1]
        ),
    )
    return launches[plane]


def preprocess_launch() -> Launch:
    frame = torch.empty((1, *FRAME_HW, 3), dtype=torch.uint8)
    fit = plan_fit("stretch", FRAME_HW, 224)
    plan = preprocess.plan_preprocess(fit, (0.5,) * 3, (0.2,) * 3, device="cpu")
    out = torch.empty((1, 3, 224, 224), dtype=torch.float16)
    (launch,) = recorded(
        preprocess,
        "_preprocess_kernel",
        lambda: preprocess.preprocess(frame, plan, out=out),
    )
    return launch


def preprocess_nv12_launch() -> Launch:
    height, width = FRAME_HW
    luma, chroma = planes(torch.empty((1, height // 2 * 3, width), dtype=torch.uint8))
    fit = plan_fit("stretch", FRAME_HW, 224)
    plan = preprocess.plan_preprocess(fit, (0.5,) * 3, (0.2,) * 3, device="cpu")
    color = preprocess_nv12.color_of("bt709", full_range=False, device="cpu")
    out = torch.empty((1, 3, 224, 224), dtype=torch.float16)
    (launch,) = recorded(
        preprocess_nv12,
        "_preprocess_nv12_kernel",
        lambda: preprocess_nv12.preprocess_nv12(luma, chroma, plan, color, out=out),
    )
    return launch


def maps_launch() -> Launch:
    features, weight = torch.empty((1, 512, 7, 7), dtype=torch.float16), torch.empty(1000, 512)
    classes, scaled = torch.zeros((1, 1), dtype=torch.int64), torch.empty(1, 1, 7, 7)
    (launch,) = recorded(
        class_maps,
        "_maps_kernel",
        lambda: class_maps.class_maps(features, weight, classes, scaled=scaled, cams=scaled),
    )
    return launch


LAUNCHES: dict[str, Callable[[], Launch]] = {
    "overlay, vectors": lambda: overlay_launch(5760),
    "overlay, words": lambda: overlay_launch(5764),
    "overlay, bytes": lambda: overlay_launch(5761),
    "overlay, bicubic": lambda: overlay_launch(5760, "bicubic"),
    "overlay nv12, luma": lambda: overlay_nv12_launch(0),
    "overlay nv12, chroma": lambda: overlay_nv12_launch(1),
    "preprocess": preprocess_launch,
    "preprocess nv12": preprocess_nv12_launch,
    "maps": maps_launch,
}


def count(name: str, architecture: int) -> Figures:
    """The figures of one kernel on one architecture."""
    launch = LAUNCHES[name]()
    sass = disassemble(launch, architecture)
    figures = Figures(
        kernel=name,
        architecture=f"sm_{architecture}",
        registers=sass.registers,
        stack_bytes=sass.stack_bytes,
        local_instructions=sum(bool(re.search(r"\b(LDL|STL)\b", text)) for _, text in sass.code),
        instructions=sum(not re.match(r"(NOP|BRA 0x)", text) for _, text in sass.code),
    )
    if name.startswith("preprocess"):
        loop = next(one for one in sass.loops() if any("LDG" in text for text in one))
        pixels = 4 * launch.options["QUADS"]
        return replace(
            figures,
            loop_instructions=len(loop),
            loop_pixels=pixels,
            instructions_per_pixel=round(len(loop) / pixels, 2),
            loop_loads=_kinds(loop, "LDG"),
        )
    if not name.startswith("overlay"):
        return figures
    loop, walk = [one for one in sass.loops() if any("STG" in text for text in one)][:2]
    constants = launch.options
    unit = max(1, 4 * constants["QUADS"])
    lanes = constants["GROUPS"] // (32 * constants["num_warps"])
    pixels = unit * lanes * constants["AHEAD"]
    rows = 1 if constants["CURVE"] else constants["ROWS"]  # of a walk
    before = (len(walk) - len(loop)) / (unit * lanes * rows)
    return replace(
        figures,
        loop_instructions=len(loop),
        loop_pixels=pixels,
        instructions_per_pixel=round(len(loop) / pixels, 2),
        with_walk_per_pixel=round(len(loop) / pixels + before, 2),
        loop_loads=_kinds(loop, "LDG"),
        loop_stores=_kinds(loop, "STG"),
    )


def _kinds(loop: list[str], mnemonic: str) -> dict[str, int]:
    """How many of each, such as {"LDG.E.128": 6, "LDG.E.64": 32}."""
    found = re.findall(rf"\b{mnemonic}[.\w]*", "\n".join(loop))
    return {kind: found.count(kind) for kind in sorted(set(found))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures are kept")
    options = parser.parse_args()
    figures = [count(name, one) for name in LAUNCHES for one in ARCHITECTURES]
    for one in figures:
        print(one)
    if options.json is not None:
        content = {
            "triton": triton.__version__,
            "frame_hw": FRAME_HW,
            "figures": [
                {key: value for key, value in asdict(one).items() if value is not None}
                for one in figures
            ],
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
