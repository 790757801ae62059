"""Threads and shutdown of a run, and what it counts, reports and wires together."""
