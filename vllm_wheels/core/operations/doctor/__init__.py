"""Checks a machine before a long build; each check is an entry of ``probes.PROBES``."""
