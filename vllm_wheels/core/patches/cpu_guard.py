# SPDX-License-Identifier: Apache-2.0
"""Stops vLLM on a CPU that this wheel is not compiled for, with one line instead of an illegal instruction.

Imported by ``vllm/__init__.py`` before anything else; imports nothing heavy itself. vllm-wheels puts this file into the
wheel as ``vllm/_cpu_guard.py``, with the table ``WHEEL`` filled in.

What the CPU has is what the C library says: glibc from 2.33 on asks the CPU itself, and whether the operating system
saves the registers. /proc/cpuinfo is of another machine under an emulator, made up or missing in a sandbox. It is asked
for what glibc does not say, and instead of an older one. Nothing here executes machine code of its own, for which a
hardened system would give no memory.

VLLM_WHEELS_CPU_FLAGS, where set, takes the place of both, so that a test can pretend to run on a lesser CPU. Pretending
to run on a better one is refused by the loader, or ends in an illegal instruction.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from typing import TypedDict

FLAGS_VARIABLE = "VLLM_WHEELS_CPU_FLAGS"
UPSTREAM = "vllm"


class Variant(TypedDict):
    """A wheel of the same build, and the CPU features that it needs."""

    distribution: str
    floor: tuple[str, ...]


class Wheel(TypedDict, total=False):
    """This wheel: the features it needs, what it answers about those it has no code for, all variants.

    ``ceiling`` are questions that are answered with no, ``known`` all that may be answered by the CPU or with no, and
    ``elsewhere`` operators that the wheel lacks, each with the distribution that has it, or an empty text.
    """

    variant: str
    distribution: str
    floor: tuple[str, ...]
    ceiling: tuple[str, ...]
    known: tuple[str, ...]
    elsewhere: dict[str, str]
    variants: list[Variant]


WHEEL: Wheel = {}

FEATURE_LEAF = "__x86_get_cpuid_feature_leaf"
"""Function of glibc (sys/platform/x86.h): four registers as CPUID gives them, then the same with what is usable."""

LEAF_1, LEAF_7, LEAF_7_1 = 0, 1, 6
EAX, EBX, ECX, EDX = 4, 5, 6, 7
USABLE = {
    "fma": (LEAF_1, ECX, 12),
    "avx": (LEAF_1, ECX, 28),
    "f16c": (LEAF_1, ECX, 29),
    "avx2": (LEAF_7, EBX, 5),
    "avx512f": (LEAF_7, EBX, 16),
    "avx512dq": (LEAF_7, EBX, 17),
    "avx512bw": (LEAF_7, EBX, 30),
    "avx512vl": (LEAF_7, EBX, 31),
    "avx512_vnni": (LEAF_7, ECX, 11),
    "amx_bf16": (LEAF_7, EDX, 22),
    "avx512_fp16": (LEAF_7, EDX, 23),
    "amx_tile": (LEAF_7, EDX, 24),
    "amx_int8": (LEAF_7, EDX, 25),
    "avx512_bf16": (LEAF_7_1, EAX, 5),
}
"""Where glibc has a feature: leaf of CPUID, register and bit. Others are taken from /proc/cpuinfo."""


def cpu_flags() -> frozenset[str] | None:
    """The features of this machine's CPU as Linux names them; None where they cannot be told."""
    pretended = os.environ.get(FLAGS_VARIABLE)
    if pretended is not None:
        return frozenset(pretended.split())
    listed, usable = _listed(), _usable()
    return listed if usable is None else (listed or frozenset()).difference(USABLE) | usable


def _usable() -> frozenset[str] | None:
    """The features of ``USABLE`` that the process can use; None where the C library does not tell."""
    try:
        from ctypes import CDLL, POINTER, c_uint  # noqa: PLC0415 - some Pythons are built without it

        leaf = getattr(CDLL(None), FEATURE_LEAF)
    except (ImportError, OSError, AttributeError):
        return None
    leaf.restype = POINTER(c_uint * 8)
    words = {number: leaf(number).contents for number in (LEAF_1, LEAF_7, LEAF_7_1)}
    return frozenset(name for name, (number, register, bit) in USABLE.items() if words[number][register] >> bit & 1)


def _listed() -> frozenset[str] | None:
    """The flags in /proc/cpuinfo; None where it lists none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123 - pathlib costs time here
            for line in lines:
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        return None
    return None


def refusal(flags: frozenset[str]) -> str | None:
    """Why the wheel cannot run on a CPU with these features, in one line; None where it can."""
    lacking = [flag for flag in WHEEL["floor"] if flag not in flags]
    if not lacking:
        return None
    name = WHEEL["distribution"]
    fitting = [other for other in WHEEL["variants"] if flags.issuperset(other["floor"])]
    # The table goes from the lowest instruction set to the highest.
    advice = (
        f"install {fitting[-1]['distribution']} in its place"
        if fitting
        else "no variant of this build runs on this CPU"
    )
    return f"{name} needs a CPU with {', '.join(lacking)}, which this one does not have: {advice}"


def refuse_lesser_cpu() -> None:
    """Ends the import on a CPU below the floor."""
    flags = cpu_flags()
    if flags is None:
        # A wheel that may well run here must not refuse to.
        asked = ", ".join(WHEEL["floor"])
        line = "%s needs a CPU with %s; neither the C library nor /proc/cpuinfo tells whether this one has them"
        logging.getLogger(__name__).warning(line, WHEEL["distribution"], asked)
        return
    reason = refusal(flags)
    if reason is None:
        return
    if sys.argv and os.path.basename(sys.argv[0]) == "vllm":  # noqa: PTH119 - pathlib costs time here
        # Who types "vllm serve" wants the line without a traceback around it.
        raise SystemExit(reason)
    # Programs that import vLLM if they can expect an ImportError, and survive it.
    raise ImportError(reason, name=UPSTREAM)


def warn_of_neighbours() -> None:
    """Warns where another distribution has put its files into the same package, so that nobody knows whose they are."""
    own = WHEEL["distribution"]
    names = [own, UPSTREAM, *(other["distribution"] for other in WHEEL["variants"])]
    installed = [name for name in dict.fromkeys(names) if name == own or _is_installed(name)]
    if len(installed) > 1:
        others = " and ".join(installed[1:])
        logging.getLogger(__name__).warning(
            "%s and %s are both installed and overwrite each other's files: uninstall all of them, then install one",
            own,
            others,
        )


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def cap_host() -> None:
    """Makes torch deny the CPU features above this wheel's level, for which it has no code.

    vLLM asks torch about the CPU and then calls kernels of that level. What a later torch can be asked besides is
    denied as well: no variant has code for it. Called by ``vllm/__init__.py`` once vLLM's own start has imported
    torch; a torch that is not there yet is not imported.
    """
    torch = sys.modules.get("torch")
    for owner in (getattr(torch, "cpu", None), getattr(getattr(torch, "_C", None), "_cpu", None)):
        asked = [name for name in dir(owner) if name.startswith("_is_") and name.endswith("_supported")]
        for question in {*WHEEL["ceiling"], *(name for name in asked if name not in WHEEL["known"])}:
            if hasattr(owner, question):
                setattr(owner, question, _no)


def answer(question: str) -> bool:
    """The answer of an operator that reads the CPU's features itself, such as ``cpu_has_amx_fp8``; no to a new one."""
    denied = question in WHEEL["ceiling"] or question not in WHEEL["known"]
    return not denied and bool(getattr(sys.modules["torch"].ops._C, question)())  # noqa: SLF001 - upstream's own way


def refuse(operator: str, what: str) -> None:
    """Raises NotImplementedError where the wheel lacks an operator that something needs, in one line that says so.

    No wheel has the operator without a name.
    """
    # This registers the operators, which is too much for vLLM's start.
    import_module(f"{UPSTREAM}._custom_ops")

    if not operator or not hasattr(sys.modules["torch"].ops._C, operator):  # noqa: SLF001
        raise NotImplementedError(lacks(operator, what))


def lacks(operator: str, what: str) -> str:
    """That the wheel has no code for something, and what to install instead."""
    name, flags = WHEEL["distribution"], cpu_flags()
    for other in WHEEL["variants"]:
        if other["distribution"] == WHEEL["elsewhere"].get(operator):
            missing = [flag for flag in other["floor"] if flags is not None and flag not in flags]
            needs = f", on a CPU with {', '.join(missing)}" if missing else ""
            return f"{name} has no code for {what}: install {other['distribution']} in its place{needs}"
    return f"{name} has no code for {what}: no variant of this build has"


def _no() -> bool:
    return False


if WHEEL:
    refuse_lesser_cpu()
    warn_of_neighbours()
