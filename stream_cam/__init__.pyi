# The public names, each with its module: lazy_loader and type checkers read them here.
from ._version import __version__ as __version__
from .cam.steady import SteadyMaps as SteadyMaps
from .config import (
    CaptureConfig as CaptureConfig,
)
from .config import (
    LookConfig as LookConfig,
)
from .config import (
    ModelConfig as ModelConfig,
)
from .config import (
    ModuleConfig as ModuleConfig,
)
from .config import (
    PipelineConfig as PipelineConfig,
)
from .config import (
    RecordConfig as RecordConfig,
)
from .config import (
    RunConfig as RunConfig,
)
from .config import (
    WebConfig as WebConfig,
)
from .draw.overlay import (
    draw_heatmap as draw_heatmap,
)
from .draw.overlay import (
    draw_overlay as draw_overlay,
)
from .draw.renderer import Renderer as Renderer
from .errors import (
    EngineError as EngineError,
)
from .errors import (
    ModelError as ModelError,
)
from .errors import (
    NoCamError as NoCamError,
)
from .errors import (
    OutputExistsError as OutputExistsError,
)
from .errors import (
    SinkError as SinkError,
)
from .errors import (
    SourceError as SourceError,
)
from .errors import (
    SourceNotFoundError as SourceNotFoundError,
)
from .errors import (
    StreamCamError as StreamCamError,
)
from .errors import (
    UsageError as UsageError,
)
from .errors import (
    WeightsError as WeightsError,
)
from .explain.explainer import Explainer as Explainer
from .frame import (
    Explanation as Explanation,
)
from .frame import (
    Features as Features,
)
from .frame import (
    Frame as Frame,
)
from .frame import (
    Prediction as Prediction,
)
from .frame import (
    Region as Region,
)
from .frame import (
    Truth as Truth,
)
from .model.camnet import CamNet as CamNet
from .pipeline.pipeline import Pipeline as Pipeline
from .pipeline.report import Report as Report
from .pipeline.serve import (
    Served as Served,
)
from .pipeline.serve import (
    run as run,
)
from .pipeline.serve import (
    serve as serve,
)
from .settings import (
    Settings as Settings,
)
from .settings import (
    SettingsSnapshot as SettingsSnapshot,
)
from .sinks import open_sink as open_sink
from .sinks.base import (
    Picture as Picture,
)
from .sinks.base import (
    Sink as Sink,
)
from .sinks.base import (
    StreamInfo as StreamInfo,
)
from .sources import open_source as open_source
from .sources.base import (
    Source as Source,
)
from .sources.base import (
    SourceInfo as SourceInfo,
)

__all__: list[str]
