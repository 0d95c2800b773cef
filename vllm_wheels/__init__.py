"""Builds, verifies and publishes CPU-only vLLM wheels in five instruction-set variants."""
