"""Prints which build of torch the environment holds, and what is installed beside it."""

import json
import sys
from importlib import metadata

import torch  # type: ignore[import-not-found, unused-ignore]

seen = {
    "names": sorted({str(found.metadata["Name"]).lower().replace("_", "-") for found in metadata.distributions()}),
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "available": torch.cuda.is_available(),
}
sys.stdout.write("\n" + json.dumps({"probe": "torch_build", **seen}) + "\n")
