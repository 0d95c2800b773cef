"""Imports the packages that come with torch, as vLLM's models do, and prints which versions there are."""

import importlib
import json
import sys

seen = {name: str(importlib.import_module(name).__version__) for name in sys.argv[1:]}
sys.stdout.write("\n" + json.dumps({"probe": "companions", "versions": seen}) + "\n")
