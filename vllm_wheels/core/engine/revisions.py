"""What of our own code decides about results, as data; kept apart so that looking at it imports nothing else."""

from __future__ import annotations

READING = 1
"""Raised when more or something else is read out of a source tree, so that artifacts made before are made again."""

BUILD = {"type": "Release", "cmake_args": "-DENABLE_AMX_FP8=OFF", "epoch": "1577836800", "paths": "as they are"}
"""What of the build's configuration determines objects, besides the variant. The epoch is 2020-01-01.

Paths are those of the sources; failed assertions name them.
"""
