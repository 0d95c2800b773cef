"""Runs tiny models and prints what each one answered, or how it ended: one line of JSON a model.

    tiny_models.py TABLE [--processes] [--zero OP|every] MODEL...

TABLE is models.toml as JSON. Without ``--processes`` vLLM is imported once and each model runs in a process of its own
that is forked from there, so that none can end another. ``--zero`` lets a kernel give zeros, or each one that the model
calls in turn, which must be noticed in the answer.
"""

import argparse
import json
import math
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

# Behind the others, for this folder holds modules of everyday names.
sys.path.append(str(Path(__file__).parent))

from checkpoints import WITH_TOKENIZER, write_model  # type: ignore[import-not-found, unused-ignore]

PROMPTS = [[(7 * place * place + 3 * place) % 200 + 30 for place in range(40)], [17, 42, 99, 42, 99]]
"""One is longer than a sliding window and than a block of the KV cache; the other repeats itself."""

TOKENS = 12
EVERY = "every"
LIKELIEST = 5
PATTERN = "[c-j]{12}"
NAMESPACES = ("_C", "_moe_C")
"""Beginnings of the namespaces into which vLLM's extensions put their operators."""

ALONE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1", "TORCH_COMPILE_DISABLE": "1"}
"""For models that are forked: they are too small for two threads, and what torch compiles is not the wheel's."""

COUNTERS = {"cached": "vllm:prefix_cache_hits", "speculative": "vllm:spec_decode_num_drafts"}
"""What vLLM counts where a way of asking did what it is there for."""

USUAL: dict[str, Any] = {
    "enforce_eager": True,
    "seed": 0,
    "max_model_len": 128,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 128,
    "num_gpu_blocks_override": 64,
    "skip_tokenizer_init": True,
    "enable_prefix_caching": False,
}


@contextmanager
def loaded(
    table: Mapping[str, Any], entry: Mapping[str, Any], *, weights: bool = True, **options: Any
) -> Iterator[Any]:
    """A ``vllm.LLM`` of an entry's model, with options of that class, and the folder that the model lies in."""
    from vllm import LLM  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - vLLM starts the probe's file again in each of its processes

    given = {**USUAL, **entry.get("options", {}), **options}
    if entry.get("way") == "embed":
        given["runner"] = "pooling"
    if entry.get("way") in WITH_TOKENIZER:
        given["skip_tokenizer_init"] = False
    with tempfile.TemporaryDirectory(prefix="tiny-model-") as folder:
        write_model(Path(folder), table, entry, weights=weights)
        yield LLM(model=folder, **given), Path(folder)


def continued(model: Any, prompts: list[list[int]], *, tokens: int = TOKENS, **more: Any) -> list[Any]:
    """What vLLM continues the prompts with: a ``CompletionOutput`` each."""
    from vllm import SamplingParams  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above

    wishes = {"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True, "logprobs": LIKELIEST, "detokenize": False}
    asked = SamplingParams(**wishes, **more.pop("wishes", {}))
    given = [{"prompt_token_ids": prompt} for prompt in prompts]
    return [each.outputs[0] for each in model.generate(given, asked, use_tqdm=False, **more)]


def answered(entry: Mapping[str, Any], model: Any, folder: Path) -> dict[str, Any]:
    """Asks the model its way, once: tokens and likelihoods, or vectors."""
    way = entry.get("way")
    if way == "embed":
        given = [{"prompt_token_ids": prompt} for prompt in PROMPTS]
        return {"vectors": [list(each.outputs.embedding) for each in model.embed(given, use_tqdm=False)]}
    more: dict[str, Any] = {}
    if way == "lora":
        from vllm.lora.request import LoRARequest  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above

        more["lora_request"] = LoRARequest("adapter", 1, str(folder / "adapter"))
    if way == "guided":
        more["wishes"] = _guided()
    if way == "cached":
        continued(model, PROMPTS)
    outputs = continued(model, PROMPTS, **more)
    if way in COUNTERS and not _counted(model, COUNTERS[way]):
        raise NothingCountedError(COUNTERS[way])
    likelihoods = [
        [{str(token): round(each.logprob, 4) for token, each in place.items()} for place in output.logprobs]
        for output in outputs
    ]
    return {"tokens": [list(output.token_ids) for output in outputs], "likelihoods": likelihoods}


class NothingCountedError(Exception):
    """What a model is there for did not take place."""

    def __init__(self, counter: str) -> None:
        super().__init__(f"{counter} is 0")


def _counted(model: Any, counter: str) -> int:
    """What vLLM counted since the model was loaded."""
    return sum(each.value for each in model.get_metrics() if each.name == counter)


def _guided() -> dict[str, Any]:
    from vllm import sampling_params  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above

    if hasattr(sampling_params, "StructuredOutputsParams"):
        return {"structured_outputs": sampling_params.StructuredOutputsParams(regex=PATTERN)}
    return {"guided_decoding": sampling_params.GuidedDecodingParams(regex=PATTERN)}


def tried(table: Mapping[str, Any], entry: Mapping[str, Any], reached: "list[str] | None" = None) -> dict[str, Any]:
    """Loads the model and asks it twice: the answer of the first time, and whether the second was the same."""
    started = time.monotonic()
    with loaded(table, entry) as (model, folder):
        ready = time.monotonic()
        (reached if reached is not None else []).append("answer")
        first = answered(entry, model, folder)
        between = time.monotonic()
        same = answered(entry, model, folder) == first
        ended = time.monotonic()
    spoken = sum(map(len, first.get("tokens", ())))
    return {
        **first,
        "same": same,
        "load_seconds": round(ready - started, 1),
        "tokens_per_second": round(spoken / (ended - between), 1),
    }


def attempted(table: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The same, or the error that it ended with, and whether that was before the model could be asked."""
    reached = ["load"]
    try:
        return tried(table, entry, reached)
    except BaseException as error:  # noqa: BLE001 - whatever ends it is what is asked for
        traceback.print_exc()
        if lacking := _unknown(table, entry):
            return {"stage": "registry", "error": lacking, "raised": True}
        return {"stage": reached[-1], "error": f"{type(error).__name__}: {error}", "raised": _raised(error)}


def _unknown(table: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """The architecture of a model that this release of vLLM has no code of its own for; empty where it has some."""
    try:
        from vllm.model_executor.models import ModelRegistry  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above
    except ImportError:
        return ""
    known = ModelRegistry.get_supported_archs()
    return next(
        (name for name in table["families"][entry["family"]]["config"]["architectures"] if name not in known), ""
    )


def _raised(error: BaseException) -> bool:
    """Whether a ``raise`` of Python code made the error, and not an operation that failed."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and (frames[-1].line or "").startswith("raise")


def forked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Does the work in a process of its own: what it gives, or how the process died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(work(), pipe)
        sys.stdout.flush()
        sys.stderr.flush()
        # Without the ends of what was imported before the fork.
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if data:
        return dict(pickle.loads(data))  # noqa: S301 - of our own child
    return {"stage": "process", "error": "", "signal": os.waitstatus_to_exitcode(status), "raised": False}


PYTHON_KERNELS: "dict[str, Callable[..., Any]]" = {}
"""Operators that are written in Python, such as vLLM's attention, by name."""


def keep_python_kernels() -> None:
    """Keeps what is registered from now on: torch's way of watching does not look into such operators."""
    from torch.library import Library  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above

    register = Library.impl

    def impl(library: Any, name: Any, function: Any, *more: Any, **named: Any) -> Any:
        PYTHON_KERNELS[f"{library.ns}::{name}"] = function
        return register(library, name, function, *more, **named)

    Library.impl = impl


def watching(zeroed: str, seen: dict[str, bool]) -> Any:
    """Notes which of the extension's operators give tensors; lets the one of that name give zeros."""
    import torch  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above
    from torch.utils._python_dispatch import TorchDispatchMode  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 - as above

    class Watching(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = operator.name().split(".")[0]
            if name in PYTHON_KERNELS:
                with self:
                    return PYTHON_KERNELS[name](*args, **(kwargs or {}))
            result = operator(*args, **(kwargs or {}))
            if name.startswith(NAMESPACES):
                told = {each.name: each for each in operator._schema.arguments}  # noqa: SLF001 - there is no other way
                given = {**dict(zip(told, args)), **(kwargs or {})}  # noqa: B905 - those at the end may be missing
                changed = [given[key] for key, each in told.items() if key in given and _written(each)]
                results = result if isinstance(result, (tuple, list)) else (result,)
                tensors = [each for each in (*changed, *results) if isinstance(each, torch.Tensor)]
                seen[name] = bool(tensors) or seen.get(name, False)
                for each in tensors if name == zeroed else ():
                    each.zero_()
            return result

    return Watching()


def _written(argument: Any) -> bool:
    return bool(argument.alias_info and argument.alias_info.is_write)


def with_zeros(table: Mapping[str, Any], entry: Mapping[str, Any], operator: str) -> dict[str, Any]:
    """Tries a model where an operator gives zeros; beside the answer, which operators gave tensors."""
    seen: dict[str, bool] = {}
    with watching(operator, seen):
        found = attempted(table, entry)
    return {**found, "operators": sorted(name for name, gives in seen.items() if gives), "zeroed": operator}


def say(name: str, found: Mapping[str, Any]) -> None:
    """Prints a model's answer; a number that is none becomes null, for JSON has no word for it."""
    text = json.dumps({"probe": "models", "model": name, **_without_nan(found)})
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    """Runs the models one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--zero")
    given = parser.parse_args()
    table = json.loads(given.table.read_text("utf-8"))
    entries = {name: table["models"][name] for name in given.models}
    if given.processes:
        for name, entry in entries.items():
            say(name, tried(table, entry))
        return
    os.environ.update(ALONE)  # before vLLM and torch are imported, which read it
    if given.zero:
        keep_python_kernels()
    from vllm import LLM  # type: ignore[import-not-found, unused-ignore]  # noqa: F401, PLC0415 - for all that are forked

    for name, entry in entries.items():
        if not given.zero:
            say(name, forked(partial(attempted, table, entry)))
            continue
        intact = forked(partial(with_zeros, table, entry, ""))
        say(name, intact)
        for operator in intact.get("operators", ()) if given.zero == EVERY else [given.zero]:
            say(name, forked(partial(with_zeros, table, entry, operator)))


if __name__ == "__main__":
    main()
