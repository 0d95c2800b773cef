"""Verifies a finished wheel: static checks, test runs of the installed wheel, and the report on both."""
