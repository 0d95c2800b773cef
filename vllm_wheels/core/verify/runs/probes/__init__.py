"""Scripts that run inside the environment of a wheel being tried; each prints what it saw as one line of JSON."""
