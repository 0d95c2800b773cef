"""How every variant is compiled, whatever its sources and flags."""

from __future__ import annotations

BUILD = {"type": "Release", "cmake_args": "-DENABLE_AMX_FP8=OFF", "epoch": "1577836800", "paths": "as they are"}
"""What of the build's configuration determines objects, besides the variant. The epoch is 2020-01-01.

Paths are those of the sources; failed assertions name them.
"""
