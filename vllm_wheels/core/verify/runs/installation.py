"""Installs a wheel with CPU torch and all that it requires into a clean environment of its own, through uv."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from vllm_wheels.core.engine.builder import PLACE, Mount
from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.commands import INDEX, PYTHON, UV, WHEEL, Invocation
from vllm_wheels.core.host.processes import Finished
from vllm_wheels.core.index.arguments import CPU_INDEX, UNREACHABLE, index_arguments
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.checks import Check, Judgement, RunOptions, convicted, passed, skipped
from vllm_wheels.core.verify.pythons import host_python
from vllm_wheels.core.verify.test_run import HERE, INSTALLS, PROGRAMS, TestRun, last_lines

TOOLS = ("packaging", "uv")
PROBES = Path(__file__).parent / "probes"

SIDECARS = {"torchvision": "torchvision", "torchaudio": "torchaudio", "torchcodec": "torchaudio"}
"""Torch packages that vLLM requires, and the entry of ``torch.packages`` that stands for each: torchaudio's
decoder is torchcodec."""

MISSING = re.compile(r"requires `(?P<name>[A-Za-z0-9][\w.-]*)[^`]*`, but it's not installed")
"""A line of ``uv pip check``."""

COMPLAINT = re.compile(r"^The package .*$", re.MULTILINE)
REASONS = tuple(re.compile(text) for text in (r"Because .*", r"[Ff]ailed to (?:fetch|download).*", r"(?<=error: ).*"))
"""Lines of uv that say why it failed, the most telling first."""

REMEDY = (
    "correct the wheel's tags or requirements, or offer what is missing through index.extra_urls or index.find_links"
)


def left_out(settings: Settings, *, unavailable: Sequence[str] = ()) -> tuple[str, ...]:
    """Normalised names of requirements that are not to be installed.

    They are what ``torch.packages`` does not list, and what the wheel was already built without.
    """
    configured = {canonicalize_name(name) for name in settings.torch.packages}
    without = {canonicalize_name(name) for name in unavailable}
    return tuple(
        name
        for name, entry in SIDECARS.items()
        if name in without or (name not in configured and (entry not in configured or entry in without))
    )


def _install(test_run: TestRun) -> Judgement:
    """Makes the environment and installs the wheel there; no such Python, or no index in reach, leaves it open."""
    for name in ("home", "wheel"):
        (test_run.folder / name).mkdir(parents=True)
    shutil.copytree(PROBES, test_run.folder / "probes", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(test_run.wheel, test_run.folder / "wheel" / test_run.wheel.name)
    overrides = "".join(f'{name} ; sys_platform == "never"\n' for name in test_run.left_out)
    (test_run.folder / "overrides.txt").write_text(overrides, "utf-8")
    python = base_python(test_run)
    making, *rest = test_run.commands
    made = _uv(test_run, making.filled({PYTHON: python}))
    if made.status != 0:
        what = f"uv cannot make an environment of {python}"
        remedy = "see smoke.log; correct or reinstall that Python"
        raise CannotVerifyError(what, why=_reason(made.output), remedy=remedy)
    finished, beside = _installed(test_run, *rest)
    if finished.status == 0:
        line = f"installs with all that it requires, in {finished.seconds:.0f} s{beside}"
        evidence = last_lines(finished.output, 400)
        return passed(line, evidence=evidence, install_seconds=round(finished.seconds, 1))
    if UNREACHABLE.search(finished.output):
        what, why = "a package cannot be fetched", _reason(finished.output)
        cure = "set substitutes = allow to do without that index" if CPU_INDEX.search(why) else "correct index.url"
        raise CannotVerifyError(what, why=why, remedy=f"check the network, or {cure}")
    line = f"does not install: {_reason(finished.output)}"
    return convicted(line, evidence=last_lines(finished.output), remedy=REMEDY)


def base_python(test_run: TestRun) -> str:
    """The Python below the environment, which runs nothing of what is installed there."""
    if test_run.in_container:
        return test_run.context.builder.python(test_run.python)
    return host_python(test_run.python, test_run.context.runner)


def _install_commands(options: RunOptions) -> tuple[Invocation, ...]:
    settings = options.settings
    making = _client(settings, "venv", "--no-project", "--python", PYTHON, f"{HERE}/venv")
    place = ("--python", f"{PROGRAMS}/python", "--overrides", f"{HERE}/overrides.txt")
    requested = (*place, INDEX, f"{HERE}/wheel/{WHEEL}")
    plain = _client(settings, "pip", "install", *requested)
    if settings.torch.backend == "none":
        return making, plain
    # Where a substitute stands by, one more try is enough.
    patience = {"UV_HTTP_RETRIES": "1"} if settings.substitutes == "allow" else {}
    wished = _client(settings, "pip", "install", "--torch-backend", settings.torch.backend, *requested, **patience)
    if settings.substitutes == "refuse":
        return making, wished
    return making, wished, replace(plain, condition="if PyTorch's own index of CPU builds cannot be reached")


def _check_commands(options: RunOptions) -> tuple[Invocation, ...]:
    alone = {"UV_NO_CACHE": "1", "UV_NO_CONFIG": "1", "UV_OFFLINE": "1"}
    return (_client(options.settings, "pip", "check", "--python", f"{PROGRAMS}/python", **alone),)


def _client(settings: Settings, *arguments: str, **env: str) -> Invocation:
    common = ("--color", "never", "--no-progress", "--no-python-downloads")
    timeout = str(max(1, round(settings.index.timeout_seconds)))
    # Building a source archive would run its code; and what is installed must share no file with uv's cache.
    careful = {"UV_HTTP_TIMEOUT": timeout, "UV_NO_BUILD": "1", "UV_LINK_MODE": "copy"}
    return Invocation(argv=(UV, *arguments, *common), environment={**careful, **env}, place="location")


def _installed(test_run: TestRun, wished: Invocation, fallback: Invocation | None = None) -> tuple[Finished, str]:
    finished = _uv(test_run, wished)
    failed = finished.status != 0 and UNREACHABLE.search(finished.output) and CPU_INDEX.search(_reason(finished.output))
    if not failed or fallback is None:
        return finished, ""
    # The environment that the wheel was built with fell back in the same way.
    beside = ", without PyTorch's own index of CPU builds, which cannot be reached"
    test_run.context.say(f"NOTICE: installing{beside}")
    return _uv(test_run, fallback), beside


def _complete(test_run: TestRun) -> Judgement:
    """Lists requirements of the wheel that were left out on purpose."""
    absent = [name for name in _absent(_pip_check(test_run)) if name in test_run.left_out]
    if absent:
        line = f"left out: {', '.join(absent)}, which torch.packages leaves out or no index in reach offers"
        return skipped(line)
    return passed("nothing that it requires was left out")


def _agree(test_run: TestRun) -> Judgement:
    """Runs ``uv pip check``: the requirements of all installed packages are met, and the wheel's tags fit."""
    output = _pip_check(test_run)
    excused = set(test_run.left_out)
    complaints = [line for line in COMPLAINT.findall(output) if not excused.issuperset(_absent(line) or ("",))]
    without = [name for name in _absent(output) if name in excused]
    beside = f", apart from {', '.join(without)} (left out)" if without else ""
    if complaints:
        remedy = "correct the wheel's requirements, or the tags in its WHEEL file"
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        line = f"{complaints[0]}{more}{beside}"
        return convicted(line, evidence="\n".join(complaints), remedy=remedy)
    return passed(f"all requirements are met{beside}", evidence=last_lines(output))


def _pip_check(test_run: TestRun) -> str:
    (command,) = test_run.commands
    finished = _uv(test_run, command, runs_it=True)
    if finished.status != 0 and not COMPLAINT.search(finished.output):
        what = "uv could not check the environment"
        raise CannotVerifyError(what, why=_reason(finished.output), remedy="see smoke.log")
    return finished.output


def _absent(output: str) -> list[str]:
    return sorted({canonicalize_name(match["name"]) for match in MISSING.finditer(output)})


def _index(test_run: TestRun) -> list[str]:
    words = index_arguments(test_run.context.settings, test_run.environ())
    # uv runs in another folder than the one that the user's relative paths start from.
    return [str(path.absolute()) if (path := _folder(word)) and "://" not in word else word for word in words]


def _folder(word: str) -> Path | None:
    """The folder of this host that an argument of uv names, be it as a path or as a URL."""
    if word.startswith(f"{PLACE}/"):
        return None
    parts = urlsplit(word)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    path = Path(word)
    return path if not parts.scheme and len(path.parts) > 1 and path.is_dir() else None


def _uv(test_run: TestRun, command: Invocation, *, runs_it: bool = False) -> Finished:
    """Runs uv, which starts the environment's Python; with ``runs_it`` what is installed there runs with it."""
    known = {UV: test_run.uv, HERE: test_run.place, WHEEL: test_run.wheel.name, INDEX: _index(test_run)}
    real = command.filled(known)
    if runs_it:
        return test_run.start_without_network(real.argv, env=real.environment)
    if not test_run.in_container:
        return test_run.run_with_network(real.argv, env=real.environment)
    cache = test_run.context.settings.state_folder / "uv-cache"
    cache.mkdir(parents=True, exist_ok=True)
    indexes = sorted({folder for word in real.argv if (folder := _folder(word))})
    mounts = [Mount(source=place, place=str(place)) for place in indexes]
    mounts.append(Mount(source=cache, place=f"{PLACE}/uv-cache", writable=True, lent=True))
    given = {**real.environment, "UV_CACHE_DIR": f"{PLACE}/uv-cache"}
    return test_run.run_with_network(real.argv, env=given, mounts=mounts)


def _reason(output: str) -> str:
    found = [match[0] for pattern in REASONS for match in pattern.finditer(output)]
    return (found or output.strip().splitlines()[-1:] or ["uv gave no reason"])[0]


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        INSTALLS,
        "install the wheel and all that it requires",
        _install,
        seconds=30,
        commands=_install_commands,
        tools=TOOLS,
    ),
    Check(
        "complete",
        "name what was left out",
        _complete,
        needs=(INSTALLS,),
        seconds=1,
        commands=_check_commands,
        tools=TOOLS,
    ),
    Check(
        "requirements-agree",
        "compare all installed requirements",
        _agree,
        needs=(INSTALLS,),
        seconds=1,
        commands=_check_commands,
        tools=TOOLS,
    ),
)
