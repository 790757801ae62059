"""Measure the demo model on fresh drawings: top-1, and whether its map points at the shape.

    python scripts/check_demo.py                               the training's painter, new seed
    python scripts/check_demo.py --painter pil --photos DIR    another painter, held-out photos

Every figure is a share of pictures. The pointing game counts a shape picture as hit when the
highest pixel of its true class's map, upsampled bilinearly onto the frame, lies inside the box.
`reachable` is the share where any cell of the map could score: a peak is always at a cell's
centre, so a box narrower than a cell can lie between two of them. `beside` is how warm that map is
beside the shape, on average: from 0, its coldest cell, to 1, its hottest one, over the cells whose
centres are farther than three quarters of a cell from the box. Ends with 1 below --least, or above
--most-beside.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torchvision.models import ResNet, resnet18

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# Scripts import the package of their own checkout, installed or not.
from demo_backgrounds import (  # noqa: E402
    Background,
    ByteArray,
    folder_photographs,
    make_pool,
    package_photographs,
    photo_crop,
)
from demo_judge import judge_picture  # noqa: E402
from demo_pictures import BACKGROUND_PX, LABELS, Painter  # noqa: E402

MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
ASSET = ROOT / "stream_cam" / "assets" / "demo.safetensors"
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    image_bgr: ByteArray
    label: str
    box_xyxy: tuple[float, float, float, float]
    background: str
    aspect: str
    size_share: float


@dataclass(frozen=True)
class Outcome:
    sample: Sample
    got: str
    peak_xy: tuple[int, int]
    hit: bool
    reachable: bool
    beside: float
    """0..1; 1 for a map that is the same everywhere, NaN where every cell is on or at the shape."""

    @property
    def right(self) -> bool:
        return self.got == self.sample.label


def own_samples(seed: int, count: int, photographs: list[ByteArray]) -> Iterator[Sample]:
    """Pictures by the training's painter; photographs given here replace the training's."""
    rng = np.random.default_rng(seed)
    pool = make_pool(rng, max(60, count // 4), BACKGROUND_PX, photographs or package_photographs())
    painter = Painter(pool, seed)
    for index in range(count):
        picture = painter.paint(rng, label=index % len(LABELS))
        yield Sample(
            picture.image_bgr,
            LABELS[picture.label],
            picture.box_xyxy,
            picture.background,
            picture.aspect,
            picture.size_share,
        )


def own_photo_samples(seed: int, count: int, photographs: list[ByteArray]) -> Iterator[Sample]:
    """The training's painter over nothing but the given photographs."""
    rng = np.random.default_rng(seed)
    chosen = [photographs[rng.integers(len(photographs))] for _ in range(max(60, count // 4))]
    pool = [Background("photo", photo_crop(rng, photo, BACKGROUND_PX)) for photo in chosen]
    painter = Painter(pool, seed)
    for index in range(count):
        p = painter.paint(rng, label=index % len(LABELS))
        yield Sample(p.image_bgr, LABELS[p.label], p.box_xyxy, p.background, p.aspect, p.size_share)


def judged_samples(seed: int, count: int, photographs: list[ByteArray]) -> Iterator[Sample]:
    """Pictures by the separate painter, at native sizes."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        j = judge_picture(rng, LABELS[index % len(LABELS)], photographs)
        yield Sample(j.image_bgr, j.label, j.box_xyxy, j.background, j.aspect, j.size_share)


def load(path: Path) -> ResNet:
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    model = resnet18(num_classes=len(LABELS))
    model.load_state_dict(state)
    return model.eval()


def input_size_of(path: Path) -> int:
    """The purpose of the weights, from their file."""
    with safe_open(path, "pt") as file:
        return int((file.metadata() or {}).get("input_size", 224))


def seen_by_network(image_bgr: ByteArray, side_px: int) -> torch.Tensor:
    """Stretch a frame to a square, antialiased, and normalise it: (3, side, side) float32."""
    pixels = torch.from_numpy(np.ascontiguousarray(image_bgr[..., ::-1])).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(
        pixels.float() / 255, (side_px, side_px), mode="bilinear", antialias=True
    )
    mean, std = torch.from_numpy(MEAN), torch.from_numpy(STD)
    return (small[0] - mean[:, None, None]) / std[:, None, None]


@torch.inference_mode()
def judge(model: ResNet, samples: list[Sample], side_px: int) -> list[Outcome]:
    """Run a batch of samples through the network and play the pointing game."""
    x = torch.stack([seen_by_network(sample.image_bgr, side_px) for sample in samples])
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    features = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    logits = model.fc(features.mean((2, 3)))
    outcomes = []
    for sample, feature, logit in zip(samples, features, logits, strict=True):
        weight = model.fc.weight[LABELS.index(sample.label)]
        cam = torch.einsum("k,khw->hw", weight, feature).numpy()
        height, width = sample.image_bgr.shape[:2]
        peak = peak_of(cam, width, height)
        hit = inside(peak, sample.box_xyxy)
        got = LABELS[int(logit.argmax())]
        cells_xy = cell_centres(cam.shape, width, height)
        outcomes.append(
            Outcome(
                sample,
                got,
                peak,
                hit,
                bool(within(cells_xy, sample.box_xyxy).any()),
                heat_beside(cam, cells_xy, sample.box_xyxy),
            )
        )
    return outcomes


def peak_of(cam: FloatArray, width: int, height: int) -> tuple[int, int]:
    """The first highest pixel (x, y) of a map after bilinear, half-pixel upsampling."""
    large = cv2.resize(cam, (width, height), interpolation=cv2.INTER_LINEAR)
    row, column = np.unravel_index(int(np.argmax(large)), large.shape)
    return int(column), int(row)


def inside(point_xy: tuple[int, int], box: tuple[float, float, float, float]) -> bool:
    return box[0] <= point_xy[0] < box[2] and box[1] <= point_xy[1] < box[3]


def cell_centres(cells_hw: tuple[int, ...], width: int, height: int) -> tuple[FloatArray, ...]:
    """Where the cells of a map have their centres in the frame: columns' x, rows' y."""
    return tuple(
        ((np.arange(count) + 0.5) * extent / count).astype(np.float32)
        for count, extent in zip(cells_hw[::-1], (width, height), strict=True)
    )


def within(
    cells_xy: tuple[FloatArray, ...], box: tuple[float, float, float, float], margin: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Which cells' centres lie in the box, made larger by `margin` cells on each side, (h, w)."""
    x, y = cells_xy
    # The first centre is half a cell from the edge.
    more_x, more_y = 2 * margin * x[0], 2 * margin * y[0]
    columns = (x >= box[0] - more_x) & (x < box[2] + more_x)
    rows = (y >= box[1] - more_y) & (y < box[3] + more_y)
    return np.asarray(rows[:, None] & columns[None])


def heat_beside(
    cam: FloatArray, cells_xy: tuple[FloatArray, ...], box: tuple[float, float, float, float]
) -> float:
    """`Outcome.beside` of an (h, w) map whose cells have their centres there."""
    elsewhere = ~within(cells_xy, box, margin=0.75)
    span = float(cam.max() - cam.min())
    if not elsewhere.any():
        return float("nan")
    return float((cam[elsewhere] - cam.min()).mean() / span) if span > 0.0 else 1.0


def table(outcomes: list[Outcome]) -> dict[str, dict[str, dict[str, float]]]:
    """Group → name → figures."""
    groups: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        sample = outcome.sample
        groups["all"]["all"].append(outcome)
        groups["class"][sample.label].append(outcome)
        groups["background"][sample.background].append(outcome)
        groups["aspect"][sample.aspect].append(outcome)
        if sample.label != "nothing":
            low = next(edge for edge in (0.5, 0.3, 0.2, 0.0) if sample.size_share >= edge)
            groups["height"][f"from {low:.0%}"].append(outcome)
    return {
        group: {name: _figures(rows) for name, rows in sorted(named.items())}
        for group, named in groups.items()
    }


def _figures(rows: list[Outcome]) -> dict[str, float]:
    shapes = [row for row in rows if row.sample.label != "nothing"]
    count = max(len(shapes), 1)
    known = [row.beside for row in shapes if not np.isnan(row.beside)]
    return {
        "pictures": len(rows),
        "top1": sum(row.right for row in rows) / len(rows),
        "pointing": sum(row.hit for row in shapes) / count if shapes else float("nan"),
        "reachable": sum(row.reachable for row in shapes) / count if shapes else float("nan"),
        "beside": float(np.mean(known)) if known else float("nan"),
    }


def contact_sheet(outcomes: list[Outcome], path: Path, most: int = 60) -> None:
    """Write the failures as one picture: truth > answer, the box green, the peak red."""
    tiles = []
    for outcome in [o for o in outcomes if not o.right or (not o.hit and o.reachable)][:most]:
        sample = outcome.sample
        if sample.label == "nothing" and outcome.right:
            continue
        tile = cv2.resize(sample.image_bgr, (200, 200), interpolation=cv2.INTER_AREA)
        scale = np.array([200 / sample.image_bgr.shape[1], 200 / sample.image_bgr.shape[0]])
        corners = (np.array(sample.box_xyxy) * np.tile(scale, 2)).astype(int).tolist()
        cv2.rectangle(tile, corners[:2], corners[2:], (0, 255, 0), 1)
        cv2.circle(tile, (np.array(outcome.peak_xy) * scale).astype(int).tolist(), 4, (0, 0, 255))
        text = f"{sample.label}>{outcome.got}"
        cv2.putText(tile, text, (3, 13), 0, 0.42, (0, 0, 0), 3)
        cv2.putText(tile, text, (3, 13), 0, 0.42, (255, 255, 255), 1)
        tiles.append(tile)
    if not tiles:
        return
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 10)
    rows = [np.hstack(tiles[start : start + 10]) for start in range(0, len(tiles), 10)]
    cv2.imwrite(str(path), np.vstack(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ASSET)
    parser.add_argument("--side", type=int, help="of the input, px; default: what the weights say")
    parser.add_argument("--painter", choices=("own", "own-photos", "pil"), default="own")
    parser.add_argument("--photos", type=Path, help="folder of held-out pictures and videos")
    parser.add_argument("--count", type=int, default=1100)
    parser.add_argument("--seed", type=int, default=987654321, help="never the training's")
    parser.add_argument("--least", type=float, default=0.95)
    parser.add_argument("--most-beside", type=float, default=0.3, help="heat beside the shape")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--failures", type=Path, help="write a contact sheet of the failures")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    photographs = folder_photographs(args.photos) if args.photos else []
    if args.painter == "own-photos" and not photographs:
        parser.error("--painter own-photos needs --photos DIR with pictures or videos in it")
    painters = {"own": own_samples, "own-photos": own_photo_samples, "pil": judged_samples}
    samples = painters[args.painter](args.seed, args.count, photographs)
    model, outcomes, batch = load(args.weights), [], []
    side_px = args.side or input_size_of(args.weights)
    started = time.monotonic()
    for sample in samples:
        batch.append(sample)
        if len(batch) == 22:
            outcomes += judge(model, batch, side_px)
            batch = []
    outcomes += judge(model, batch, side_px) if batch else []
    figures = table(outcomes)
    print(
        f"painter {args.painter}, seed {args.seed}, {side_px} px, "
        f"{time.monotonic() - started:.0f} s"
    )
    for group, named in figures.items():
        for name, row in named.items():
            print(
                f"{group:10} {name:10} {row['pictures']:5.0f} pictures   top-1 {row['top1']:6.1%}"
                f"   pointing {row['pointing']:6.1%}   reachable {row['reachable']:6.1%}"
                f"   beside {row['beside']:.2f}"
            )
    wrong: dict[str, int] = defaultdict(int)
    for outcome in outcomes:
        if not outcome.right:
            wrong[f"{outcome.sample.label} taken for {outcome.got}"] += 1
    print("; ".join(f"{n}× {what}" for what, n in sorted(wrong.items(), key=lambda w: -w[1])[:8]))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    if args.failures:
        contact_sheet(outcomes, args.failures)
    total = figures["all"]["all"]
    good = min(total["top1"], total["pointing"]) >= args.least
    return 0 if good and total["beside"] <= args.most_beside else 1


if __name__ == "__main__":
    sys.exit(main())
