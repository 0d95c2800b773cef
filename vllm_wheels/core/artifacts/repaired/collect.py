"""Takes the compiled code alone out of a raw wheel, as a wheel that auditwheel can repair."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.packing import pack_wheel
from vllm_wheels.core.formats.wheel_name import dist_info_name
from vllm_wheels.core.formats.wheelfile import elf_files, unpack_wheel

METADATA = "Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
"""As much as auditwheel reads; the finished wheel has the whole."""

ONE_PYTHON = re.compile(r"\.(cpython|pypy)\d*-[^/]*\.so$")
"""Extensions named for one Python, which a stable-ABI tag must not promise to others."""


def code_of(
    raw: Path,
    out: Path,
    *,
    distribution: str,
    version: str,
    abi: str,
    platform: str,
    epoch: int,
    bundled: Mapping[str, Path],
) -> Path:
    """Packs all ELF files of a raw wheel under the distribution's name, for which auditwheel names its folder.

    ``bundled`` are libraries of the builder by their new path in the wheel. The Python tag is that of the lowest
    Python, such as ``cp311``; the platform is plain linux, since auditwheel decides about a better one (repair.py).

    Returns:
        Path of the wheel, tagged ``<abi>-abi3-<platform>``; nothing in it is compressed.

    Raises:
        WheelError: the raw wheel is damaged, or an extension is made for one Python only.
    """
    with TemporaryDirectory(prefix="vllm-wheels-collect-") as temporary:
        folder, chosen = Path(temporary, "raw"), Path(temporary, "chosen")
        unpack_wheel(raw, folder)
        code = {path.relative_to(folder).as_posix(): path for path in elf_files(folder)}
        _require_stable_abi(raw, code)
        for name, path in {**code, **bundled}.items():
            (chosen / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, chosen / name)
        text = chosen / dist_info_name(distribution, version) / "METADATA"
        text.parent.mkdir()
        text.write_text(METADATA.format(distribution=distribution, version=version), "utf-8")
        tag = f"{abi}-abi3-{platform}"
        return pack_wheel(chosen, out, distribution=distribution, version=version, tag=tag, epoch=epoch, level=0)


def _require_stable_abi(raw: Path, names: Iterable[str]) -> None:
    if bound := [name for name in names if ONE_PYTHON.search(name)]:
        what = f"{raw.name} cannot get a stable-ABI tag"
        why = f"made for one Python only: {', '.join(bound)}"
        raise WheelError(what, why=why, remedy="compile with setup.py bdist_wheel --py-limited-api")
