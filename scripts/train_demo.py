"""Train the demo model: a ResNet18 that names ten drawn shapes, and whose map points at them.

    python scripts/train_demo.py

Needs `pip install -e .[train]`. The pictures are drawn while it trains, from a fixed seed, and
counted: the same command sees the same pictures everywhere. A checkpoint is written every few
minutes.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.models import ResNet, resnet18

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo_backgrounds import (  # noqa: E402
    PHOTO_SHARE,
    Background,
    folder_photographs,
    kinds,
    make_pool,
    package_photographs,
)
from demo_pictures import BACKGROUND_PX, FULL_SIDE_PX, LABELS, Painter, Picture  # noqa: E402

logger = logging.getLogger("train_demo")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INPUT_SIZE = FULL_SIDE_PX
STRIDE = 32
FULL_CELLS = (INPUT_SIZE // STRIDE) ** 2
NOTHING = len(LABELS) - 1
ASSET = ROOT / "stream_cam" / "assets" / "demo.safetensors"


@dataclass(frozen=True)
class Phase:
    side_px: int
    batch: int
    pictures: int
    most: int
    """Shapes in one picture, at the most."""
    ease: float = 0.0
    """The share of easy pictures, 0..1: a network from nothing learns the shapes from them in
    minutes, and then finds them in clutter; from clutter alone it learns nothing for very long."""

    @property
    def pixels(self) -> int:
        """The cost of the phase: the pixels of all its pictures."""
        return self.pictures * self.side_px**2


PHASES = (
    "64:64:50000:1:0.7,96:64:60000:2:0.4,128:64:120000:2:0.15,192:48:40000:3:0.05,"
    "288:32:16000:3,288:32:9600:1"
)
PADDING = -1
"""The label of a shape that is not there."""


@dataclass(frozen=True)
class Batch:
    images: Tensor
    """(N, 3, S, S) uint8, RGB, channels last."""
    labels: Tensor
    """(N, K) int64: the shapes of each picture, then PADDING; none at all is `nothing`."""
    boxes: Tensor
    """(N, K, 4) float32, pixels x0, y0, x1, y1; zero where there is no shape."""


class Drawn(IterableDataset[Batch]):
    """An endless row of batches, drawn in the loader's workers."""

    def __init__(self, pool: list[Background], seed: int, phase: Phase) -> None:
        self._painter = Painter(pool, seed)
        self._seed, self._phase = seed, phase

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        worker, phase = get_worker_info(), self._phase
        seed = [self._seed, phase.side_px, phase.most, worker.id if worker else 0]
        rng = np.random.default_rng(seed)
        while True:
            yield collate(
                [
                    self._painter.paint(rng, phase.side_px, most=phase.most, ease=phase.ease)
                    for _ in range(phase.batch)
                ]
            )


def collate(pictures: list[Picture]) -> Batch:
    images_bgr = np.stack([picture.image_bgr for picture in pictures])
    images = torch.from_numpy(images_bgr[..., ::-1].copy()).permute(0, 3, 1, 2)
    most = max(1 + len(picture.others) for picture in pictures)
    labels = torch.full((len(pictures), most), PADDING)
    boxes = torch.zeros(len(pictures), most, 4)
    for row, picture in enumerate(pictures):
        if picture.label == NOTHING:
            continue
        for column, (label, box) in enumerate([(picture.label, picture.box_xyxy), *picture.others]):
            labels[row, column] = label
            boxes[row, column] = torch.tensor(box)
    return Batch(images, labels, boxes)


def normalised(images: Tensor, device: torch.device) -> Tensor:
    """uint8 RGB to float32 with ImageNet's mean and deviation, on the device."""
    mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD, device=device).view(1, 3, 1, 1) * 255
    return (images.to(device, non_blocking=True).float() - mean) / std


def features_of(model: ResNet, images: Tensor) -> Tensor:
    """The last convolution's output, (N, 512, h, w)."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    features: Tensor = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    return features


def target_cells(boxes: Tensor, cells: int) -> Tensor:
    """Which cells of the map may hold the peak, (N, cells, cells) bool.

    Upsampled bilinearly, a map peaks at a cell's centre; in the first row and column it is flat
    from the centre to the frame's edge, so its first maximum lies on the edge. Cells that put
    the peak safely inside the box come first, then cells with their centre inside, then the
    nearest one.
    """
    centres = (torch.arange(cells, device=boxes.device) + 0.5) * STRIDE
    inside_x = (centres >= boxes[:, 0:1]) & (centres < boxes[:, 2:3])
    inside_y = (centres >= boxes[:, 1:2]) & (centres < boxes[:, 3:4])
    edge = torch.arange(cells, device=boxes.device) == 0
    safe_x = inside_x & ~(edge & (boxes[:, 0:1] > 0))
    safe_y = inside_y & ~(edge & (boxes[:, 1:2] > 0))
    near_x = F.one_hot((centres - boxes[:, 0::2].mean(1, keepdim=True)).abs().argmin(1), cells) > 0
    near_y = F.one_hot((centres - boxes[:, 1::2].mean(1, keepdim=True)).abs().argmin(1), cells) > 0

    def first_not_empty(*choices: Tensor) -> Tensor:
        chosen = choices[-1]
        for choice in choices[-2::-1]:
            chosen = torch.where(choice.any(1, keepdim=True), choice, chosen)
        return chosen

    columns = first_not_empty(safe_x, inside_x, near_x)
    rows = first_not_empty(safe_y, inside_y, near_y)
    return rows[:, :, None] & columns[:, None, :]


def shares_of_cells(boxes: Tensor, shown: Tensor, cells: int) -> Tensor:
    """The owner of each cell of the map, (N, K + 1, cells, cells) bool: the shapes, then the
    background.

    A cell belongs to the shape whose box is nearest to its centre, up to 24 px beyond the box,
    because a convolution responds a little beside its object.
    """
    centres = (torch.arange(cells, device=boxes.device) + 0.5) * STRIDE
    x0, y0, x1, y1 = boxes[..., None].unbind(2)
    beyond_x = torch.maximum(x0 - centres, centres - x1)
    beyond_y = torch.maximum(y0 - centres, centres - y1)
    beyond = torch.maximum(beyond_y[..., :, None], beyond_x[..., None, :])
    beyond = beyond.masked_fill(~shown[..., None, None], math.inf)
    nobody = torch.full_like(beyond[:, :1], 24.0)
    owner = torch.cat([beyond, nobody], 1).argmin(1)
    return F.one_hot(owner, boxes.shape[1] + 1).movedim(-1, 1).bool()


def map_losses(maps: Tensor, bias: Tensor, labels: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """The loss of the maps of some pictures, part by part.

    A logit is a sum over the map's cells. So a picture with several shapes gives the logit of each
    shape alone and of the background alone, and every part gets its own loss.

    Args:
        maps: (N, classes, h, w), every class's map without its bias.
        bias: (classes,).
        labels: (N, K) of shapes, or PADDING.
        boxes: (N, K, 4) in pixels.

    Returns:
        `alone`: cross entropy of the logits that a shape's own cells give.
        `behind`: cross entropy against `nothing` of the logits that all other cells give.
        `pointing`: -log of the share of softmax(a shape's map) on its target cells.
        `local`: cross entropy of the maps averaged over those cells. Its gradient is not diluted
        by the cells beside a small shape, as that of the pooled logits is.
        `beside`: how warm a shape's map is on the cells that are not its own, as a viewer sees it:
        from 0, the map's coldest cell, to 1, its hottest one. A peak in the right place is not
        enough where the wall is warm as well.
    """
    shown = labels != PADDING
    cells = maps.shape[-1]
    whose = shares_of_cells(boxes, shown, cells).float()
    sums = torch.einsum("nchw,nkhw->nkc", maps, whose) / FULL_CELLS + bias
    nothing = torch.full_like(labels[:, 0], NOTHING)
    losses = {"behind": F.cross_entropy(sums[:, -1], nothing)}
    row, column = shown.nonzero(as_tuple=True)
    if not len(row):
        return losses | dict.fromkeys(("alone", "pointing", "local", "beside"), maps.sum() * 0)
    true, flat = labels[row, column], maps[row].flatten(2)
    allowed = target_cells(boxes[row, column], cells).flatten(1)
    own = flat[torch.arange(len(row)), true]
    log_mass = F.log_softmax(own, dim=1)
    weight = allowed.float() / allowed.sum(1, keepdim=True)
    local = torch.einsum("ncp,np->nc", flat, weight) + bias
    coldest, hottest = own.amin(1, keepdim=True), own.amax(1, keepdim=True)
    heat = (own - coldest) / (hottest - coldest).clamp_min(1e-3)
    others = 1 - whose[row, column].flatten(1)
    return losses | {
        "alone": F.cross_entropy(sums[row, column], true),
        "pointing": -torch.logsumexp(log_mass.masked_fill(~allowed, -1e4), dim=1).mean(),
        "local": F.cross_entropy(local, true),
        "beside": (heat * others).sum() / others.sum().clamp_min(1),
    }


def losses(
    model: ResNet, batch: Batch, device: torch.device, smoothing: float
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Each loss of one batch; the logits and the labels of its pictures with one shape or none."""
    images = normalised(batch.images, device).contiguous(memory_format=torch.channels_last)
    labels, boxes = batch.labels.to(device), batch.boxes.to(device)
    with torch.autocast(device.type, torch.bfloat16):
        features = features_of(model, images)
    features = features.float()
    maps = torch.einsum("ck,nkhw->nchw", model.fc.weight, features)
    single = (labels != PADDING).sum(1) <= 1
    # A smaller picture is a cut-out of a full one: it brings as much, from fewer cells.
    logits = maps[single].sum((2, 3)) / FULL_CELLS + model.fc.bias
    first = labels[single, 0]
    truth = torch.where(first == PADDING, NOTHING, first)
    parts = map_losses(maps, model.fc.bias, labels, boxes)
    return (
        {"entropy": F.cross_entropy(logits, truth, label_smoothing=smoothing), **parts},
        logits,
        truth,
    )


def freeze(model: ResNet, stages: int) -> None:
    """Keep the first stages as they are: the stem, then layer1 to layer4.

    They work on the largest maps, and so cost more than their share; after some hundred thousand
    pictures they hardly change.
    """
    stem = nn.ModuleList([model.conv1, model.bn1])
    for stage in [stem, model.layer1, model.layer2, model.layer3, model.layer4][:stages]:
        stage.eval().requires_grad_(False)


class Average:
    """An exponential moving average of a model's parameters and buffers."""

    def __init__(self, model: ResNet, decay: float) -> None:
        self._decay, self._updates = decay, 0
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: ResNet) -> None:
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for key, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)


def save(state: dict[str, Tensor], path: Path) -> None:
    """Write float16 safetensors under a new name first, so that no half file is ever read."""
    half = {
        key: (value.half() if value.dtype.is_floating_point else value).contiguous().cpu()
        for key, value in state.items()
    }
    metadata = {
        "arch": "resnet18",
        "labels": json.dumps(LABELS),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "input_size": str(INPUT_SIZE),
        "format": "pt",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(half, partial, metadata)
    partial.chmod(0o644)
    partial.replace(path)


@torch.no_grad()
def seen(
    state: dict[str, Tensor], batches: list[Batch], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features (N, 512, h, w) and the first labels (N,) of drawn batches, on the CPU."""
    model = resnet18(num_classes=len(LABELS))
    model.load_state_dict(state)
    model.to(device, memory_format=torch.channels_last).eval()
    features = []
    for batch in batches:
        images = normalised(batch.images, device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            features.append(features_of(model, images).float().cpu())
    labels = torch.cat([batch.labels[:, 0] for batch in batches])
    return torch.cat(features), torch.where(labels == PADDING, NOTHING, labels)


def evaluate(
    state: dict[str, Tensor], batches: list[Batch], device: torch.device
) -> tuple[float, float]:
    """Top-1 and pointing share of a state on drawn batches."""
    features, labels = seen(state, batches, device)
    weight, bias = state["fc.weight"].cpu(), state["fc.bias"].cpu()
    right = F.linear(features.mean((2, 3)), weight, bias).argmax(1) == labels
    shown = labels != NOTHING
    cams = torch.einsum("nk,nkhw->nhw", weight[labels[shown]], features[shown])
    peak = F.one_hot(cams.flatten(1).argmax(1), cams.shape[1] * cams.shape[2]).bool()
    boxes = torch.cat([batch.boxes[:, 0] for batch in batches])[shown]
    hits = (peak & target_cells(boxes, cams.shape[-1]).flatten(1)).any(1)
    return float(right.float().mean()), float(hits.float().mean())


def settle_nothing(
    state: dict[str, Tensor], batches: list[Batch], device: torch.device
) -> tuple[float, float, float]:
    """Moves the bias of `nothing` to where most pictures of drawn batches are named right.

    While it learns, `nothing` is also the answer to all that is beside the shapes, and is given
    too often: nearly all that is named wrong is taken for nothing.

    Returns:
        How far it was moved; top-1 before and after.
    """
    features, labels = seen(state, batches, device)
    logits = F.linear(features.mean((2, 3)), state["fc.weight"].cpu(), state["fc.bias"].cpu())
    moves = torch.linspace(-3.0, 1.0, 81)
    moved = logits.repeat(len(moves), 1, 1)
    moved[:, :, NOTHING] += moves[:, None]
    shares = (moved.argmax(2) == labels).float().mean(1)
    # The middle of those around the best one that are as good, to within a picture in a thousand.
    first = last = int(shares.argmax())
    good = shares >= shares.max() - 1e-3
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(moves) - 1 and good[last + 1]:
        last += 1
    chosen = (first + last) // 2
    state["fc.bias"][NOTHING] += moves[chosen]
    before = float((logits.argmax(1) == labels).float().mean())
    return float(moves[chosen]), before, float(shares[chosen])


def phases(text: str) -> list[Phase]:
    """Read `side:batch:pictures:most[:ease],...`: the fields of `Phase`."""
    rows = [row.split(":") for row in text.split(",")]
    return [
        Phase(*(int(value) for value in row[:4]), *(float(value) for value in row[4:]))
        for row in rows
    ]


def learning_rate(share: float, peak: float) -> float:
    """One cycle over all pixels: a short rise, then a cosine to 0.2 % of the peak."""
    if share < 0.03:
        return peak * (0.05 + 0.95 * share / 0.03)
    fall = (share - 0.03) / 0.97
    return peak * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * min(fall, 1.0))))


class Trainer:
    """The model, its optimizer and average, and how many pixels it has seen."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._device = torch.device(args.device)
        self._started = time.monotonic()
        photographs = package_photographs()
        if args.photographs is not None:
            photographs += folder_photographs(args.photographs)
        rng = np.random.default_rng(args.seed)
        self._pool = make_pool(rng, args.pool, BACKGROUND_PX, photographs, args.photo_share)
        logger.info("%d photographs, backgrounds: %s", len(photographs), kinds(self._pool))
        self._model = resnet18(num_classes=len(LABELS), zero_init_residual=True)
        if args.init:
            state = load_file(args.init)
            self._model.load_state_dict({k: as_float32(v) for k, v in state.items()})
        self._model.to(self._device, memory_format=torch.channels_last)
        freeze(self._model, args.frozen)
        learning = [p for p in self._model.parameters() if p.requires_grad]
        decayed = [p for p in learning if p.ndim > 1]
        plain = [p for p in learning if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
            lr=args.lr,
            fused=True,
        )
        self._average = Average(self._model, args.ema)
        self._total = sum(phase.pixels for phase in args.phases)
        self._seen = 0

    def run(self) -> None:
        for phase in self._args.phases:
            self._run_phase(phase)
        apart = held_out(self._pool, self._args.seed + 2, INPUT_SIZE, 2000)
        moved = settle_nothing(self._average.state, apart, self._device)
        logger.info("bias of nothing moved by %.2f: top-1 %.4f → %.4f", *moved)
        save(self._average.state, self._args.out)
        held = held_out(self._pool, self._args.seed + 1, INPUT_SIZE, 600)
        figures = evaluate(self._average.state, held, self._device)
        logger.info("done in %.1f min: top-1 %.4f, pointing %.4f", self._minutes, *figures)

    @property
    def _minutes(self) -> float:
        return (time.monotonic() - self._started) / 60

    def _run_phase(self, phase: Phase) -> None:
        drawn = Drawn(self._pool, self._args.seed, phase)
        workers = self._args.workers
        loader = DataLoader(drawn, batch_size=None, num_workers=workers, prefetch_factor=4)
        held = held_out(self._pool, self._args.seed, phase.side_px, 300)
        n_steps = phase.pictures // phase.batch
        begun = saved = time.monotonic()
        sums: dict[str, float] = defaultdict(float)
        self._model.train()
        freeze(self._model, self._args.frozen)
        for step, batch in enumerate(islice(loader, n_steps), 1):
            parts, n_right, n_single = self._step(batch)
            self._seen += phase.batch * phase.side_px**2
            for name, value in parts.items():
                sums[name] += value / 50
            sums["top-1"] += n_right / max(n_single, 1) / 50
            if step % 50 == 0:
                speed = step * phase.batch / (time.monotonic() - begun)
                figures = ", ".join(f"{name} {value:.3f}" for name, value in sums.items())
                share = 100 * self._seen / self._total
                logger.info(
                    "%5.1f min %2.0f %%: %s, %.0f img/s", self._minutes, share, figures, speed
                )
                sums.clear()
            if time.monotonic() - saved > self._args.save_every:
                save(self._average.state, self._args.out)
                shares = evaluate(self._average.state, held, self._device)
                logger.info("saved: top-1 %.4f, pointing %.4f", *shares)
                saved = time.monotonic()

    def _step(self, batch: Batch) -> tuple[dict[str, float], int, int]:
        """Learn from one batch; its losses, and how many single shapes were named right."""
        args = self._args
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._seen / self._total, args.lr)
        parts, logits, truth = losses(self._model, batch, self._device, args.smoothing)
        weights = {"alone": args.alone, "behind": args.behind}
        weights |= {"pointing": args.pointing, "local": args.local, "beside": args.beside}
        total = sum(weights.get(name, 1.0) * loss for name, loss in parts.items())
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 2.0)
        self._optimizer.step()
        self._average.update(self._model)
        n_right = int((logits.argmax(1) == truth).sum())
        return {name: loss.item() for name, loss in parts.items()}, n_right, len(truth)


def as_float32(value: Tensor) -> Tensor:
    """A tensor ready to train: float32; a counter keeps its type."""
    return value.float() if value.is_floating_point() else value


def held_out(pool: list[Background], seed: int, side_px: int, count: int) -> list[Batch]:
    """Pictures with one shape or none, drawn from a seed that no training uses."""
    rows = iter(Drawn(pool, seed + 10_000, Phase(side_px, 50, count, 1)))
    threads = torch.get_num_threads()
    batches = [next(rows) for _ in range(count // 50)]
    torch.set_num_threads(threads)
    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=ASSET)
    parser.add_argument("--init", type=Path, help="go on from these weights")
    parser.add_argument(
        "--phases", type=phases, default=PHASES, help="side:batch:pictures:most shapes[:easy], ..."
    )
    parser.add_argument(
        "--frozen",
        type=int,
        choices=range(6),
        default=0,
        help="stages that do not learn: the stem, layer1, ...",
    )
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--alone", type=float, default=0.5, help="weight of each shape's own loss")
    parser.add_argument("--behind", type=float, default=0.25, help="weight of the background's")
    parser.add_argument("--pointing", type=float, default=0.4, help="weight of the pointing loss")
    parser.add_argument("--local", type=float, default=0.3, help="weight of the local loss")
    parser.add_argument("--beside", type=float, default=0.5, help="weight of the heat elsewhere")
    parser.add_argument("--smoothing", type=float, default=0.02, help="label smoothing")
    parser.add_argument("--ema", type=float, default=0.997, help="decay of the average, a step")
    parser.add_argument("--pool", type=int, default=2000, help="backgrounds to draw")
    parser.add_argument("--photographs", type=Path, help="folder of more pictures to draw before")
    parser.add_argument(
        "--photo-share", type=float, default=PHOTO_SHARE, help="backgrounds that are photographs"
    )
    parser.add_argument("--workers", type=int, default=2, help="drawing processes")
    parser.add_argument("--save-every", type=float, default=240, help="seconds")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    Trainer(args).run()


if __name__ == "__main__":
    main()
