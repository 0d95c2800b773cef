"""Lets a tiny Llama with random weights continue the same prompt twice; downloads nothing."""

import json
import math
import random
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
EXPERTS = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
"""Configuration that turns the Llama into a Mixtral, which has a mixture of experts."""

PROMPT = [1, 17, 42, 99, 256, 512, 700, 1000]
TOKENS = 32


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama or a Mixtral by the names that its published weights have."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, shared = (config["head_dim"] * config[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (shared, hidden),
        "self_attn.v_proj": (shared, hidden),
        "self_attn.o_proj": (hidden, heads),
    }
    experts = config.get("num_local_experts")
    if experts:
        layer["block_sparse_moe.gate"] = (experts, hidden)
        for expert in (f"block_sparse_moe.experts.{number}" for number in range(experts)):
            layer |= {f"{expert}.w1": (inner, hidden), f"{expert}.w2": (hidden, inner), f"{expert}.w3": (inner, hidden)}
    else:
        layer |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    ends = {"model.embed_tokens": (vocabulary, hidden), "model.norm": (hidden,), "lm_head": (vocabulary, hidden)}
    numbers = range(config["num_hidden_layers"])
    return ends | {f"model.layers.{number}.{name}": shape for number in numbers for name, shape in layer.items()}


def write_weights(path: Path, config: dict[str, Any]) -> None:
    """Writes random weights in the format of safetensors: a length, a table of contents, and the numbers.

    Of vLLM's own dummy weights all are so small that a layer hardly changes what passes through it, and what its
    kernels compute would not be seen in the tokens. These change it as trained ones do.
    """
    chance = random.Random(0)  # noqa: S311 - nobody is to be kept from guessing them
    contents, parts, end = {}, [], 0
    for name, shape in shapes(config).items():
        number = math.prod(shape)
        # Uniform, with the variance that keeps the sum of a row's products at 1.
        widest = math.sqrt(3 / shape[-1])
        values = [_bfloat16(widest * (2 * step / 255 - 1)) for step in range(256)]
        drawn = chance.randbytes(number) if len(shape) > 1 else b"\xff" * number
        part = bytearray(2 * number)
        for half in range(2):
            table = bytes(value[half] for value in (values if len(shape) > 1 else [_bfloat16(1.0)] * 256))
            part[half::2] = drawn.translate(table)
        contents[f"{name}.weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * number]}
        parts.append(part)
        end += 2 * number
    head = json.dumps(contents).encode()
    path.write_bytes(b"".join([struct.pack("<Q", len(head)), head, *parts]))


def _bfloat16(value: float) -> bytes:
    return struct.pack("<f", value)[2:]


@contextmanager
def loaded(config: dict[str, Any], **options: Any) -> Iterator[Any]:
    """A ``vllm.LLM`` of the model, without a tokenizer; the options are those of ``vllm.LLM``."""
    from vllm import LLM  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - vLLM starts the probe's file again in each of its processes

    with tempfile.TemporaryDirectory(prefix="tiny-model-") as folder:
        Path(folder, "config.json").write_text(json.dumps(config), "utf-8")
        if options.get("load_format") != "dummy":
            write_weights(Path(folder, "model.safetensors"), config)
        yield LLM(model=folder, skip_tokenizer_init=True, enforce_eager=True, seed=0, **options)


def continued(model: Any, *, logprobs: int) -> Any:
    """What vLLM continues the prompt with: its ``CompletionOutput``."""
    from vllm import SamplingParams  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above

    greedy = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False, logprobs=logprobs)
    return model.generate([{"prompt_token_ids": PROMPT}], greedy, use_tqdm=False)[0].outputs[0]


def main() -> None:
    """Generates and prints tokens, their likelihood and the speed of the second run."""
    started = time.monotonic()
    with loaded(CONFIG, max_model_len=256) as model:
        ready = time.monotonic()
        first = continued(model, logprobs=1)
        between = time.monotonic()
        second = continued(model, logprobs=1)
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
