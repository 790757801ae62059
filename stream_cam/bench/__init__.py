"""The latency benchmark: engines, the stages of a frame, and other libraries, timed in one way.

    timing.py            timers of host and GPU, and calls timed in turns
    engines.py           every engine of this machine, verified, then timed
    graph_capture.py     a session's call as a CUDA graph
    stages.py            the stages of one frame, one by one
    peers.py             torch-cam and pytorch-grad-cam on the same frames
    kernels.py, map_kernels.py, kernel_timing.py   the GPU's kernels
    graphs.py            whole frames as CUDA graphs
    throughput.py        whole files through `run`, beside each stage alone
    result.py            the figures, as JSON
    machine.py           the hardware and versions that they were measured on
    table.py, plot.py, compare.py   the figures for people
    run.py               a whole benchmark; command.py: `stream-cam bench`

docs/bench.md explains each figure.
"""
