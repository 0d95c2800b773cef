"""Places where compilers run: this host or a container, and how images are made."""
