"""The compiled files are stripped, hold no paths of the build machine, and none is for a GPU."""

import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from packaging.utils import canonicalize_name

from vllm_wheels.core.engine.builder import PLACE
from vllm_wheels.core.formats.elf import Binary, loaded_data
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, convicted_of, passed, skipped
from vllm_wheels.core.verify.static.known import patterns
from vllm_wheels.core.verify.static.startup import installed_at
from vllm_wheels.core.verify.unpacked import UnpackedWheel

TOOLS = ("packaging", "pyelftools")
DEBUG = (".debug_*", ".zdebug_*", ".gdb_index", ".stab", ".stabstr")
SYMBOLS = (".symtab",)

SOURCE_PATH = re.compile(rb"(?<![\w./-])/(?:[\w.@+~=-]+/)+[\w.@+-]+\.(?:cpp|cxx|cc|c|hpp|hxx|hh|h|inl|py|cmake)\b")
FIXED = (f"{PLACE}/", "/usr/", "/opt/rh/", "/opt/python/", "/opt/_internal/")
"""Folders that are the same on every machine that builds with the same image (manylinux)."""

PERSONS = ("/home/", "/Users/")
SYSTEMS = ("/root", "/__w", "/github/workspace", "/workspace", "/builds", "/build")
OWN_FOLDER = re.compile(
    rf"(?<![\w./:-])(?:(?:{'|'.join(PERSONS)})[\w.-]+|{'|'.join(SYSTEMS)}|/tmp/(?:tmp|pip-)\w+)(?:/[\w.@+~=-]+){{2,}}"
)
"""A path below the folder of a person or of a CI system, as it gets into texts."""

TEXTS = (".py", ".json", ".txt", ".toml", ".cfg", ".yaml", ".yml", ".h", ".cmake")
COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
ORIGIN = re.compile(r"\$(?:ORIGIN|\{ORIGIN\})(?:/(?P<rest>.*))?")

GPU_LIBRARIES = (
    "libcuda*",
    "libcud*",
    "libcublas*",
    "libnccl*",
    "libnv*",
    "libamdhip*",
    "libhip*",
    "libroc*",
    "librccl*",
    "libOpenCL*",
    "libze_loader*",
)
GPU_SECTIONS = (".nv_fatbin", ".nvFatBinSegment", "__nv_*", ".hip_fatbin", ".hipFatBinSegment")
GPU_FILES = ("*.cubin", "*.fatbin", "*.ptx", "*.hsaco")


def _stripped(unpacked: UnpackedWheel) -> Judgement:
    if not unpacked.binaries:
        return skipped("it holds no machine code")
    found = {binary.name: (_bytes(binary, DEBUG), _bytes(binary, SYMBOLS)) for binary in unpacked.binaries}
    debug, symbols = (sum(sizes[index] for sizes in found.values()) for index in (0, 1))
    if not debug and not symbols:
        return passed("no debug information, no local symbols")
    evidence = "\n".join(
        f"{name}: {one / 1e6:.1f} MB of debug information, {other / 1e6:.1f} MB of symbols"
        for name, (one, other) in found.items()
        if one or other
    )
    line = f"{debug / 1e6:.1f} MB of debug information and {symbols / 1e6:.1f} MB of symbols are inside"
    return convicted(line, evidence=evidence, remedy="run strip --strip-unneeded on the extensions", debug_bytes=debug)


def _bytes(binary: Binary, patterns: tuple[str, ...]) -> int:
    return sum(
        size for name, size in binary.sections.items() if any(fnmatchcase(name, pattern) for pattern in patterns)
    )


def _build_paths(unpacked: UnpackedWheel) -> Judgement:
    found = sorted({path for binary in unpacked.binaries for path in _source_paths(binary)})
    found += [f"{path} in {name}" for name in unpacked.file.members for path in _folders(unpacked, name)]
    if not found:
        return passed("no path was found that only its build machine has")
    line = f"{len(found)} paths of somebody's machine are inside, such as {found[0]}"
    remedy = "compile at a fixed place, or with -ffile-prefix-map"
    return convicted(line, evidence="\n".join(found[:200]), remedy=remedy)


def _source_paths(binary: Binary) -> Iterator[str]:
    """Paths in what is loaded into memory; those in debug information are for the check of that to convict."""
    for content in loaded_data(binary.path):
        for match in SOURCE_PATH.finditer(content):
            path = match[0].decode("ascii")
            if not path.startswith(FIXED):
                yield path


def _folders(unpacked: UnpackedWheel, name: str) -> Iterator[str]:
    if not name.endswith(TEXTS):
        return
    text = unpacked.text(name)
    # Most files name no such folder, and looking for fixed words is a hundred times as fast.
    if any(folder in text for folder in (*PERSONS, *SYSTEMS, "tmp/")):
        yield from dict.fromkeys(match[0] for match in OWN_FOLDER.finditer(COMMENT.sub("", text)))


def _search_paths(unpacked: UnpackedWheel) -> Judgement:
    found = [
        f"{binary.name} searches {path or 'the working folder'}"
        for binary in unpacked.binaries
        for path in binary.search_paths
        if not _inside(installed_at(binary.name) or binary.name, path)
    ]
    if found:
        remedy = "set the run path relative to $ORIGIN (patchelf --set-rpath), or remove it"
        return convicted(found[0], evidence="\n".join(found), remedy=remedy)
    return passed("no file of it has libraries searched for outside site-packages")


def _inside(name: str, path: str) -> bool:
    """Whether a search path of a file leads to a folder of the wheel, or beside it in site-packages."""
    match = ORIGIN.fullmatch(path)
    if match is None:
        return False
    below = posixpath.normpath(posixpath.join(posixpath.dirname(name), match["rest"] or "."))
    return below.partition("/")[0] != ".."


def _unsafe_memory(unpacked: UnpackedWheel) -> Judgement:
    found = [f"{binary.name} {danger}" for binary in unpacked.binaries for danger in binary.dangers]
    if found:
        remedy = "link with -z noexecstack and without -z execstack, --omagic or -z notext"
        return convicted_of(found, remedy=remedy)
    return passed("no memory is writable and executable")


def _no_gpu(unpacked: UnpackedWheel) -> Judgement:
    found = list(_gpu_traces(unpacked))
    if found:
        remedy = "build with VLLM_TARGET_DEVICE=cpu against the CPU build of torch"
        return convicted_of(found, remedy=remedy)
    return passed("no GPU library, code or requirement was found")


def _gpu_traces(unpacked: UnpackedWheel) -> Iterator[str]:
    for binary in unpacked.binaries:
        yield from (f"{binary.name} is linked to {name}" for name in binary.needed if _any(name, GPU_LIBRARIES))
        yield from (f"{binary.name} has a section {name}" for name in binary.sections if _any(name, GPU_SECTIONS))
    yield from (f"{name} is GPU code" for name in unpacked.file.members if _any(name, GPU_FILES))
    required = {str(each): each for python in unpacked.claims for each in unpacked.required(python)}
    for line, each in required.items():
        local = [specifier.version for specifier in each.specifier if re.search(r"\+(cu|rocm|xpu)", specifier.version)]
        if local or _any(canonicalize_name(each.name), patterns("requirements", "gpu")):
            yield f"it requires {line}"


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("stripped", "look for debug information", _stripped, tools=TOOLS),
    Check("build-paths", "look for paths of the build machine", _build_paths, severity="warning", tools=TOOLS),
    Check("search-paths", "look where libraries are searched for", _search_paths, tools=TOOLS),
    Check("memory-protection", "look for memory that is writable and executable", _unsafe_memory, tools=TOOLS),
    Check("no-gpu", "look for GPU code and requirements", _no_gpu, tools=TOOLS),
)
