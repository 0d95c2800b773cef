"""CPU torch and the build requirements of a release."""
