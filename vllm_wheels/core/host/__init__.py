"""This machine: processes, memory and cores, archives, downloads, git, locks."""
