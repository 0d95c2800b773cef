"""The one tree of errors: each says what happened, why, and what to do, and has an exit code of its own.

Exit codes are grouped by tens so that a script can react to a family: 1x input and settings, 2x source, 3x network,
4x environment, 5x patches, 6x machine, 7x build, 8x verification, 9x publication.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from vllm_wheels.core.texts import shown


class VllmWheelsError(Exception):
    """Base of all errors a user can meet: what happened, why, and what to type or change, a line each."""

    exit_code: ClassVar[int] = 10

    def __init_subclass__(cls, *, exit_code: int | None = None) -> None:
        if exit_code is not None:
            cls.exit_code = exit_code

    def __init__(self, what: str, *, why: str, remedy: str) -> None:
        # Here, because every error may quote what others wrote.
        super().__init__(shown(what))
        self.what = shown(what)
        self.why = shown(why)
        self.remedy = shown(remedy)

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  do:  {self.remedy}"

    def __reduce__(self) -> tuple[Callable[..., VllmWheelsError], tuple[object, ...]]:
        return partial(type(self), why=self.why, remedy=self.remedy), (self.what,)


class SettingsError(VllmWheelsError, exit_code=11):
    """A settings file or an environment variable holds something that is not a setting."""


class UnknownVariantError(VllmWheelsError, exit_code=12):
    """A variant was named that variants.toml does not define."""


class UnknownReleaseError(VllmWheelsError, exit_code=13):
    """A release was named that no configured source offers."""


class UnsupportedPythonError(VllmWheelsError, exit_code=14):
    """The release does not support the Python, or no such Python exists."""


class PartitionError(VllmWheelsError, exit_code=15):
    """A partition key is not of the form ``3.11|0.32.0``."""


class CommandLineError(VllmWheelsError, exit_code=16):
    """A command was typed in a way that it does not understand."""


class UnsupportedProcessorError(VllmWheelsError, exit_code=17):
    """No variant runs on the processor."""


class SourceError(VllmWheelsError, exit_code=20):
    """The release's source could not be obtained."""


class HashMismatchError(SourceError, exit_code=21):
    """A downloaded file is not the one that was published."""


class UnsafeArchiveError(SourceError, exit_code=22):
    """An archive is truncated, or would write outside its folder."""


class UnknownFamilyError(SourceError, exit_code=23):
    """The source tree is laid out in a way that no known family of vLLM source is."""


class VariantNotInReleaseError(SourceError, exit_code=24):
    """The release's source cannot honour the variant."""


class NetworkError(VllmWheelsError, exit_code=30):
    """A server did not answer."""


class IndexUnreachableError(NetworkError, exit_code=31):
    """The package index did not answer, or not as an index does."""


class GitUnreachableError(NetworkError, exit_code=32):
    """A git repository could not be read."""


class NotificationError(NetworkError, exit_code=33):
    """Nobody could be told of what happened."""


class RemoteStoreError(NetworkError, exit_code=34):
    """A remote store of artifacts did not answer, or not as one does."""


class UntrustedArtifactError(NetworkError, exit_code=35):
    """An artifact of a remote store is unsigned, altered or not the one that was asked for."""


class EnvironmentResolutionError(VllmWheelsError, exit_code=40):
    """The packages of an environment could not be resolved or installed."""


class CudaTorchError(EnvironmentResolutionError, exit_code=41):
    """The resolved torch is a CUDA build."""


class PatchError(VllmWheelsError, exit_code=50):
    """A patch did not find what it changes."""


class MachineError(VllmWheelsError, exit_code=60):
    """This machine lacks something that the build needs."""


class CompilerError(MachineError, exit_code=61):
    """The compiler is missing or too old."""


class DiskSpaceError(MachineError, exit_code=62):
    """The disk is too full for the build."""


class MemoryShortageError(MachineError, exit_code=63):
    """There is too little memory for the build."""


class EngineUnreachableError(MachineError, exit_code=64):
    """No container engine answers."""


class ImageError(MachineError, exit_code=65):
    """The builder image could not be obtained or made."""


class FolderError(MachineError, exit_code=66):
    """A file or folder cannot be read or written."""


class BuildError(VllmWheelsError, exit_code=70):
    """A build step failed."""


class CompilerKilledError(BuildError, exit_code=71):
    """The compiler was killed, nearly always for lack of memory."""


class StepTimeoutError(BuildError, exit_code=72):
    """A step took longer than its limit."""


class WheelError(BuildError, exit_code=73):
    """A file is not a sound wheel, or could not be made into one."""


class StoreBusyError(BuildError, exit_code=74):
    """Another process is making the same artifact and did not finish in time."""


class FailedBeforeError(BuildError, exit_code=76):
    """The same was tried before and failed; it is not tried again until an input moves or somebody asks."""


class VerificationError(VllmWheelsError, exit_code=80):
    """The wheel is not what it claims to be."""


class CannotVerifyError(VllmWheelsError, exit_code=81):
    """The checks could not be carried out, so there is no verdict."""


class PublicationError(VllmWheelsError, exit_code=90):
    """The wheel may not or could not be published."""


class CredentialsError(PublicationError, exit_code=91):
    """The token for an upload is missing, or the index does not accept it."""


class NameTakenError(PublicationError, exit_code=92):
    """The project belongs to somebody else on the index."""


class UnknownRepositoryError(PublicationError, exit_code=93):
    """A repository was named that the settings do not describe."""


class AlteredWheelError(PublicationError, exit_code=94):
    """A wheel is not the one that was built and verified."""


class IncompleteReleaseError(PublicationError, exit_code=95):
    """A required variant is missing, or has not passed on a required Python."""


class ConflictError(PublicationError, exit_code=96):
    """The index has a file of the same name with other bytes."""


class IndexRuleError(PublicationError, exit_code=97):
    """The index would refuse, or has refused, a file by one of its rules."""


class ClockError(PublicationError, exit_code=98):
    """This machine's clock is wrong."""


class UnfinishedUploadError(PublicationError, exit_code=99):
    """A file is not on the index yet; running again continues."""


class RebuildError(BuildError, exit_code=75):
    """A wheel could not be made again from its statement with the same bytes."""


class InterruptedBuildError(VllmWheelsError, exit_code=130):
    """The user interrupted; the next run continues."""
