"""`stream-cam batch`: many videos, one after another or some at once, and only what is missing."""

from stream_cam.cli.batch.command import batch_command
from stream_cam.cli.batch.jobs import Batch, Job
from stream_cam.cli.batch.videos import find_videos

__all__ = ["Batch", "Job", "batch_command", "find_videos"]
