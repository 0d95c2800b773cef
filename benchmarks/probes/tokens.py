"""Prints how fast the vLLM of this environment reads prompts and writes tokens, with a small random Llama.

Lies beside the probes of ``vllm_wheels/core/verify`` while it runs, whose tiny Llama it takes in a larger size.
Called with the path of models.toml as JSON.
"""

import json
import sys
import time
from pathlib import Path

# Behind the others, for that folder holds modules of everyday names.
sys.path.append(str(Path(__file__).parent))

from tiny_models import loaded  # type: ignore[import-not-found, unused-ignore]

LARGER = {
    "vocab_size": 16384,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 1024,
}
"""133 million parameters, 266 MB: more than the caches hold."""

PROMPTS = [[(17 * row + 31 * place) % 16000 + 3 for place in range(256)] for row in range(4)]
TOKENS = 64
ROUNDS = 5


def main() -> None:
    """Measures after one round of warming up; the fastest round counts, which others disturbed the least."""
    from vllm import SamplingParams  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - vLLM starts this file again in each of its processes

    table = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    given = {
        "load_format": "dummy",
        "max_model_len": 512,
        "max_num_batched_tokens": None,
        "num_gpu_blocks_override": None,
    }
    with loaded(table, {"family": "llama", "config": LARGER}, weights=False, **given) as (model, _):

        def seconds(tokens: int) -> float:
            wishes = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
            started = time.monotonic()
            model.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], wishes, use_tqdm=False)
            return time.monotonic() - started

        seconds(2)
        reading = min(seconds(1) for _ in range(ROUNDS))
        both = min(seconds(TOKENS + 1) for _ in range(ROUNDS))
    figures = {
        "prompt_tokens_per_second": round(sum(map(len, PROMPTS)) / reading, 1),
        "tokens_per_second": round(len(PROMPTS) * TOKENS / (both - reading), 1),
    }
    sys.stdout.write("\n" + json.dumps({"probe": "tokens", **figures}) + "\n")


if __name__ == "__main__":
    main()
