"""The provenance statement lies beside the wheel and is about exactly this file."""

from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.formats.wheel_name import sidecar
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed
from vllm_wheels.core.verify.statement import provenance_of
from vllm_wheels.core.verify.unpacked import UnpackedWheel


def _provenance(unpacked: UnpackedWheel) -> Judgement:
    statement = unpacked.read(provenance_of)
    if statement is None:
        remedy = f"put {sidecar(unpacked.path, 'provenance.json').name} beside the wheel"
        return convicted("no provenance stands beside it", remedy=remedy)
    stated = {name: statement.get(name) for name in ("sha256", "release", "variant")}
    if stated["release"] is not None:
        stated["release"] = _release(str(stated["release"]))
    own = {
        "sha256": unpacked.sha256,
        "release": _release(unpacked.version),
        "variant": unpacked.variant.name if unpacked.variant else None,
    }
    faults = [
        f"it says {name} {stated[name]}, the wheel has {own[name]}"
        for name in stated
        if own[name] is not None and stated[name] is not None and stated[name] != own[name]
    ]
    if stated["sha256"] is None:
        faults.append("it names no sha256")
    if faults:
        remedy = "take the provenance that was made with this file"
        return convicted(faults[0], evidence="\n".join(faults), remedy=remedy, severity="error")
    told = f"made by {statement.get('made_by', 'nobody named')} from vLLM {stated['release'] or 'of no named release'}"
    return passed(f"the statement beside it says: {told}")


def _release(text: str) -> str:
    """A version without .post and local part; any other text as it is."""
    version = version_in(text)
    return version.base_version if version else text


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check(
        "provenance",
        "compare the wheel with its provenance",
        _provenance,
        severity="warning",
        inputs=("provenance", "variant"),
    ),
)
