"""The network that the options name, with its weights: torchvision's, or one of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stream_cam.config import ModelConfig
from stream_cam.model.camnet import CamNet, build_network, load_parameters
from stream_cam.model.own_module import load_own_network
from stream_cam.model.torch_settings import loading
from stream_cam.model.weights import Weights, load_weights


@loading()
def load_network(
    model: ModelConfig, labels: Path | Sequence[str] | None = None
) -> tuple[CamNet, Weights]:
    """Builds the network, loads its parameters, and finds where its CAM comes from.

    Args:
        model: all of it counts but engine, device, precision, fit and targets.
        labels: class names in place of those that `model` names.

    Raises:
        UsageError: an unknown name.
        WeightsError, NoCamError, ModelError: as their messages say.
    """
    labels = model.labels if labels is None else labels
    if model.own.module is not None:
        return load_own_network(
            model.own, model.weights, labels, model.checkpoint_key, model.input_size
        )
    loaded = load_weights(model.weights, model.model, labels, model.checkpoint_key)
    module = build_network(model.model, loaded.n_classes)
    load_parameters(module, loaded.state_dict, loaded.name)
    return CamNet.from_module(module, name=model.model), loaded
