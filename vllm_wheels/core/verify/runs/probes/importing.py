"""Imports vLLM and prints its version and how long the import took."""

import json
import sys
import time

started = time.monotonic()
import vllm  # type: ignore[import-not-found, unused-ignore]  # noqa: E402 - the clock runs

seen = {"version": vllm.__version__, "seconds": round(time.monotonic() - started, 1)}
sys.stdout.write("\n" + json.dumps({"probe": "importing", **seen}) + "\n")
