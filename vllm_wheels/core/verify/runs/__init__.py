"""The checks that run an installed wheel, a module per question."""
