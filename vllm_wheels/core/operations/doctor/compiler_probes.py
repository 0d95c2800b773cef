"""The compiler: does it really make the machine code of every variant, and does it find the headers?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from vllm_wheels.core.builders.container import ContainerBuilder
from vllm_wheels.core.builders.local import LocalBuilder
from vllm_wheels.core.engine.builder import PLACE, Command, Mount
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.host.machine import CONTAINER_REMEDY
from vllm_wheels.core.operations.doctor.findings import Finding, Scene, lacking, ok
from vllm_wheels.core.operations.doctor.machine_probes import usable_image
from vllm_wheels.core.variants import Variant, variants

if TYPE_CHECKING:
    from vllm_wheels.core.engine.builder import Builder

INSTRUCTIONS: Mapping[str, str] = {
    "AVX2": "vpaddd %ymm0, %ymm1, %ymm2",
    "FMA": "vfmadd213ps %ymm0, %ymm1, %ymm2",
    "AVX512F": "vpaddd %zmm0, %zmm1, %zmm2",
    "AVX512VL": "vpabsq %ymm0, %ymm1",
    "AVX512BW": "vpaddw %zmm0, %zmm1, %zmm2",
    "AVX512DQ": "vpmullq %zmm0, %zmm1, %zmm2",
    "AVX512_VNNI": "vpdpbusd %zmm0, %zmm1, %zmm2",
    "AVX512_BF16": "vcvtne2ps2bf16 %zmm0, %zmm1, %zmm2",
    "AMX_TILE": "tilezero %tmm0",
    "AMX_BF16": "tdpbf16ps %tmm0, %tmm1, %tmm2",
}
"""An instruction of each feature that a variant promises: the assembler must know it, as the compiler must know the
variant's flags. A function of <immintrin.h> would ask both at once, but reading that header takes seconds."""

NUMA = "numa.h"
COMPILE_SECONDS = 45.0
"""For six small files: 2 s on a quiet machine."""

FOLDER = f"{PLACE}/doctor"
SCRIPT = f"""
cd {FOLDER}
for flags in *.flags; do
    name=${{flags%.flags}}
    ${{CXX:-g++}} $(cat "$flags") -c "$name.cpp" -o "$name.o" 2> /dev/null && echo "yes $name"
done
${{CXX:-g++}} -E -x c++ -include {NUMA} /dev/null -o /dev/null 2> /dev/null && echo "yes {NUMA}"
"""


def compiler(scene: Scene) -> Iterator[Finding]:
    """Version, instruction sets and headers, where the compiler will run."""
    if not scene.contained:
        given = scene.settings.builder
        builder = LocalBuilder(minimum_compiler=given.minimum_compiler, unguarded=given.unguarded)
        yield from _examined(scene, builder)
        return
    image = usable_image(scene) if scene.engine is None else None
    if image is None:
        yield ok("compiler", "the builder image's own, which is not there yet")
        return
    yield from _examined(scene, ContainerBuilder(image=image, notes=scene.settings.state_folder / "images"))


def _examined(scene: Scene, builder: LocalBuilder | ContainerBuilder) -> Iterator[Finding]:
    version = builder.compiler().text if isinstance(builder, LocalBuilder) else str(builder.identity()["compiler"])
    yield ok("compiler", f"{version} ({builder.name})")
    works = _tried(builder)
    for variant in variants().values():
        name, can = f"compiles {variant.name}", ", ".join(variant.promises)
        remedy = scene.distribution.install_compiler() or CONTAINER_REMEDY
        if variant.name in works:
            yield ok(name, f"makes {can}")
        else:
            yield lacking(name, f"does not make all of {can}", remedy, needed=True)
    if NUMA in works:
        yield ok("headers", f"{NUMA} is there")
    else:
        yield lacking("headers", f"{NUMA} is not there", scene.install(NUMA), needed=True)
    yield _python(scene, builder)


def _python(scene: Scene, builder: Builder) -> Finding:
    try:
        return ok("Python.h", f"for Python {scene.python}: {builder.python(scene.python)}")
    except VllmWheelsError as error:
        return lacking("Python.h", f"{error.what} ({error.why})", scene.install("Python.h"), needed=True)


def _tried(builder: Builder) -> set[str]:
    """Names of the variants, and of the header, that the compiler is up to."""
    with TemporaryDirectory(prefix="vllm-wheels-doctor-") as folder:
        for variant in variants().values():
            Path(folder, f"{variant.name}.cpp").write_text(_program(variant), "utf-8")
            Path(folder, f"{variant.name}.flags").write_text(" ".join(variant.flags), "utf-8")
        heard: list[str] = []
        command = Command(
            argv=["sh", "-c", SCRIPT],
            env={},
            cwd=FOLDER,
            mounts=[Mount(source=Path(folder), place=FOLDER, writable=True)],
        )
        builder.run(command, timeout_seconds=COMPILE_SECONDS, on_line=heard.append)
    return {line.removeprefix("yes ") for line in heard if line.startswith("yes ")}


def _program(variant: Variant) -> str:
    lines = "".join(f'    __asm__("{INSTRUCTIONS[feature]}");\n' for feature in variant.promises)
    return f"void probe() {{\n{lines}}}\n"
