"""The README's example, as it stands there; its output is copied into the README."""

import cv2

from stream_cam import Explainer, open_source

explainer = Explainer.load("resnet18", weights="demo")
with open_source("demo://shapes?seconds=10&seed=0") as source:
    frame_bgr = next(frame.image_bgr for frame in source if frame.index == 100)

explanation = explainer.explain(frame_bgr)
for prediction in explanation.predictions[:3]:
    print(f"{prediction.label:10} {prediction.probability:.3f}")
print("map", explanation.cam.shape, explanation.cam.dtype, "peak at", explanation.peak_xy())
print(explainer.engine_info)
cv2.imwrite("explained.png", explainer.overlay(frame_bgr, explanation))
