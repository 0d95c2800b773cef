"""Publishes a release: five packages, all there or none, with the bytes that were verified."""
