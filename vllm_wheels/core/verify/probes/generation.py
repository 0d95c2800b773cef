"""Lets a tiny Llama with random weights continue the same prompt twice; downloads nothing."""

import json
import math
import sys
import tempfile
import time
from pathlib import Path

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
PROMPT = [1, 17, 42, 99, 256, 512, 700, 1000]
TOKENS = 32


def main() -> None:
    """Generates and prints tokens, their likelihood and the speed of the second run."""
    started = time.monotonic()
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - vLLM starts this file again in each of its processes

    with tempfile.TemporaryDirectory(prefix="tiny-llama-") as folder:
        Path(folder, "config.json").write_text(json.dumps(CONFIG), "utf-8")
        model = LLM(
            model=folder, load_format="dummy", skip_tokenizer_init=True, enforce_eager=True, max_model_len=256, seed=0
        )
        ready = time.monotonic()
        greedy = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False, logprobs=1)
        first = model.generate([{"prompt_token_ids": PROMPT}], greedy, use_tqdm=False)[0].outputs[0]
        between = time.monotonic()
        second = model.generate([{"prompt_token_ids": PROMPT}], greedy, use_tqdm=False)[0].outputs[0]
        ended = time.monotonic()
    seen = {
        "tokens": [list(first.token_ids), list(second.token_ids)],
        "finite": math.isfinite(first.cumulative_logprob),
        "start_seconds": round(ready - started, 1),
        "tokens_per_second": round(TOKENS / (ended - between), 1),
    }
    sys.stdout.write("\n" + json.dumps({"probe": "generation", **seen}) + "\n")


if __name__ == "__main__":
    main()
