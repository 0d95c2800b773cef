"""Thin Dagster adapters over the core."""
