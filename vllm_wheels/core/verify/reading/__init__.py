"""Reads a wheel's Python code without running it: what can be reached on a CPU that answers vLLM's questions so."""
