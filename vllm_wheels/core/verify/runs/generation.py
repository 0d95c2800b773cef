"""A tiny model generates tokens, twice the same."""

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.verify.checks import Check, Judgement, RunOptions, passed, skipped
from vllm_wheels.core.verify.runs.probing import convict_if, judge_probe, probe
from vllm_wheels.core.verify.test_run import CPU_PLATFORM, TestRun

TOKENS = 32
VOCABULARY = 1024


def _judge(_: TestRun, seen: Mapping[str, Any]) -> Judgement:
    first, second = seen["tokens"]
    outside = [token for token in first if not 0 <= token < VOCABULARY]
    faults = {
        f"{len(first)} tokens in place of {TOKENS}": len(first) != TOKENS,
        "the second run gave other tokens": first != second,
        f"tokens outside the vocabulary: {outside}": outside,
        "a token's likelihood is not a number": not seen["finite"],
    }
    speed = seen["tokens_per_second"]
    line = f"a tiny Llama generates {TOKENS} tokens, twice the same, {speed} a second"
    return convict_if(
        faults, remedy="see smoke.log; look at the kernels", otherwise=passed(line, tokens_per_second=speed)
    )


def _generate(test_run: TestRun) -> Judgement:
    return judge_probe(test_run, _judge) if test_run.commands else skipped("smoke.generate is off")


def _commands(options: RunOptions) -> tuple[Invocation, ...]:
    return probe("generation.py", VLLM_CPU_KVCACHE_SPACE="1") if options.settings.smoke.generate else ()


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        "generates-tokens",
        "let a tiny model generate tokens",
        _generate,
        needs=(CPU_PLATFORM,),
        seconds=60,
        commands=_commands,
    ),
)
