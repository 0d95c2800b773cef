"""The patches that make a CPU-only wheel of a variant out of a release's source, each in a module of its own.

What they change below ``vllm/`` is Python-level and laid over the compiled wheel; all else is native and decides what
is compiled.
"""
