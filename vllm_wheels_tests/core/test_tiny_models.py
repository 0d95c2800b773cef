"""Tiny models: their weights are the same in every format, and each outcome of a trial is called what it is."""

import json
import re
import struct
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.checks import RunOptions
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.page import as_html
from vllm_wheels.core.verify.report import read_report
from vllm_wheels.core.verify.runs import models
from vllm_wheels.core.verify.runs.answers import judged
from vllm_wheels.core.verify.runs.installation import PROBES
from vllm_wheels.core.verify.runs.models import CHECKS, outcome_of, right_answers, table, wanted
from vllm_wheels_tests.core.harness import finding

sys.path.append(str(PROBES))
import checkpoints  # type: ignore[import-not-found]
import tiny_models  # type: ignore[import-not-found]

NAME, ROWS, COLUMNS = "layer.proj", 16, 64
LLAMA = right_answers()["llama"]


def written(layout):
    """The tensors of a small matrix by the ends of their names."""
    grid = checkpoints.drawn(f"{NAME}.weight", ROWS, COLUMNS)
    return {part.name.removeprefix(f"{NAME}."): part for part in checkpoints.LAYOUTS[layout](NAME, grid, "float32")}


def numbers(part):
    """The numbers of a tensor, row by row."""
    letter = {"F32": "f", "I32": "I", "I8": "b", "F8_E4M3": "B"}[part.dtype]
    found = struct.unpack(f"<{len(part.data) // struct.calcsize(letter)}{letter}", part.data)
    return [found[start : start + part.shape[-1]] for start in range(0, len(found), part.shape[-1])]


def nibbles(words, order=range(8)):
    """The eight nibbles of each word of a row."""
    places = [list(order).index(number) for number in range(8)]
    return [word >> 4 * place & 15 for word in words for place in places]


def right():
    """The matrix as float32 holds it."""
    grid = checkpoints.drawn(f"{NAME}.weight", ROWS, COLUMNS)
    (part,) = checkpoints.plain(NAME, grid, "float32")
    return [list(row) for row in numbers(part)]


def from_awq(parts):
    weight = [nibbles(row, checkpoints.AWQ_ORDER) for row in numbers(parts["qweight"])]
    zeros = [nibbles(row, checkpoints.AWQ_ORDER) for row in numbers(parts["qzeros"])]
    scales = numbers(parts["scales"])
    return [
        [(weight[column][row] - zeros[column // 32][row]) * scales[column // 32][row] for column in range(COLUMNS)]
        for row in range(ROWS)
    ]


def from_gptq(parts):
    words, scales = numbers(parts["qweight"]), numbers(parts["scales"])
    zeros = [[number + 1 for number in nibbles(row)] for row in numbers(parts["qzeros"])]
    groups = numbers(parts["g_idx"])[0]
    return [
        [
            ((words[column // 8][row] >> 4 * (column % 8) & 15) - zeros[groups[column]][row])
            * scales[groups[column]][row]
            for column in range(COLUMNS)
        ]
        for row in range(ROWS)
    ]


def from_packed(parts):
    weight, scales = [nibbles(row) for row in numbers(parts["weight_packed"])], numbers(parts["weight_scale"])
    return [[(weight[row][at] - 8) * scales[row][at // 32] for at in range(COLUMNS)] for row in range(ROWS)]


def from_rows(parts, value=float):
    weight, scales = numbers(parts["weight"]), numbers(parts["weight_scale"])
    return [[value(number) * scales[row][0] for number in weight[row]] for row in range(ROWS)]


def e4m3(byte):
    """The number of a byte, as the Open Compute Project defines E4M3; no denormal numbers occur here."""
    sign, exponent, mantissa = byte >> 7, byte >> 3 & 15, byte & 7
    return (-1) ** sign * 2.0 ** (exponent - 7) * (1 + mantissa / 8) if byte & 0x7F else 0.0


def from_whole(parts):
    (scales,) = numbers(next(part for name, part in parts.items() if "scale" in name))
    return [[e4m3(byte) * scales[0] for byte in row] for row in numbers(parts["weight"])]


@pytest.mark.parametrize(
    ("layout", "decoded"),
    [
        ("awq", from_awq),
        ("gptq", from_gptq),
        ("packed", from_packed),
        ("int8", from_rows),
        ("fp8-rows", lambda parts: from_rows(parts, e4m3)),
        ("fp8", from_whole),
        ("fp8-blocks", from_whole),
    ],
)
def test_quantized_weights_are_exactly_the_plain_ones(layout, decoded):
    """One answer is right for a model in all formats, because they hold the same numbers."""
    assert decoded(written(layout)) == right()


def test_layers_keep_the_size_of_what_passes_through_them():
    """A layer counts: a row's sum of products is about as large as the numbers that it is made of."""
    grid = checkpoints.drawn("model.weight", 256, 256)
    (part,) = checkpoints.plain("model", grid, "float32")
    squares = [sum(number * number for number in row) for row in numbers(part)]
    assert 0.5 < sum(squares) / len(squares) < 2.5


@pytest.mark.parametrize("name", list(table()["models"]))
def test_every_model_can_be_written(tmp_path, name):
    """An entry of the table is complete: its folder holds a configuration and weights, and its answer is known."""
    entry = table()["models"][name]
    small = {**table(), "families": {entry["family"]: one_layer(table()["families"][entry["family"]])}}
    checkpoints.write_model(tmp_path, small, entry)
    head = (tmp_path / "model.safetensors").read_bytes()
    contents = json.loads(head[8 : 8 + struct.unpack("<Q", head[:8])[0]])
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == 256
    assert all(part["data_offsets"][1] for part in contents.values())
    assert entry.get("answer", entry["family"]) in right_answers()


def one_layer(family):
    """The family with its first layer and expert alone, so that the test is quick."""
    patterns = {re.sub(r"\{0-\d\}", "0", pattern): spec for pattern, spec in family["tensors"].items()}
    return {**family, "tensors": patterns}


def found(**changed):
    """What the probe prints of a Llama that answers as it should."""
    return {"probe": "models", "model": "llama-bf16", "same": True, **LLAMA, **changed}


def died(error, *, raised=True, stage="load", model="llama-awq-bf16"):
    return {"model": model, "stage": stage, "error": error, "raised": raised}


WRONG = [[{token: number - 1 for token, number in place.items()} for place in row] for row in LLAMA["likelihoods"]]


@pytest.mark.parametrize(
    ("seen", "kind", "line"),
    [
        (found(), "runs", "twice the same; differs by at most 0.000"),
        (found(same=False), "wrong", "the second run gave another answer"),
        (found(likelihoods=WRONG), "wrong", "differs by up to 1.00 from the right answer"),
        (died("ValueError: fp8 needs\nanother CPU."), "refused", "fp8 needs another CPU."),
        (died("ValueError: not here.", model="llama-bf16"), "crashed", "ValueError: not here."),
        (died("ValueError: too late", stage="answer"), "crashed", "ValueError: too late"),
        (died("RuntimeError: of an operator", raised=False), "crashed", "RuntimeError: of an operator"),
        (died("AttributeError: no such operator"), "crashed", "AttributeError: no such operator"),
        (died("BambaForCausalLM", stage="registry"), "unknown", "this release of vLLM has no BambaForCausalLM"),
        ({**died(""), "signal": -4}, "crashed", "the process ended with status -4"),
    ],
    ids=[
        "runs",
        "unstable",
        "wrong",
        "refused",
        "refused without need",
        "late",
        "operator",
        "missing",
        "unknown",
        "signal",
    ],
)
def test_outcome_is_called_what_it_is(seen, kind, line):
    """A refusal is a sentence of Python code before anything was computed, of a model that may be refused."""
    outcome = outcome_of(seen)
    assert (outcome.kind, outcome.line[: len(line)]) == (kind, line)


def test_known_defect_of_upstream_convicts_no_wheel():
    """What the table names as broken in every build is shown with its reason, and only that error is."""
    entry = {"title": "", "defect": {"error": "expected at most 0", "reason": "upstream: 1 is not 0"}}
    kinds = [judged("x", entry, died(error, raised=False), None).kind for error in ("expected at most 0", "other")]
    assert kinds == ["known defect", "crashed"]


def test_wheel_is_convicted_by_the_models_that_crash_or_answer_wrongly():
    """The line names the first of them, the evidence all; a refusal is no fault."""
    seen = [found(), found(model="llama-awq-bf16", same=False), {**died("TypeError: x"), "model": "llama-fp32"}]
    refusing = died("ValueError: not here", model="llama-gptq-bf16")
    judgement = models.judgement([outcome_of(each) for each in (*seen, refusing)])
    assert judgement.line == "llama-awq-bf16 answers wrongly: the second run gave another answer (and 1 more)"
    assert "llama-fp32 crashed: TypeError: x" in judgement.evidence
    good = models.judgement([outcome_of(each) for each in (found(), refusing)])
    assert (good.verdict, good.line[-25:]) == ("passed", "; llama-gptq-bf16 refused")


def test_models_are_chosen_by_the_setting():
    """The default is a few of them; I can ask for all, or for some by name, and a wrong name is refused."""
    assert set(wanted("chosen")) < set(wanted("all"))
    assert wanted("llama-fp32, llama-bf16") == ("llama-fp32", "llama-bf16")
    with pytest.raises(SettingsError, match="there is no tiny model 'lama'"):
        wanted("lama")


def test_plan_shows_which_models_run_together():
    """The first runs as users run it; the others share one import of vLLM, a dozen at a time."""
    commands = CHECKS[0].planned(RunOptions(settings=Settings(smoke={"models": "all"}), left_out=(), floor=()))
    assert commands[0].argv[-2:] == ("--processes", "llama-bf16")
    assert sum(word in table()["models"] for command in commands for word in command.argv) == len(wanted("all"))


CRASHING = "if 'awq' in open(self.model + '/config.json').read(): os.kill(os.getpid(), 11)"
REMEMBERING = "LLM.__init__ = lambda self, model, **wishes: setattr(self, 'model', model)"


@pytest.mark.parametrize("way", list(tiny_models.COUNTERS))
def test_cache_and_speculation_must_have_taken_place(monkeypatch, tmp_path, way):
    """Right tokens alone would not show that anything came from the cache, or was drafted."""
    counted = SimpleNamespace(name=tiny_models.COUNTERS[way], value=0)
    asked = []

    def continued(model, prompts, **_):
        asked.append(prompts)
        return []

    monkeypatch.setattr(tiny_models, "continued", continued)
    model = SimpleNamespace(get_metrics=lambda: [counted])
    with pytest.raises(tiny_models.NothingCountedError, match=f"{counted.name} is 0"):
        tiny_models.answered({"way": way}, model, tmp_path)
    counted.value = 1
    asked.clear()
    assert tiny_models.answered({"way": way}, model, tmp_path) == {"tokens": [], "likelihoods": []}
    assert len(asked) == 1 + (way == "cached")


def test_model_that_crashes_leaves_the_others_their_outcome(harness):
    """Each model has a process of its own: of a crash I read which one it was, in the report and on its page."""
    harness.models = "llama-bf16,mixtral-bf16,llama-awq-bf16,llama-fp32"
    harness.vllm(generate=CRASHING, extra=REMEMBERING)
    report = harness.verify()
    assert "llama-awq-bf16 crashed: the process ended with status -11" in finding(report, "generates-tokens").evidence
    assert [each.kind for each in report.outcomes] == ["runs", "wrong", "crashed", "runs"]
    assert "| Llama AWQ int4, bf16 | crashed |" in report.as_markdown()
    assert '<td class="convicted">crashed</td>' in as_html(report)
    assert read_report(harness.root / "stage").outcomes == report.outcomes


def test_kept_finding_has_its_outcomes():
    """What the store keeps of a finding is read back as it was."""
    judgement = models.judgement([outcome_of(found())])
    kept = replace(judgement, evidence="e").of("generates-tokens", "error")
    assert Finding.from_json(json.loads(json.dumps(asdict(kept)))) == kept
