"""Judges a finished wheel and says in a report what came out; each check is one entry of a table."""
