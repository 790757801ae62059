"""Drawn scenes that need no camera and know the truth."""
