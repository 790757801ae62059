"""Opens the network that all cameras share: the engine that explains more frames a second."""

from __future__ import annotations

import logging
from typing import Final

from stream_cam.config import ModelConfig
from stream_cam.explain.explainer import Explainer
from stream_cam.explain.scheduler import BatchCosts
from stream_cam.explain.shared import SharedExplainer, measure_costs
from stream_cam.host import parallel_choices

logger = logging.getLogger(__name__)

_LEAST_CORES: Final = 4
"""On fewer, frames side by side gain nothing: on two cores, 89 ms a frame became 136 on a
busy machine, and the second engine takes 17 s to compile."""
_GAIN: Final = 1.1
"""Several frames at once must explain this many times as many: each of them takes longer."""


def open_network(model: ModelConfig, n_cameras: int, limit_ms: float) -> SharedExplainer:
    """Loads the network and measures it.

    A CPU's engine explains one frame as fast as it can, or several at once with more frames a
    second. Both are measured for several cameras, and the better one within the limit is kept.

    Raises:
        StreamCamError: the network cannot be loaded or run.
    """
    single = Explainer.from_config(model)
    costs = measure_costs(single, (1,))
    kept, kept_costs = single, costs
    several = parallel_choices()[-1]
    info = single.engine_info
    on_cpu = info is not None and info.device == "cpu"
    if n_cameras > 1 and several >= _LEAST_CORES and on_cpu:
        parallel = Explainer.from_config(model, parallel=several)
        found = measure_costs(parallel, (1, several))
        if _is_better(found, several, costs, limit_ms / 1e3):
            kept, kept_costs = parallel, found
    logger.info("the network explains %s", _described(kept_costs))
    return SharedExplainer(kept, limit_seconds=limit_ms / 1e3, costs=kept_costs)


def _is_better(found: BatchCosts, size: int, single: BatchCosts, limit_seconds: float) -> bool:
    together = found.seconds(size)
    return 2.0 * together <= limit_seconds and size * single.seconds(1) > _GAIN * together


def _described(costs: BatchCosts) -> str:
    return ", ".join(f"{size} in {1e3 * costs.seconds(size):.1f} ms" for size in costs.sizes)
