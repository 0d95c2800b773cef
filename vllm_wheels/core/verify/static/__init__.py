"""The checks that look at a wheel without installing it, a module per question."""
