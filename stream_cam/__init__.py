"""Shows, live, which part of a video a convolutional network looks at.

    from stream_cam import Explainer, draw_overlay
    explainer = Explainer.load("resnet18", weights="demo")
    explanation = explainer.explain(frame_bgr)
    picture_bgr = draw_overlay(frame_bgr, explanation)

Names are imported when they are first used: `import stream_cam` alone costs nothing.
"""

import lazy_loader

from stream_cam import import_order

import_order.install()

# The names stand in __init__.pyi.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
