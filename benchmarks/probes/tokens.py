"""Says how fast the vLLM of this environment is with one small random model, a round whenever it is asked.

    tokens.py MODEL FOLDER

Lies beside the probes of ``vllm_wheels/core/verify`` while it runs. It writes ``ready`` into the folder once the model
is loaded and warm; for each file ``turn-N`` that appears there it measures a round and writes ``answer-N``. ``end``
ends it. So several wheels are loaded at the same time, and take turns.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

EXPERTS = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_experts_per_tok": 2,
}
"""Configuration that turns the Llama into a Mixtral, which has a mixture of experts."""

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "head_dim": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
    "vocab_size": 16384,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 1024,
}
"""133 million parameters, 266 MB in bfloat16: more than the caches hold."""

INT4 = {"bits": 4, "group_size": 128}
BYTES = {"num_bits": 8, "type": "int", "symmetric": True}
W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "all": {
            "targets": ["Linear"],
            "weights": {**BYTES, "strategy": "channel", "dynamic": False},
            "input_activations": {**BYTES, "strategy": "token", "dynamic": True},
        }
    },
}
QUANTIZED: dict[str, dict[str, Any]] = {
    "awq": {"quant_method": "awq", "zero_point": True, "version": "gemm", **INT4},
    "gptq": {"quant_method": "gptq", "desc_act": False, "sym": True, **INT4},
    "w8a8": W8A8,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "moe": LLAMA | EXPERTS | {"num_local_experts": 8, "intermediate_size": 1024},
    "ngram": LLAMA,
    **{name: LLAMA | {"quantization_config": config} for name, config in QUANTIZED.items()},
    **{
        f"{name}-fp16": LLAMA | {"quantization_config": QUANTIZED[name], "torch_dtype": "float16"} for name in QUANTIZED
    },
}
SPECULATION = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
CYCLE = 16
"""Tokens after which the model for n-gram speculation repeats itself."""

ROWS, PROMPT, TOKENS = 4, 256, 64
PROMPTS = [[(17 * row + 31 * place) % 16000 + 3 for place in range(PROMPT)] for row in range(ROWS)]
CYCLES = [[CYCLE * (row + 1) + place % CYCLE for place in range(PROMPT)] for row in range(ROWS)]
WAIT_SECONDS = 0.02


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama by the names that its published weights have."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, shared = (config["head_dim"] * config[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (shared, hidden),
        "self_attn.v_proj": (shared, hidden),
        "self_attn.o_proj": (hidden, heads),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    ends = {"model.embed_tokens": (vocabulary, hidden), "model.norm": (hidden,), "lm_head": (vocabulary, hidden)}
    numbers = range(config["num_hidden_layers"])
    return ends | {f"model.layers.{number}.{name}": shape for number in numbers for name, shape in layer.items()}


def write_cycle(path: Path, config: dict[str, Any]) -> None:
    """Writes weights with which a token is always followed by the next of its cycle, whatever the kernels round.

    Layers are computed and add nothing; the head knows of each token what follows it.
    """
    import torch  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - vLLM starts this file again in each of its processes
    from safetensors.torch import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above
        save_file,
    )

    torch.manual_seed(0)
    tensors = {}
    for name, shape in shapes(config).items():
        added = name.endswith(("o_proj", "down_proj"))
        drawn = torch.zeros(shape) if added else torch.randn(shape) * 0.02 if len(shape) > 1 else torch.ones(shape)
        tensors[f"{name}.weight"] = drawn.to(torch.bfloat16)
    known = tensors["model.embed_tokens.weight"]
    follows = torch.arange(len(known)).view(-1, CYCLE).roll(-1, 1).flatten()
    tensors["lm_head.weight"][follows] = known
    save_file(tensors, path)


@contextmanager
def loaded(name: str) -> Iterator[Any]:
    """A ``vllm.LLM`` of the model, without a tokenizer, with vLLM's defaults."""
    from vllm import LLM  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above

    cyclic = name == "ngram"
    options: dict[str, Any] = {"speculative_config": SPECULATION} if cyclic else {"load_format": "dummy"}
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        Path(folder, "config.json").write_text(json.dumps(MODELS[name]), "utf-8")
        if cyclic:
            write_cycle(Path(folder, "model.safetensors"), MODELS[name])
        yield LLM(
            model=folder, skip_tokenizer_init=True, seed=0, enable_prefix_caching=False, max_model_len=512, **options
        )


def measured(model: Any, prompts: list[list[int]]) -> dict[str, dict[str, float]]:
    """One round, by the clock and by the processor's time: seconds to the first token, and tokens per second."""
    from vllm import SamplingParams  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above

    def seconds(asked: list[list[int]], tokens: int) -> tuple[float, float]:
        wishes = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        began, used = time.monotonic(), processor_seconds()
        model.generate([{"prompt_token_ids": prompt} for prompt in asked], wishes, use_tqdm=False)
        return time.monotonic() - began, processor_seconds() - used

    taken = [
        seconds(prompts[:1], 1),
        seconds(prompts[:1], TOKENS + 1),
        seconds(prompts, 1),
        seconds(prompts, TOKENS + 1),
    ]
    return {
        clock: {
            "first_token": round(first, 4),
            "prompt": round(ROWS * PROMPT / reading, 1),
            "alone": round(TOKENS / (alone - first), 1),
            "together": round(ROWS * TOKENS / (both - reading), 1),
        }
        for clock, (first, alone, reading, both) in zip(("clock", "processor"), zip(*taken, strict=True), strict=True)
    }


def processor_seconds() -> float:
    """Seconds of the processor that all processes of this user's namespace have used; in a container, vLLM's."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/task/[0-9]*/schedstat"):
        with suppress(OSError):
            total += int(path.read_text().split()[0])
    return total / 1e9


def main(name: str, folder: Path) -> None:
    """Measures until it is told to end."""
    prompts = CYCLES if name == "ngram" else PROMPTS
    with loaded(name) as model:
        measured(model, prompts)
        (folder / "ready").touch()
        for number in count():
            while not (folder / f"turn-{number}").exists():
                if (folder / "end").exists():
                    return
                time.sleep(WAIT_SECONDS)
            answer = json.dumps(measured(model, prompts))
            (folder / "answer").write_text(answer, "utf-8")
            (folder / "answer").rename(folder / f"answer-{number}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
