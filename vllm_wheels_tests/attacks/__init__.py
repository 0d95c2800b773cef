"""Attacks by what the pipeline runs and by who can reach it: each looks for a canary, or tries to change something."""
