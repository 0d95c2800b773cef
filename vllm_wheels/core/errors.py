"""The one tree of errors: each says what happened, why, and what to do, and has an exit code of its own.

Exit codes are grouped by tens so that a script can react to a family: 1x input and settings, 2x source, 3x network,
4x environment, 5x patches, 6x machine, 7x build, 8x verification, 9x publication.
"""

from __future__ import annotations

from typing import ClassVar


class VllmWheelsError(Exception):
    """Base of all errors a user can meet.

    Attributes:
        what: what happened, one line without a final period.
        why: the reason, one line.
        remedy: what to type or change, one line.
        exit_code: status of the command that ends with this error.
    """

    exit_code: ClassVar[int] = 10

    def __init__(self, what: str, *, why: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  do:  {self.remedy}"

    def __reduce__(self) -> tuple[object, tuple[type[VllmWheelsError], str, str, str]]:
        return _rebuild, (type(self), self.what, self.why, self.remedy)


def _rebuild(kind: type[VllmWheelsError], what: str, why: str, remedy: str) -> VllmWheelsError:
    return kind(what, why=why, remedy=remedy)


class SettingsError(VllmWheelsError):
    """A settings file or an environment variable holds something that is not a setting."""

    exit_code = 11


class UnknownVariantError(VllmWheelsError):
    """A variant was named that variants.toml does not define."""

    exit_code = 12


class UnknownReleaseError(VllmWheelsError):
    """A release was named that no configured source offers."""

    exit_code = 13


class UnsupportedPythonError(VllmWheelsError):
    """The release does not support the Python, or no such Python exists."""

    exit_code = 14


class PartitionError(VllmWheelsError):
    """A partition key is not of the form ``3.11|0.32.0``."""

    exit_code = 15


class CommandLineError(VllmWheelsError):
    """A command was typed in a way that it does not understand."""

    exit_code = 16


class UnsupportedProcessorError(VllmWheelsError):
    """No variant runs on the processor."""

    exit_code = 17


class SourceError(VllmWheelsError):
    """The release's source could not be obtained."""

    exit_code = 20


class HashMismatchError(SourceError):
    """A downloaded file is not the one that was published."""

    exit_code = 21


class UnsafeArchiveError(SourceError):
    """An archive is truncated, or would write outside its folder."""

    exit_code = 22


class UnknownFamilyError(SourceError):
    """The source tree is laid out in a way that no known family of vLLM source is."""

    exit_code = 23


class VariantNotInReleaseError(SourceError):
    """The release's source cannot honour the variant."""

    exit_code = 24


class NetworkError(VllmWheelsError):
    """A server did not answer."""

    exit_code = 30


class IndexUnreachableError(NetworkError):
    """The package index did not answer, or not as an index does."""

    exit_code = 31


class GitUnreachableError(NetworkError):
    """A git repository could not be read."""

    exit_code = 32


class NotificationError(NetworkError):
    """Nobody could be told of what happened."""

    exit_code = 33


class EnvironmentResolutionError(VllmWheelsError):
    """The packages of an environment could not be resolved or installed."""

    exit_code = 40


class CudaTorchError(EnvironmentResolutionError):
    """The resolved torch is a CUDA build."""

    exit_code = 41


class PatchError(VllmWheelsError):
    """A patch did not find what it changes."""

    exit_code = 50


class MachineError(VllmWheelsError):
    """This machine lacks something that the build needs."""

    exit_code = 60


class CompilerError(MachineError):
    """The compiler is missing or too old."""

    exit_code = 61


class DiskSpaceError(MachineError):
    """The disk is too full for the build."""

    exit_code = 62


class MemoryShortageError(MachineError):
    """There is too little memory for the build."""

    exit_code = 63


class EngineUnreachableError(MachineError):
    """No container engine answers."""

    exit_code = 64


class ImageError(MachineError):
    """The builder image could not be obtained or made."""

    exit_code = 65


class FolderError(MachineError):
    """A file or folder cannot be read or written."""

    exit_code = 66


class BuildError(VllmWheelsError):
    """A build step failed."""

    exit_code = 70


class CompilerKilledError(BuildError):
    """The compiler was killed, nearly always for lack of memory."""

    exit_code = 71


class StepTimeoutError(BuildError):
    """A step took longer than its limit."""

    exit_code = 72


class WheelError(BuildError):
    """A file is not a sound wheel, or could not be made into one."""

    exit_code = 73


class StoreBusyError(BuildError):
    """Another process is making the same artifact and did not finish in time."""

    exit_code = 74


class VerificationError(VllmWheelsError):
    """The wheel is not what it claims to be."""

    exit_code = 80


class CannotVerifyError(VllmWheelsError):
    """The checks could not be carried out, so there is no verdict."""

    exit_code = 81


class PublicationError(VllmWheelsError):
    """The wheel may not or could not be published."""

    exit_code = 90


class CredentialsError(PublicationError):
    """The token for an upload is missing, or the index does not accept it."""

    exit_code = 91


class NameTakenError(PublicationError):
    """The project belongs to somebody else on the index."""

    exit_code = 92


class UnknownRepositoryError(PublicationError):
    """A repository was named that the settings do not describe."""

    exit_code = 93


class AlteredWheelError(PublicationError):
    """A wheel is not the one that was built and verified."""

    exit_code = 94


class IncompleteReleaseError(PublicationError):
    """A required variant is missing, or has not passed on a required Python."""

    exit_code = 95


class ConflictError(PublicationError):
    """The index has a file of the same name with other bytes."""

    exit_code = 96


class IndexRuleError(PublicationError):
    """The index would refuse, or has refused, a file by one of its rules."""

    exit_code = 97


class ClockError(PublicationError):
    """This machine's clock is wrong."""

    exit_code = 98


class UnfinishedUploadError(PublicationError):
    """A file is not on the index yet; running again continues."""

    exit_code = 99


class RebuildError(BuildError):
    """A wheel could not be made again from its statement with the same bytes."""

    exit_code = 75


class InterruptedBuildError(VllmWheelsError):
    """The user interrupted; the next run continues."""

    exit_code = 130
