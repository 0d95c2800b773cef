"""Paths in a wheel: the CPU guard, and the module that imports it."""

GUARD = "vllm/_cpu_guard.py"
INIT = "vllm/__init__.py"
