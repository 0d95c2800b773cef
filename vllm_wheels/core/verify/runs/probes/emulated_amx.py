"""Generates tokens with a tiny model where AMX is emulated, and prints which AMX instructions that took.

    emulated_amx.py TABLE MODEL yes|no

The last word is what vLLM is to be told about AMX. Runs with amx.c preloaded and AMX_COUNTS set. vLLM
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

from tiny_models import PROMPTS, continued, loaded  # type: ignore[import-not-found, unused-ignore]

RECORD = struct.Struct("16s16sQ")
"""As in amx.c: the feature, the instruction, and how often it was executed."""

TABLE, MODEL, TOLD = sys.argv[1:]


def answer() -> bool:
    """Stands in for the only function by which vLLM asks whether there is AMX."""
    return TOLD == "yes"


def executed() -> dict[tuple[str, str], int]:
    """How often all processes have executed each instruction so far, by its feature and name."""
    records = RECORD.iter_unpack(Path(os.environ["AMX_COUNTS"]).read_bytes())
    return {(_text(feature), _text(name)): count for feature, name, count in records}


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode()


def main() -> None:
    """Generates and prints."""
    table = json.loads(Path(TABLE).read_text("utf-8"))
    with loaded(table, table["models"][MODEL]) as (model, _):
        before = executed()
        (output,) = continued(model, PROMPTS[:1])
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
