"""The finished wheel of a variant."""
