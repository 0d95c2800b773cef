"""Prints the names of all distributions that the environment holds."""

import json
import sys
from importlib import metadata

names = sorted({str(found.metadata["Name"]).lower().replace("_", "-") for found in metadata.distributions()})
sys.stdout.write("\n" + json.dumps({"probe": "distributions", "names": names}) + "\n")
