"""Prints how fast the vLLM of this environment reads prompts and writes tokens, with a small random Llama."""

import json
import sys
import tempfile
import time
from pathlib import Path

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 16384,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
"""133 million parameters, 266 MB: more than the caches hold."""

PROMPTS = [[(17 * row + 31 * place) % 16000 + 3 for place in range(256)] for row in range(4)]
TOKENS = 64
ROUNDS = 5


def main() -> None:
    """Measures after one round of warming up; the fastest round counts, which others disturbed the least."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]  # noqa: PLC0415 - vLLM starts this file again in each of its processes

    with tempfile.TemporaryDirectory(prefix="small-llama-") as folder:
        Path(folder, "config.json").write_text(json.dumps(CONFIG), "utf-8")
        model = LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            enforce_eager=True,
            enable_prefix_caching=False,
            max_model_len=512,
            seed=0,
        )

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
