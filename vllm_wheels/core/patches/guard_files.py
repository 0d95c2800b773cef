"""Paths in a wheel: the CPU guard, what answers lookups of ``vllm``, and the module that imports both."""

GUARD = "vllm/_cpu_guard.py"
OWN_DISTRIBUTION = "vllm/_own_distribution.py"
INIT = "vllm/__init__.py"
