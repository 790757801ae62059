"""A frame becomes an explanation: on the host, or as one graph on the GPU."""
