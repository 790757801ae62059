"""The clips of an archive on many machines: Ray places them, this package brings the work.

archive.py   hands the clips out and keeps the account; runs in the driver
workers.py   the workers on the nodes, as many as there is room for
nodes.py     connects to a cluster, and finds out whether its nodes can do the work
annotator.py the work on a node: one clip into one recording
manifest.py  the outcome of each clip, as JSON Lines
storage.py   files on disks and in object stores
"""

from stream_cam.cluster.archive import Archive, Standing
from stream_cam.cluster.clip import Clip, Outcome

__all__ = ["Archive", "Clip", "Outcome", "Standing"]
