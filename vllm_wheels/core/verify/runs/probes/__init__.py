"""Scripts that run inside the wheel's environment; each prints what it saw as one line of JSON."""
