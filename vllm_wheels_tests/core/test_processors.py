"""Which variant suits a processor."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from vllm_wheels.core.errors import CommandLineError, UnsupportedProcessorError
from vllm_wheels.core.host.processors import advice, flags_of, flags_of_processor, names
from vllm_wheels.core.variants import lowest, variants

MACROS = {
    "__AVX2__": "avx2",
    "__FMA__": "fma",
    "__F16C__": "f16c",
    "__AVX512F__": "avx512f",
    "__AVX512VL__": "avx512vl",
    "__AVX512BW__": "avx512bw",
    "__AVX512DQ__": "avx512dq",
    "__AVX512VNNI__": "avx512vnni",
    "__AVX512BF16__": "avx512bf16",
    "__AMX_TILE__": "amxtile",
    "__AMX_BF16__": "amxbf16",
}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ to compare with")
ALIASES = re.compile(r"zen\d|skx|skylake-x|icelake")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("haswell", "baseline"),
        ("znver3", "baseline"),
        ("knl", "baseline"),
        ("skylake-avx512", "avx512"),
        ("cascadelake", "avx512vnni"),
        ("zen4", "avx512bf16"),
        ("Sapphire Rapids", "amxbf16"),
    ],
)
def test_named_processor_gets_its_variant(name, variant):
    """I ask about a machine that I do not have here."""
    assert advice(flags_of_processor(name)).variant.name == variant


def test_reason_names_what_the_next_variant_would_need():
    """I want to know why not the better one."""
    assert advice(flags_of_processor("cascadelake")).above["avx512bf16"] == ("avx512_bf16",)


@pytest.mark.parametrize("name", ["nehalem", "ivybridge", "bdver2", "x86-64-v2"])
def test_processor_below_avx2_gets_none(name):
    """An old machine is told so, not given a wheel that dies."""
    with pytest.raises(UnsupportedProcessorError, match="no variant"):
        advice(flags_of_processor(name))


def test_cpuinfo_of_another_architecture_is_refused():
    """An ARM server's /proc/cpuinfo has no flags of ours."""
    with pytest.raises(UnsupportedProcessorError):
        flags_of("processor\t: 0\nFeatures\t: fp asimd evtstrm\n")


def test_flags_are_those_that_every_core_has():
    """On a machine with two kinds of cores the lesser one decides."""
    assert flags_of("flags\t: avx2 fma avx512f\nflags\t: avx2 fma\n") == {"avx2", "fma"}


@pytest.mark.parametrize("text", ["avx512_vnni", "avx512vnni", "AVX512-VNNI", "Flags: avx512_vnni", "avx2,avx512_vnni"])
def test_spelling_of_flags_does_not_matter(text):
    """gcc, the kernel and people write the same thing differently."""
    assert "avx512vnni" in flags_of(text)


@pytest.mark.parametrize("text", ["", " \n", ","])
def test_no_flags_at_all_is_bad_input(text):
    """An empty pipe is no processor."""
    with pytest.raises(CommandLineError):
        flags_of(text)


def test_misspelt_processor_gets_the_nearest_name():
    """A typing error is corrected, not guessed over."""
    with pytest.raises(CommandLineError) as caught:
        flags_of_processor("saphirerapids")
    assert "sapphirerapids" in caught.value.why


def macros_of(name: str) -> set[str]:
    """What g++ defines for a processor; nothing for one that it does not know."""
    command = ["g++", f"-march={name}", "-dM", "-E", "-x", "c++", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(re.findall(r"#define (\w+) 1", done.stdout)) if done.returncode == 0 else set()


@needs_compiler
@pytest.mark.parametrize("each", list(variants().values()), ids=list(variants()))
def test_every_processor_with_the_floor_has_the_level_that_the_loader_asks_for(each):
    """The note in an extension keeps it from no processor that the guard lets through."""
    level = {macro for macro in macros_of(each.level) if re.fullmatch(r"__[A-Z0-9_]+__", macro)}
    wanted = flags_of(" ".join((*lowest().floor, *each.floor)))
    fitting = {name for name in names() if wanted <= flags_of_processor(name)}
    assert {name: level - found for name in fitting if (found := macros_of(name)) and level - found} == {}


@needs_compiler
def test_table_agrees_with_the_compiler_of_this_machine():
    """processors.toml says of each processor what g++ says."""
    unknown = 0
    for name in names():
        if ALIASES.fullmatch(name):
            continue
        if not (defined := macros_of(name)):
            unknown += 1
            continue
        assert flags_of_processor(name) == {flag for macro, flag in MACROS.items() if macro in defined}, name
    assert unknown < len(names()) / 2
