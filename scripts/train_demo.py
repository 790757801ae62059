"""Train the demo model: a ResNet18 that names ten drawn shapes, and whose map points at them.

    python scripts/train_demo.py --minutes 55

Needs `pip install -e .[train]`. The pictures are drawn while it trains, from a fixed seed; the
number of pictures seen depends on the machine's speed, because the schedule runs on time: the
budget is kept on any machine, and a checkpoint is written every few minutes.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
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

from demo_backgrounds import Background, kinds, make_pool, package_photographs  # noqa: E402
from demo_pictures import LABELS, Painter, Picture  # noqa: E402

logger = logging.getLogger("train_demo")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INPUT_SIZE = 224
STRIDE = 32
ASSET = ROOT / "stream_cam" / "assets" / "demo.safetensors"


@dataclass(frozen=True)
class Phase:
    side_px: int
    batch: int
    until: float
    """Share of the time budget at which the phase ends, 0..1."""


PHASES = "96:64:0.22,128:64:0.58,224:40:1"


@dataclass(frozen=True)
class Batch:
    images: Tensor
    """(N, 3, S, S) uint8, RGB, channels last."""
    labels: Tensor
    """(N,) int64."""
    boxes: Tensor
    """(N, 4) float32, pixels x0, y0, x1, y1; zero for `nothing`."""


class Drawn(IterableDataset[Batch]):
    """An endless row of batches, drawn in the loader's workers."""

    def __init__(self, pool: list[Background], seed: int, side_px: int, batch: int) -> None:
        self._painter = Painter(pool, seed)
        self._seed, self._side_px, self._batch = seed, side_px, batch

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        worker = get_worker_info()
        rng = np.random.default_rng([self._seed, self._side_px, worker.id if worker else 0])
        while True:
            pictures = [self._painter.paint(rng, self._side_px) for _ in range(self._batch)]
            yield collate(pictures)


def collate(pictures: list[Picture]) -> Batch:
    images_bgr = np.stack([picture.image_bgr for picture in pictures])
    images = torch.from_numpy(images_bgr[..., ::-1].copy()).permute(0, 3, 1, 2)
    return Batch(
        images,
        torch.tensor([p.label for p in pictures]),
        torch.tensor([p.box_xyxy for p in pictures], dtype=torch.float32),
    )


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


def map_losses(maps: Tensor, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """What the maps of shape pictures lose, and what they lose on the shape alone.

    Args:
        maps: (N, classes, h, w), every class's map with its bias added.
        labels: (N,) of shapes, none of `nothing`.
        boxes: (N, 4) in pixels.

    Returns:
        Pointing: -log of the share of softmax(true class's map) on the target cells. Local:
        cross entropy of the maps averaged over those cells. Its gradient is not diluted by the
        cells beside a small shape, as that of the pooled logits is.
    """
    if not len(labels):
        return maps.sum() * 0, maps.sum() * 0
    allowed = target_cells(boxes, maps.shape[-1]).flatten(1)
    flat = maps.flatten(2)
    log_mass = F.log_softmax(flat[torch.arange(len(labels)), labels], dim=1)
    pointing = -torch.logsumexp(log_mass.masked_fill(~allowed, -1e4), dim=1).mean()
    weight = allowed.float() / allowed.sum(1, keepdim=True)
    return pointing, F.cross_entropy(torch.einsum("ncp,np->nc", flat, weight), labels)


def losses(
    model: ResNet, batch: Batch, device: torch.device, smoothing: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cross entropy, pointing loss, local cross entropy and the logits of one batch."""
    images = normalised(batch.images, device).contiguous(memory_format=torch.channels_last)
    labels, boxes = batch.labels.to(device), batch.boxes.to(device)
    with torch.autocast(device.type, torch.bfloat16):
        features = features_of(model, images)
    features = features.float()
    logits = model.fc(features.mean((2, 3)))
    maps = torch.einsum("ck,nkhw->nchw", model.fc.weight, features)
    maps = maps + model.fc.bias[:, None, None]
    shown = labels != len(LABELS) - 1
    entropy = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return entropy, *map_losses(maps[shown], labels[shown], boxes[shown]), logits


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
def evaluate(
    state: dict[str, Tensor], batches: list[Batch], device: torch.device
) -> tuple[float, float]:
    """Top-1 and pointing share of a state on drawn batches."""
    model = resnet18(num_classes=len(LABELS))
    model.load_state_dict(state)
    model.to(device, memory_format=torch.channels_last).eval()
    right = total = hits = shapes = 0
    for batch in batches:
        images = normalised(batch.images, device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            features = features_of(model, images)
        features, labels = features.float().cpu(), batch.labels
        logits = F.linear(features.mean((2, 3)), model.fc.weight.cpu(), model.fc.bias.cpu())
        right += int((logits.argmax(1) == labels).sum())
        total += len(labels)
        cams = torch.einsum("nk,nkhw->nhw", model.fc.weight.cpu()[labels], features)
        shown = labels != len(LABELS) - 1
        peak = F.one_hot(cams.flatten(1).argmax(1), cams[0].numel()).bool()
        allowed = target_cells(batch.boxes, cams.shape[-1]).flatten(1)
        hits += int((peak & allowed).any(1)[shown].sum())
        shapes += int(shown.sum())
    return right / total, hits / max(shapes, 1)


def phases(text: str) -> list[Phase]:
    """Read `side:batch:until,...`, the pictures' side in pixels and shares of the budget."""
    rows = [row.split(":") for row in text.split(",")]
    return [Phase(int(side), int(batch), float(until)) for side, batch, until in rows]


def learning_rate(share: float, peak: float) -> float:
    """One cycle over the time budget: a short rise, then a cosine to 1 % of the peak."""
    if share < 0.03:
        return peak * (0.05 + 0.95 * share / 0.03)
    fall = (share - 0.03) / 0.97
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(fall, 1.0))))


def train(args: argparse.Namespace) -> None:
    started = time.monotonic()
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    rng = np.random.default_rng(args.seed)
    photographs = package_photographs()
    pool = make_pool(rng, args.pool, 288, photographs)
    logger.info("%d photographs, %d backgrounds: %s", len(photographs), len(pool), kinds(pool))
    model = resnet18(num_classes=len(LABELS), zero_init_residual=True)
    if args.init:
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in load_file(args.init).items()}
        )
    model.to(device, memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=args.lr,
        fused=True,
    )
    average = Average(model, args.ema)
    logger.info("setup took %.0f s", time.monotonic() - started)
    for phase in args.phases:
        run_phase(args, phase, model, optimizer, average, pool, started)
    save(average.state, args.out)
    held = validation(pool, args.seed + 1, INPUT_SIZE, 600)
    top1, pointing = evaluate(average.state, held, device)
    minutes = (time.monotonic() - started) / 60
    logger.info("done in %.1f min: top-1 %.4f, pointing %.4f", minutes, top1, pointing)


def validation(pool: list[Background], seed: int, side_px: int, count: int) -> list[Batch]:
    rows = iter(Drawn(pool, seed + 10_000, side_px, 50))
    threads = torch.get_num_threads()
    batches = [next(rows) for _ in range(count // 50)]
    torch.set_num_threads(threads)
    return batches


def run_phase(
    args: argparse.Namespace,
    phase: Phase,
    model: ResNet,
    optimizer: torch.optim.Optimizer,
    average: Average,
    pool: list[Background],
    started: float,
) -> None:
    """Train at one picture size until the phase's share of the budget is spent."""
    device = torch.device(args.device)
    budget_s = args.minutes * 60 - args.reserve
    drawn = Drawn(pool, args.seed, phase.side_px, phase.batch)
    loader = DataLoader(drawn, batch_size=None, num_workers=args.workers, prefetch_factor=4)
    held = validation(pool, args.seed, phase.side_px, 300)
    begun = saved = time.monotonic()
    seen = right = 0
    sums = [0.0, 0.0]
    steps = 0
    model.train()
    for batch in loader:
        share = (time.monotonic() - started) / budget_s
        if share >= phase.until:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(share, args.lr)
        entropy, pointing, local, logits = losses(model, batch, device, args.smoothing)
        optimizer.zero_grad(set_to_none=True)
        (entropy + args.pointing * pointing + args.local * local).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        average.update(model)
        steps += 1
        seen += len(logits)
        right += int((logits.argmax(1).cpu() == batch.labels).sum())
        sums[0] += entropy.item()
        sums[1] += pointing.item()
        if steps % 50 == 0:
            speed = seen / (time.monotonic() - begun)
            logger.info(
                "%5.1f min %d px step %d: entropy %.3f, pointing %.3f, top-1 %.3f, %.0f img/s",
                (time.monotonic() - started) / 60,
                phase.side_px,
                steps,
                sums[0] / 50,
                sums[1] / 50,
                right / (50 * phase.batch),
                speed,
            )
            right, sums = 0, [0.0, 0.0]
        if time.monotonic() - saved > args.save_every:
            saved = time.monotonic()
            save(average.state, args.out)
            logger.info(
                "EMA at %d px: top-1 %.4f, pointing %.4f (saved)",
                phase.side_px,
                *evaluate(average.state, held, device),
            )
    logger.info("phase %d px: %d steps, %d pictures", phase.side_px, steps, seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=55, help="wall-clock budget")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=ASSET)
    parser.add_argument("--init", type=Path, help="go on from these weights")
    parser.add_argument("--phases", type=phases, default=PHASES, help="side:batch:until, ...")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--pointing", type=float, default=0.4, help="weight of the pointing loss")
    parser.add_argument("--local", type=float, default=0.3, help="weight of the local loss")
    parser.add_argument("--smoothing", type=float, default=0.02, help="label smoothing")
    parser.add_argument("--ema", type=float, default=0.997, help="decay of the average, a step")
    parser.add_argument("--pool", type=int, default=2000, help="backgrounds to draw")
    parser.add_argument("--workers", type=int, default=2, help="drawing processes")
    parser.add_argument("--save-every", type=float, default=240, help="seconds")
    parser.add_argument("--reserve", type=float, default=45, help="seconds kept for the end")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    cv2.setNumThreads(1)
    train(args)


if __name__ == "__main__":
    main()
