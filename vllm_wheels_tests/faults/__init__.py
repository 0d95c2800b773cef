"""Faults that are injected on purpose, each followed by a plain rerun that must end as if nothing had been."""
