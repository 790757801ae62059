"""`stream-cam batch`: many videos, one after another or some at once; finished ones are kept."""

from stream_cam.cli.batch.command import batch_command
from stream_cam.cli.batch.jobs import Job, VideoBatch
from stream_cam.cli.batch.videos import find_videos

__all__ = ["Job", "VideoBatch", "batch_command", "find_videos"]
