"""A network with its class maps, in a file for other runtimes.

network.py    the module that is written: input, network, logits and all maps
files.py      ONNX and OpenVINO's format
check.py      the written file in the runtimes, against the network in PyTorch
"""
