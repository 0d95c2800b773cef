"""Imports the packages that come with torch, as vLLM's models do, and prints which versions there are."""

import importlib
import json
import sys
from importlib import metadata

for name in sys.argv[1:]:
    importlib.import_module(name)
seen = {name: metadata.version(name) for name in sys.argv[1:]}
sys.stdout.write("\n" + json.dumps({"probe": "companions", "versions": seen}) + "\n")
