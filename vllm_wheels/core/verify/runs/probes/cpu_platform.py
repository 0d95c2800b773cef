"""Prints the platform that vLLM chooses when nobody tells it one."""

import json
import os
import sys

told = os.environ.get("VLLM_TARGET_DEVICE")

from vllm.platforms import current_platform  # type: ignore[import-not-found, unused-ignore]  # noqa: E402 - it reads the environment

seen = {
    "told": told,
    "is_cpu": current_platform.is_cpu(),
    "device_type": current_platform.device_type,
    "platform": type(current_platform).__name__,
}
sys.stdout.write("\n" + json.dumps({"probe": "cpu_platform", **seen}) + "\n")
