"""Alters a release's tree at random, as upstream might, and tries the patches on it.

    python -m benchmarks.drift TREE 0.32.0 --seeds 300

Each seed makes up to three changes: renamed variables and functions, moved and reformatted blocks, new flags, other
requirements, respelled lookups, another licence. The outcome must be a refusal in words, or a result that is right by
the checks of this program, which know what was changed. Anything else is printed with its seed, and ends with status 1.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_string
from pathlib import Path

from packaging.requirements import Requirement

from vllm_wheels.core.artifacts.metadata.planning import PatchSet, patch_set
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.formats.cmake import commands
from vllm_wheels.core.patches import upstream
from vllm_wheels.core.patches.lookups import lookups
from vllm_wheels.core.patches.native_flags import flags_of
from vllm_wheels.core.patches.native_unified import options_of
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import Variant, variants

CMAKE, SETUP, PYPROJECT, CPU = upstream.CMAKE, upstream.SETUP, upstream.PYPROJECT, upstream.CPU
NEW = "vllm/drifted.py"
MOST_CHANGES = 3
LOOKUPS = (
    'import importlib.metadata as im\n\nX = im.version("vllm")\n',
    'from importlib.metadata import version\n\nDIST = "vllm"\nX = lambda: version(DIST)\n',
    'import pkg_resources\n\nX = pkg_resources.get_distribution("vllm")\n',
    'from importlib.metadata import version\n\nX = "cpu" in version("vllm")\n',
    "import importlib.metadata\n\ndef f(x):\n    match x:\n        case 1: return importlib.metadata.version(\n",
)
KERNELS = ("import vllm._C_AVX512\n", 'X = "vllm._C_AVX2"\n', "import vllm._C\n", "X = 1\n")
FLAGS = ("-mavx512vbmi", "-march=native", "-ffast-math", "-mtune=native", "-DNEW_THING", "-mavx512f", "-funroll-loops")
TORCH = ("torch>=2.13,<2.14", "torch~=2.13.0", "torch==2.13.*", "torch @ https://a.invalid/t.whl", "torch", "numpy<3")
OPTIONS = ("-c constraints.txt", "--extra-index-url https://a.invalid/simple", "-e .", "--pre")
EXTRAS = ('"drift": ["vllm[audio]"],', '"drift": ["other[vllm]>=1"],', '"drift": ["vllm-plugin"],', '"drift": NAMES,')
VALUES = ("5", "[1]", '{ a = "b" }', '"other"', "[[1]]", f"{'[' * 9000}{']' * 9000}")
LICENCES = ('"MIT"', '"Apache-2.0 AND MIT"', '{ text = "Apache 2.0" }', '{ file = "LICENSE" }', '"BUSL-1.1"')

Check = Callable[[PatchSet], bool]


@dataclass
class Altered:
    """A tree with changes that can be taken back.

    Attributes:
        said: what was changed.
        checks: what must hold of a result because of that, with what it says where it does not.
    """

    root: Path
    chance: random.Random
    said: list[str] = field(default_factory=list)
    checks: dict[str, Check] = field(default_factory=dict)
    _before: dict[str, bytes | None] = field(default_factory=dict)

    def text(self, path: str) -> str:
        """Text of a file as it is now."""
        file = self.root / path
        return file.read_text("utf-8") if file.is_file() else ""

    def write(self, path: str, text: str, said: str) -> None:
        """Changes a file."""
        file = self.root / path
        self._before.setdefault(path, file.read_bytes() if file.is_file() else None)
        file.write_text(text, "utf-8")
        self.said.append(f"{path}: {said}")

    def replace(self, path: str, old: str, new: str) -> None:
        """Replaces a text wherever it stands; changes nothing where it does not."""
        if old in (text := self.text(path)):
            self.write(
                path, text.replace(old, new), f"{' '.join(old.split())[:60]!r} -> {' '.join(new.split())[:60]!r}"
            )

    def undo(self) -> None:
        """Takes all changes back."""
        for path, content in self._before.items():
            if content is None:
                (self.root / path).unlink()
            else:
                (self.root / path).write_bytes(content)


def rename_word(tree: Altered) -> None:
    """Renames a variable of CMake, everywhere in its file."""
    words = sorted(set(re.findall(r"\b(?:CXX_|VLLM_|_C_|ENABLE_|CPU|AMX_|AVX10_|ONEDNN_)\w+", tree.text(CMAKE))))
    if words:
        word = tree.chance.choice(words)
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", f"{word}_NEW", tree.text(CMAKE))
        tree.write(CMAKE, text, f"{word} renamed")


def reformat_command(tree: Altered) -> None:
    """Puts a command on one line, or its name in capitals, or each argument on a line; which changes no meaning."""
    text = tree.text(CMAKE)
    chosen = tree.chance.choice([each for each in commands(text) if "#" not in text[each.start : each.end]])
    form = tree.chance.choice(("{name}({one})", "{upper}({one})", "{name}(\n  {many}\n  )", "{name} ( {one} )"))
    new = form.format(
        name=chosen.name,
        upper=chosen.name.upper(),
        one=" ".join(chosen.arguments),
        many="\n  ".join(chosen.arguments),
    )
    tree.write(CMAKE, text[: chosen.start] + new + text[chosen.end :], f"{chosen.name} reformatted")


def drop_command(tree: Altered) -> None:
    """Removes a command that opens or closes no block."""
    text = tree.text(CMAKE)
    blocks = ("if", "elseif", "else", "endif", "function", "endfunction", "foreach", "endforeach", "macro", "endmacro")
    chosen = tree.chance.choice([each for each in commands(text) if each.name not in blocks])
    tree.write(CMAKE, text[: chosen.start] + text[chosen.end :], f"{text[chosen.start : chosen.end][:60]!r} removed")


def condition_command(tree: Altered) -> None:
    """Puts a command under a condition that the text alone does not decide."""
    text = tree.text(CMAKE)
    kinds = ("list", "set", "target_compile_definitions", "define_extension_target", "target_compile_options")
    chosen = tree.chance.choice([each for each in commands(text) if each.name in kinds])
    block = f"if (DRIFTED)\n{text[chosen.start : chosen.end]}\nendif()"
    tree.write(CMAKE, text[: chosen.start] + block + text[chosen.end :], f"{chosen.name} under a condition")


def swap_commands(tree: Altered) -> None:
    """Exchanges two neighbours."""
    text = tree.text(CMAKE)
    found = [each for each in commands(text) if each.name in ("set", "list", "message", "target_compile_definitions")]
    index = tree.chance.randrange(len(found) - 1)
    one, other = found[index], found[index + 1]
    middle = text[one.end : other.start]
    swapped = text[other.start : other.end] + middle + text[one.start : one.end]
    tree.write(CMAKE, text[: one.start] + swapped + text[other.end :], f"{one.name} and {other.name} exchanged")


def new_flag(tree: Altered) -> None:
    """Adds a flag to a list of flags."""
    text, flag = tree.text(CMAKE), tree.chance.choice(FLAGS)
    lists = [each for each in commands(text) if re.search(r"CXX_COMPILE_FLAGS", " ".join(each.arguments[:2]))]
    lists = [each for each in lists if each.name == "list" and each.reached is not False]
    if not lists:
        return
    chosen = tree.chance.choice(lists)
    end = chosen.end - 1
    tree.write(CMAKE, f'{text[:end]} "{flag}"{text[end:]}', f"{flag} in {chosen.arguments[1]}")
    if chosen.arguments[1] == "CXX_COMPILE_FLAGS" and not flag.startswith("-m"):
        tree.checks[f"{flag} was lost"] = lambda made: flag in compile_flags(made)


def lookup(tree: Altered) -> None:
    """Asks for the distribution in a new file."""
    tree.write(NEW, tree.chance.choice(LOOKUPS), "a new lookup")


def kernel_import(tree: Altered) -> None:
    """Names an extension in a new file."""
    tree.write(NEW, tree.chance.choice(KERNELS), "a new import")


def other_torch(tree: Altered) -> None:
    """Requires torch in another form."""
    new = tree.chance.choice(TORCH)
    text = re.sub(r"^torch==.*x86_64.*$", new, tree.text(CPU), flags=re.MULTILINE)
    tree.write(CPU, text, f"torch as {new!r}")


def option(tree: Altered) -> None:
    """Adds an option to a requirements file."""
    new = tree.chance.choice(OPTIONS)
    tree.write(CPU, f"{tree.text(CPU)}\n{new}\n", new)


def extra(tree: Altered) -> None:
    """Adds an extra."""
    tree.replace(SETUP, "extras_require={\n", f"extras_require={{\n        {tree.chance.choice(EXTRAS)}\n")


def licence(tree: Altered) -> None:
    """Names another licence, or this one otherwise."""
    tree.replace(PYPROJECT, 'license = "Apache-2.0"', f"license = {tree.chance.choice(LICENCES)}")


def value(tree: Altered) -> None:
    """Gives a field of pyproject.toml a value of another kind, or a table the form of a list of tables."""
    text = tree.text(PYPROJECT)
    fields = re.findall(r"^[\w-]+ *= *(?!\[$).*$|^\[[\w.-]+\]$", text, re.MULTILINE)
    old = tree.chance.choice(fields)
    new = f"[{old}]" if old.startswith("[") else f"{old.partition('=')[0]}= {tree.chance.choice(VALUES)}"
    tree.write(PYPROJECT, text.replace(f"\n{old}\n", f"\n{new}\n", 1), f"{old[:60]!r} -> {new[:60]!r}")


def licence_text(tree: Altered) -> None:
    """Adds a clause to LICENSE, or breaks its lines otherwise."""
    text = tree.text("LICENSE")
    new = tree.chance.choice((text + "\nNo commercial use.\n", text.replace("\n", "\r\n"), text.replace("   ", "  ")))
    tree.write("LICENSE", new, "another text")


def extension(tree: Altered) -> None:
    """Builds a further extension."""
    name = tree.chance.choice(("_C_AVX10", "fast_io", "_C_new"))
    anchor = '        ext_modules.append(CMakeExtension(name="vllm._C"))\n'
    tree.replace(SETUP, anchor, f'{anchor}        ext_modules.append(CMakeExtension(name="vllm.{name}"))\n')


def quotes(tree: Altered) -> None:
    """Writes setup.py with other quotes, or other blanks."""
    old, new = tree.chance.choice(
        (("vllm._C_AVX2", "vllm._C_AVX2X"), ('(name="vllm', "(name='vllm"), ("    if ", "    if  "))
    )
    tree.replace(SETUP, old, new)


def rename_function(tree: Altered) -> None:
    """Renames something of vLLM's own code that a patch may look for."""
    path, word = tree.chance.choice(
        (
            ("vllm/platforms/cpu.py", "import_kernels"),
            ("vllm/platforms/cpu.py", "CpuArchEnum.X86"),
            ("vllm/platforms/__init__.py", "vllm_version"),
            ("vllm/__init__.py", "vllm.env_override"),
            ("vllm/entrypoints/cli/main.py", "importlib.metadata.version"),
            ("vllm/_custom_ops.py", "torch.ops._C"),
        )
    )
    tree.replace(path, word, f"{word}_new")


CHANGES: tuple[Callable[[Altered], None], ...] = (
    *(rename_word, reformat_command, drop_command, condition_command, swap_commands, new_flag),
    *(lookup, kernel_import, other_torch, option, extra, value, licence, licence_text),
    *(extension, quotes, rename_function),
)


def compile_flags(made: PatchSet) -> tuple[str, ...]:
    """What the extension is compiled with, by the patched CMake file."""
    text = made.native[CMAKE]
    targets = [each for each in commands(text) if "extension_target" in each.name and each.arguments[:1] == ("_C",)]
    return flags_of(text, options_of(targets[0])["COMPILE_FLAGS"])


def always_on(text: str) -> set[str]:
    """Flags for instruction sets that are added outside of any condition."""
    added = (each for each in commands(text) if each.name == "list" and each.branch is None)
    return {flag for each in added for flag in re.findall(r"-m[\w-]+", " ".join(each.arguments))}


def faults(made: PatchSet, tree: Altered, demands: upstream.Upstream, variant: Variant) -> Iterator[str]:
    """What is wrong with a result."""
    yield from (line for line, holds in tree.checks.items() if not holds(made))
    yield from _faults_of_build(made, variant, demands)
    yield from _faults_of_code(made, tree)
    message = message_from_string(made.metadata)
    if message["License-Expression"] != "Apache-2.0":
        yield f"the wheel says {message['License-Expression']}"
    required = [Requirement(line) for line in message.get_all("Requires-Dist", [])]
    if f"=={demands.torch}" not in {str(each.specifier) for each in required if each.name == "torch"}:
        yield f"torch {demands.torch} is not required"
    if any(each.name == "vllm" or "vllm" in each.extras or each.url for each in required):
        yield "the distribution vllm, or a URL, is required"


def _faults_of_build(made: PatchSet, variant: Variant, demands: upstream.Upstream) -> Iterator[str]:
    text = made.native[CMAKE]
    machine = {flag for flag in compile_flags(made) if flag.startswith("-m")}
    always = {*always_on(text), "-mf16c"}
    if demands.family == "host-detected":
        machine &= always
    elif not set(made.facts["flags"]) <= machine:
        yield f"compiled without {' '.join(sorted(set(made.facts['flags']) - machine))}"
    if not machine <= {*variant.flags, "-mf16c"}:
        yield f"compiled with {' '.join(sorted(machine))}"
    if not {"-fopenmp", "-DVLLM_CPU_EXTENSION", "-mf16c"} <= set(compile_flags(made)):
        yield f"common flags were lost: {' '.join(compile_flags(made))}"
    if 'set(CPUINFO "' not in text.partition("/proc/cpuinfo")[2] or "LINKER:-z," not in text:
        yield "the CPU of the build machine, or the level of the variant, was lost"
    if demands.family == "unified" and "_C_AVX" in made.native[SETUP]:
        yield "setup.py builds an extension that is not defined"


def _faults_of_code(made: PatchSet, tree: Altered) -> Iterator[str]:
    for file in sorted((tree.root / "vllm").rglob("*.py")):
        path = file.relative_to(tree.root).as_posix()
        if path in made.overlay or path == NEW:
            module = ast.parse(made.overlay.get(path) or file.read_text("utf-8"))
            if any(each.of_upstream for each in lookups(module)):
                yield f"{path} asks for vllm"
            if re.search(r"_C_AVX(?!\w*/)", ast.unparse(module)) and made.facts["flags"]:
                yield f"{path} names an extension that the wheel has not"


def try_seed(root: Path, release: str, seed: int) -> tuple[str, str]:
    """Alters, patches, judges and takes back: ``right``, ``refused`` or ``wrong``, and what there is to say."""
    chance = random.Random(seed)  # noqa: S311 - nobody is to be kept from guessing it
    tree = Altered(root=root, chance=chance)
    try:
        for change in chance.sample(CHANGES, chance.randint(1, MOST_CHANGES)):
            change(tree)
        variant = chance.choice(list(variants().values()))
        return _judged(tree, release, variant)
    finally:
        tree.undo()


def _judged(tree: Altered, release: str, variant: Variant) -> tuple[str, str]:
    said = f"{variant.name}; {'; '.join(tree.said)}"
    try:
        demands = upstream.read(tree.root, release=release)
        made = patch_set(tree.root, upstream=demands, variant=variant, settings=Settings())
    except VllmWheelsError as error:
        worded = error.what and error.why and error.remedy
        return ("refused" if worded else "wrong"), f"{said}; {error.what}: {error.why}"
    except Exception as error:  # noqa: BLE001 - an error that is none of ours is what is looked for
        return "wrong", f"{said}; {type(error).__name__}: {error}"
    found = list(faults(made, tree, demands, variant))
    return ("wrong" if found else "right"), f"{said}; {'; '.join(found)}"


def main() -> None:
    """Tries all seeds, and prints the counts."""
    parser = argparse.ArgumentParser(description="Alters a tree at random and tries the patches on it.")
    parser.add_argument("tree", type=Path, help="an unpacked source tree; it is altered, and put back")
    parser.add_argument("release")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    for seed in range(given.first, given.first + given.seeds):
        outcome, said = try_seed(given.tree, given.release, seed)
        counts[outcome] += 1
        if outcome == "wrong" or given.verbose:
            sys.stdout.write(f"seed {seed}: {outcome}: {said}\n")
    sys.stdout.write(
        f"{given.release}: {counts['refused']} refused, {counts['right']} right, {counts['wrong']} wrong\n"
    )
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
