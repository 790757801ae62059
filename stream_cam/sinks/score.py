"""A sink that compares explanations with the ground truth of synthetic sources."""

from __future__ import annotations

from stream_cam.sinks.base import Picture, Sink


class TruthScore(Sink):
    """Counts frames with the right label, and frames with the map's peak on the object.

    The second is the pointing game of Zhang et al., "Top-down Neural Attention by Excitation
    Backprop", ECCV 2016, without its tolerance of 15 pixels.
    """

    name = "the score"

    def __init__(self) -> None:
        self.n_frames = 0
        """Frames with an object in them."""
        self.n_correct = 0
        self.n_hits = 0

    def write(self, picture: Picture) -> bool:
        explanation = picture.explanation
        if explanation is None or not picture.frame.truth:
            return True
        truth = picture.frame.truth[0]
        left, top, right, bottom = truth.box_xyxy
        x, y = explanation.peak_xy()
        self.n_frames += 1
        self.n_correct += explanation.predictions[0].label == truth.label
        self.n_hits += left <= x <= right and top <= y <= bottom
        return True

    def summary(self) -> str:
        if not self.n_frames:
            return "no frame had a ground truth to compare with"
        return (
            f"label right in {self.n_correct}/{self.n_frames} frames "
            f"({self.n_correct / self.n_frames:.1%}) · map's peak on the object in "
            f"{self.n_hits}/{self.n_frames} ({self.n_hits / self.n_frames:.1%})"
        )
