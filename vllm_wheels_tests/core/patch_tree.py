"""A source tree of a few lines with the anchors that the patches look for, shaped like the real releases."""

from __future__ import annotations

from pathlib import Path

from vllm_wheels.core.patches.patch import Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import Family, Upstream
from vllm_wheels.core.variants import variant, variants

INIT = '''\
"""vLLM"""

# Always first.
from .version import __version__  # isort:skip

import vllm.env_override  # noqa: F401

NAMES = {}
'''
PLATFORMS = """\
def vllm_version_matches_substr(substr):
    from importlib.metadata import PackageNotFoundError, version

    try:
        vllm_version = version("vllm")
    except PackageNotFoundError as e:
        raise e
    return substr in vllm_version
"""
MAIN = "import importlib.metadata\n\nVERSION = importlib.metadata.version('vllm')\n"
CPU = """\
class CpuPlatform:
    @classmethod
    def import_kernels(cls) -> None:
        if Platform.get_cpu_architecture() in (CpuArchEnum.X86,):
            # Note: the module name is _C.
            if torch.cpu._is_avx512_supported():
                try:
                    import vllm._C  # noqa: F401
                except ImportError as e:
                    logger.warning("Failed to import from vllm._C: %r", e)
            else:
                import vllm._C_AVX2  # noqa: F401
        else:
            import vllm._C  # noqa: F401

    @classmethod
    def other(cls) -> None:
        pass
"""
READING = """\
if (NOT MACOSX_FOUND)
    execute_process(COMMAND cat /proc/cpuinfo
                    RESULT_VARIABLE CPUINFO_RET
                    OUTPUT_VARIABLE CPUINFO)
    if (NOT CPUINFO_RET EQUAL 0)
        message(FATAL_ERROR "Failed to check CPU features via /proc/cpuinfo")
    endif()
endif()
"""
UNIFIED = (
    READING
    + """\
list(APPEND CXX_COMPILE_FLAGS "-fopenmp" "-DVLLM_CPU_EXTENSION" "-mf16c")
list(APPEND CXX_COMPILE_FLAGS_AVX512 ${CXX_COMPILE_FLAGS} "-mavx512f" "-mavx512vl" "-mavx512bw" "-mavx512dq")
list(APPEND CXX_COMPILE_FLAGS_AVX2 ${CXX_COMPILE_FLAGS} "-mavx2")
list(APPEND CXX_COMPILE_FLAGS_AVX512_AMX
    ${CXX_COMPILE_FLAGS_AVX512} "-mamx-bf16" "-mamx-tile" "-mavx512bf16" "-mavx512vnni")
if (ENABLE_X86_ISA)
    target_compile_options(dnnl_ext PRIVATE ${CXX_COMPILE_FLAGS_AVX2} -fPIC)
endif()
if (ENABLE_X86_ISA)
    set(VLLM_EXT_SRC_SGL
        "csrc/cpu/sgl-kernels/gemm.cpp")
    set(VLLM_EXT_SRC_AVX512
        "csrc/cpu/shm.cpp")
    set(VLLM_EXT_SRC_AVX2
        # a comment among the files
        "csrc/cpu/utils.cpp")
    set(_C_LIBS numa dnnl_ext)

    # Everything
    define_extension_target(
        _C
        DESTINATION vllm
        LANGUAGE CXX
        SOURCES ${VLLM_EXT_SRC_AVX512} ${VLLM_EXT_SRC_SGL}
        LIBRARIES ${_C_LIBS}
        COMPILE_FLAGS ${CXX_COMPILE_FLAGS_AVX512_AMX}
        USE_SABI 3
        WITH_SOABI
    )
    target_compile_definitions(_C PRIVATE "-DCPU_CAPABILITY_OLD")
    if (AMX_FP8_SUPPORTED)
        target_compile_definitions(_C PRIVATE "-DCPU_CAPABILITY_AMXFP8")
    endif()
    define_extension_target(
        _C_AVX512
        DESTINATION vllm
        LANGUAGE CXX
        SOURCES ${VLLM_EXT_SRC_AVX512}
        LIBRARIES ${_C_AVX512_LIBS}
        COMPILE_FLAGS ${CXX_COMPILE_FLAGS_AVX512}
        USE_SABI 3
        WITH_SOABI
    )
    define_extension_target(
        _C_AVX2
        DESTINATION vllm
        LANGUAGE CXX
        SOURCES ${VLLM_EXT_SRC_AVX2}
        LIBRARIES ${_C_AVX2_LIBS}
        COMPILE_FLAGS ${CXX_COMPILE_FLAGS_AVX2}
        USE_SABI 3
        WITH_SOABI
    )
else()
    define_extension_target(
        _C
        SOURCES ${VLLM_EXT_SRC}
    )
endif()
"""
)
HOST_DETECTED = (
    "if(DEFINED ENV{VLLM_CPU_AVX512BF16})\n    set(ENABLE_AVX512BF16 ON)\nendif()\n"
    "set(ENABLE_AMXBF16 $ENV{VLLM_CPU_AMXBF16})\n"
    'list(APPEND CXX_COMPILE_FLAGS\n    "-fopenmp" "-DVLLM_CPU_EXTENSION" "-mf16c")\n'
    + READING
    + """\
if (AVX512_FOUND)
    list(APPEND CXX_COMPILE_FLAGS "-mavx512f" "-mavx512vl" "-mavx512bw" "-mavx512dq")
    if (AVX512BF16_FOUND OR ENABLE_AVX512BF16)
        list(APPEND CXX_COMPILE_FLAGS "-mavx512bf16")
    endif()
    if (AVX512VNNI_FOUND OR ENABLE_AVX512VNNI)
        list(APPEND CXX_COMPILE_FLAGS "-mavx512vnni")
    endif()
elseif (AVX2_FOUND)
    list(APPEND CXX_COMPILE_FLAGS "-mavx2")
endif()
FetchContent_MakeAvailable(oneDNN)
if (ENABLE_AVX512BF16 AND ENABLE_AVX512VNNI)
    set(VLLM_EXT_SRC "csrc/cpu/sgl-kernels/gemm.cpp" ${VLLM_EXT_SRC})
endif()
"""
)
SETUP = """\
class cmake_build_ext(build_ext):
    def run(self):
        super().run()

        # bundle tcmalloc into CPU wheels
        if should_bundle_tcmalloc():
            bundle_tcmalloc(self.build_lib)


if platform.machine() in ("x86_64", "AMD64"):
        ext_modules.append(CMakeExtension(name="vllm._C"))
        ext_modules.append(CMakeExtension(name="vllm._C_AVX512"))
        ext_modules.append(CMakeExtension(name="vllm._C_AVX2"))

setup(
    ext_modules=ext_modules,
    rust_extensions=rust_extensions,
    extras_require={
        "audio": ["av", "torch==2.13.0+cpu"],  # Required for audio
        "video": [],
    },
)
"""
PYPROJECT = """\
[build-system]
requires = ["setuptools"]

[project]
name = "vllm"
authors = [{name = "vLLM Team"}]
license = "Apache-2.0"
license-files = ["LICENSE"]
readme = "README.md"
description = "An engine"
classifiers = ["Programming Language :: Python :: 3.11"]
requires-python = ">=3.11,<3.15"
dynamic = [ "version", "dependencies", "optional-dependencies"]

[project.urls]
Homepage="https://example.org/vllm"

[project.scripts]
vllm = "vllm.entrypoints.cli.main:main"
"""
UTILS = """\
#include <ATen/cpu/Utils.h>
inline int64_t get_available_l2_size() {
  static int64_t size = []() {
    const uint32_t l2_cache_size = at::cpu::L2_cache_size();
    return l2_cache_size >> 1;
  }();
  return size;
}
"""
ROTARY = "vllm/model_executor/layers/rotary_embedding/base.py"
FILES = {
    "csrc/cpu/utils.hpp": UTILS,
    "vllm/__init__.py": INIT,
    "vllm/platforms/__init__.py": PLATFORMS,
    "vllm/platforms/cpu.py": CPU,
    "vllm/entrypoints/cli/main.py": MAIN,
    ROTARY: (Path(__file__).parents[1] / "fixtures/trees/unified" / ROTARY).read_text("utf-8"),
    "setup.py": SETUP,
    "pyproject.toml": PYPROJECT,
    "README.md": "# vLLM\n\nUpstream's own words.\n",
    "LICENSE": (Path(__file__).parents[1] / "fixtures/trees/unified/LICENSE").read_text("utf-8"),
}
CMAKE = "cmake/cpu_extension.cmake"


def write(root: Path, family: Family = "unified") -> Path:
    """Writes the tree."""
    texts = {**FILES, CMAKE: UNIFIED}
    if family == "host-detected":
        del texts[ROTARY]
        texts.update({CMAKE: HOST_DETECTED, "vllm/platforms/cpu.py": CPU.replace("_C_AVX2", "_C")})
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def upstream(family: Family = "unified", release: str = "0.33.0", **fields: tuple[str, ...]) -> Upstream:
    """What such a tree demands."""
    demands = {
        "pythons": ("3.11", "3.12"),
        "extensions": ("_C",),
        "build_requirements": (),
        "runtime_requirements": ("numpy", "torch==2.13.0+cpu; platform_machine == 'x86_64'"),
        **fields,
    }
    return Upstream(release=release, family=family, torch="2.13.0", onednn_url="", onednn_tag="", **demands)


def wanted(name: str = "avx512vnni", family: Family = "unified", release: str = "0.33.0") -> Wanted:
    """A variant of such a tree, with the names of variants.toml."""
    names = {name: known.distribution for name, known in variants().items()}
    return Wanted(upstream=upstream(family, release), variant=variant(name), distributions=names)


def tree(root: Path, release: str = "0.33.0") -> Tree:
    """The patches' view of it."""
    return Tree(root=root, release=release)
