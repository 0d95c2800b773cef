"""Everything that a plain script could use; nothing in here imports Dagster."""
