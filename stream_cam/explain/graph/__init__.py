"""A frame as one graph: upload, preprocess, network, choice of classes, maps, overlay, download."""
