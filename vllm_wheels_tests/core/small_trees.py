"""The smallest trees that pass for vLLM's and oneDNN's source, and archives and repositories of them."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

UNIFIED = """\
# set(VLLM_CPU_AVX512BF16 in a comment means nothing)
if (NOT MACOSX_FOUND)
    execute_process(COMMAND cat /proc/cpuinfo OUTPUT_VARIABLE CPUINFO)
endif()
if (ENABLE_X86_ISA OR (ASIMD_FOUND AND NOT APPLE_SILICON_FOUND) OR POWER9_FOUND)
    if(FETCHCONTENT_SOURCE_DIR_ONEDNN)
        FetchContent_Declare(oneDNN SOURCE_DIR ${FETCHCONTENT_SOURCE_DIR_ONEDNN})
    else()
        if(ASIMD_FOUND AND NOT APPLE_SILICON_FOUND)
            FetchContent_Declare(
                oneDNN
                GIT_REPOSITORY https://git.invalid/oneDNN.git
                GIT_TAG        9c5be1cc59e368aebf0909e6cf20f981ea61462a
            )
        else()
            FetchContent_Declare(
                oneDNN
                GIT_REPOSITORY https://git.invalid/oneDNN.git
                GIT_TAG        v3.13
            )
        endif()
    endif()
endif()
if (ENABLE_X86_ISA)
    set(VLLM_EXT_SRC_AVX2
        "csrc/cpu/activation.cpp")
    define_extension_target(
        _C
        DESTINATION vllm)
    define_extension_target(
        _C_AVX2
        DESTINATION vllm)
endif()
"""

HOST_DETECTED = """\
set(ENABLE_AVX512BF16 $ENV{VLLM_CPU_AVX512BF16})
execute_process(COMMAND cat /proc/cpuinfo OUTPUT_VARIABLE CPUINFO)
find_isa(${CPUINFO} "avx512f" AVX512_FOUND)
if (AVX512_FOUND AND NOT AVX512_DISABLED)
    FetchContent_Declare(
        oneDNN
        GIT_REPOSITORY https://git.invalid/oneDNN.git
        GIT_TAG v3.7.1
    )
elseif(POWER10_FOUND)
    FetchContent_Declare(
        oneDNN
        GIT_REPOSITORY https://git.invalid/oneDNN.git
        GIT_TAG v3.7.2
    )
endif()
define_gpu_extension_target(
    _C
    DESTINATION vllm)
"""

SETUP = """\
import sys

VLLM_TARGET_DEVICE = envs.VLLM_TARGET_DEVICE


def _is_cuda():
    has_cuda = torch.version.cuda is not None
    return VLLM_TARGET_DEVICE == "cuda" and has_cuda


def _is_cpu():
    return VLLM_TARGET_DEVICE == "cpu"


ext_modules = []
if _is_cuda():
    ext_modules.append(CMakeExtension(name="vllm._moe_C"))
if not _is_cuda():
    ext_modules.append(CMakeExtension(name="vllm.spinloop"))
if _is_cpu():
    import platform

    if platform.machine() in ("x86_64", "AMD64"):
        ext_modules.append(CMakeExtension(name="vllm._C"))
        ext_modules.append(CMakeExtension(name="vllm._C_AVX2"))
    else:
        ext_modules.append(CMakeExtension(name="vllm._C_ARM"))
if not ext_modules:
    cmdclass = {}
"""

PYPROJECT = """\
[build-system]
requires = ["cmake>=3.26", "setuptools>=77,<81", "torch == 2.12.0", "grpcio-tools==1.78.0"]

[project]
name = "vllm"
requires-python = ">=3.11,<3.14"
classifiers = [
    "Programming Language :: Python :: 3.10",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering",
]
"""

CPU = """\
--extra-index-url https://index.invalid/cpu
# Common dependencies
-r common.txt
torch==2.13.0+cpu; platform_machine == "x86_64" or platform_machine == "s390x"  # pinned
torch==2.9.0; platform_machine == "aarch64"
"""

FILES: Mapping[str, str] = {
    "PKG-INFO": "Metadata-Version: 2.4\nName: vllm\nVersion: 0.32.0\n",
    "pyproject.toml": PYPROJECT,
    "setup.py": SETUP,
    "cmake/cpu_extension.cmake": UNIFIED,
    "requirements/common.txt": "regex # fast\nnumpy\n",
    "requirements/cpu.txt": CPU,
    "requirements/build/cpu.txt": 'setuptools==78.1.1 # reuses\ntorch==2.13.0+cpu; platform_machine == "x86_64"\n',
    "vllm/__init__.py": "",
}

ONEDNN: Mapping[str, str] = {
    "CMakeLists.txt": 'set(PROJECT_VERSION "3.13.1")\n',
    "include/oneapi/dnnl/dnnl.h": "// C API\n",
}


def write(folder: Path, files: Mapping[str, str | None]) -> Path:
    """Writes files below a folder; a file whose text is None is left out."""
    for name, text in files.items():
        if text is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")
    return folder


def tree(folder: Path, changes: Mapping[str, str | None] | None = None) -> Path:
    """A vLLM tree with other texts for some files; None leaves a file out."""
    return write(folder, {**FILES, **(changes or {})})


def archive(files: Mapping[str, str] = FILES, top: str = "vllm-0.32.0") -> bytes:
    """A source archive of such a tree."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def git(folder: Path, *arguments: str) -> str:
    """Runs git in a repository, apart from the user's configuration."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "init.defaultBranch=main")
    argv = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=environment, timeout=60).stdout.strip()


def repository(folder: Path, files: Mapping[str, str], *, tag: str) -> str:
    """A git repository with one commit under an annotated tag; gives the commit."""
    write(folder, files)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")
    git(folder, "tag", "--annotate", tag, "--message", tag)
    return git(folder, "rev-parse", "HEAD")
