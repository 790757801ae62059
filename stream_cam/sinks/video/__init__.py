"""Recordings: encoding, audio, segments, and playable files in every case."""
