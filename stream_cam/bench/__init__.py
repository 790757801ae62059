"""How fast: engines, the stages of a frame, and peers, timed in one way.

    clock.py     regions of time, and calls that take turns
    engines.py   every engine of this machine, verified, then timed
    replay.py    a session's call as a CUDA graph
    stages.py    what one frame goes through, stage by stage
    peers.py     torch-cam and pytorch-grad-cam on the same frames
    gpu.py, maps.py, kernel_case.py   the kernels on the GPU; graphs.py: whole frames as graphs
    files.py     whole files through `run` beside each stage alone
    result.py    the figures, as JSON
    machine.py   what they were measured on
    table.py, plot.py, compare.py   what people look at
    run.py       all of it; command.py: `stream-cam bench`

docs/bench.md says what each figure means.
"""
