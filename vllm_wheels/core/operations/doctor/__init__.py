"""Looks over a machine before a long build; each look is an entry of ``probes.PROBES``."""
