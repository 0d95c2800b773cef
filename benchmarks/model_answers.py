"""Computes what the tiny models of the trial must answer, with transformers in float32, and writes answers.json.

    PYTHON benchmarks/model_answers.py [NAME...]

PYTHON is one that has torch and transformers, as the environment of a vLLM has. Without names all answers are computed.
"""

import json
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]

RUNS = Path(__file__).parents[1] / "vllm_wheels/core/verify/runs"
sys.path.append(str(RUNS / "probes"))

from checkpoints import LETTERS, write_model  # type: ignore[import-not-found, unused-ignore]  # noqa: E402
from tiny_models import LIKELIEST, PROMPTS, TOKENS  # type: ignore[import-not-found, unused-ignore]  # noqa: E402

DIMENSIONS = 32
"""Numbers of a vector that are kept."""


def generated(
    model: Any, prompt: Sequence[int], allowed: Sequence[int] | None
) -> tuple[list[int], list[dict[str, float]]]:
    """Tokens that are taken greedily, and the likeliest of each place; what is not allowed has no likelihood."""
    tokens, places = list(prompt), []
    for _ in range(TOKENS):
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].float()
        if allowed:
            others = [token for token in range(len(logits)) if token not in allowed]
            logits[others] = -torch.inf
        likelihoods = torch.log_softmax(logits, -1)
        likeliest = likelihoods.topk(LIKELIEST).indices.tolist()
        places.append({str(token): round(float(likelihoods[token]), 4) for token in likeliest})
        tokens.append(likeliest[0])
    return tokens[len(prompt) :], places


def embedded(model: Any, prompt: Sequence[int], *, first: bool) -> list[float]:
    """The beginning of the vector that a prompt becomes: that of its first or last token, made one long."""
    hidden = model(torch.tensor([prompt])).last_hidden_state[0, 0 if first else -1]
    vector = torch.nn.functional.normalize(hidden, dim=-1)
    return [round(float(number), 5) for number in vector[:DIMENSIONS]]


def merge_adapter(model: Any, folder: Path) -> None:
    """Adds the LoRA adapter beside the model to its weights."""
    from safetensors.torch import load_file  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - in the other environment

    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    parameters = dict(model.named_parameters())
    for name, down in adapter.items():
        if name.endswith(".lora_A.weight"):
            up = adapter[name.replace(".lora_A.", ".lora_B.")]
            parameters[name.removeprefix("base_model.model.").replace(".lora_A", "")].data += up @ down


def answer_of(table: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of an entry's model in float32, whatever the entry's own data type and quantization."""
    from transformers import AutoModel, AutoModelForCausalLM  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - in the other environment

    way = entry.get("way")
    plain = {key: value for key, value in entry.items() if key != "quantization"} | {"dtype": "float32"}
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        folder = Path(temporary)
        write_model(folder, table, plain)
        kind = AutoModel if way == "embed" else AutoModelForCausalLM
        model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        if way == "embed":
            return {"vectors": [embedded(model, prompt, first=entry["family"] == "bert") for prompt in PROMPTS]}
        if way == "lora":
            merge_adapter(model, folder)
        found = [generated(model, prompt, LETTERS if way == "guided" else None) for prompt in PROMPTS]
    return {"tokens": [tokens for tokens, _ in found], "likelihoods": [places for _, places in found]}


def main() -> None:
    """Computes and writes."""
    table = tomllib.loads((RUNS / "models.toml").read_text("utf-8"))
    entries: dict[str, Any] = {}
    for entry in table["models"].values():
        entries.setdefault(entry.get("answer", entry["family"]), entry)
    path = RUNS / "answers.json"
    answers = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name in sys.argv[1:] or entries:
        answers[name] = answer_of(table, entries[name])
        sys.stdout.write(f"{name}: {answers[name].get('tokens', 'vectors')}\n")
        sys.stdout.flush()
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(answers[key])}" for key in entries if key in answers)
        path.write_text(f"{{\n{lines}\n}}\n", "utf-8")


if __name__ == "__main__":
    main()
