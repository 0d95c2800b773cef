"""Generates tokens with a tiny Mixtral where AMX is emulated, and prints which AMX instructions that took.

Called with what vLLM is to be told about AMX: ``yes`` or ``no``. Runs with amx.c preloaded and AMX_COUNTS set. vLLM
asks torch, and torch asks the processor, which knows nothing of the emulation: so torch is given its answer, in each of
vLLM's processes.
"""

import json
import os
import struct
import sys
from pathlib import Path

import torch  # type: ignore[import-not-found, unused-ignore]

# Behind the others, for this folder holds modules of everyday names.
sys.path.append(str(Path(__file__).parent))

from generation import CONFIG, EXPERTS, continued, loaded  # type: ignore[import-not-found, unused-ignore]

LIKELIEST = 5
RECORD = struct.Struct("16s16sQ")
"""As in amx.c: the feature, the instruction, and how often it was executed."""

HAS_AMX = sys.argv[1] == "yes"


def answer() -> bool:
    """Stands in for the only function by which vLLM asks whether there is AMX."""
    return HAS_AMX


def executed() -> dict[tuple[str, str], int]:
    """How often all processes have executed each instruction so far, by its feature and name."""
    records = RECORD.iter_unpack(Path(os.environ["AMX_COUNTS"]).read_bytes())
    return {(_text(feature), _text(name)): count for feature, name, count in records}


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode()


def main() -> None:
    """Generates and prints."""
    with loaded(CONFIG | EXPERTS, max_model_len=256) as model:
        before = executed()
        output = continued(model, logprobs=LIKELIEST)
    counts: dict[str, dict[str, int]] = {}
    for (feature, name), count in executed().items():
        if meanwhile := count - before[feature, name]:
            counts.setdefault(feature, {})[name] = meanwhile
    likelihoods = [{token: round(each.logprob, 4) for token, each in place.items()} for place in output.logprobs]
    seen = {"tokens": list(output.token_ids), "likelihoods": likelihoods, "instructions": counts}
    sys.stdout.write("\n" + json.dumps({"probe": "emulated_amx", **seen}) + "\n")


torch.cpu._is_amx_tile_supported = answer  # noqa: SLF001 - the question, as vLLM asks it

if __name__ == "__main__":
    main()
