"""Writes tiny models with random weights, plain and quantized, as vLLM reads them from a folder; downloads nothing.

A weight is a small whole number times a factor of its row and one of its group of 32 columns, all powers of two. So
int4, int8 and fp8 hold exactly what bf16, fp16 and fp32 hold, and one answer is right for all of them.
"""

import json
import math
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

GROUP = 32
LEVELS = 15
FACTORS = (1, 2)
CODES = LEVELS * len(FACTORS) ** 2
DEVIATION = 10.8
"""Standard deviation of level times both factors: 4.32 times the mean square of a factor, 2.5."""

STEPS = 256
RANGE = re.compile(r"\{(\d+)-(\d+)\}")
NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring columns AWQ puts into the nibbles of a word, the lowest first."""


class Tensor(NamedTuple):
    """A tensor as safetensors holds it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Grid(NamedTuple):
    """A random matrix; each byte of ``codes`` says which level and which factors an element has."""

    rows: int
    columns: int
    codes: bytes
    scale: float


def tensor_shapes(patterns: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and specifications of all tensors; ``{0-3}`` in a pattern stands for each of these numbers."""
    for pattern, given in patterns.items():
        spec = given if isinstance(given, Mapping) else {"shape": given}
        yield from ((name, dict(spec)) for name in _expanded(pattern))


def _expanded(pattern: str) -> Iterator[str]:
    found = RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from _expanded(f"{pattern[: found.start()]}{number}{pattern[found.end() :]}")


def tensors(family: Mapping[str, Any], *, dtype: str, quantization: Mapping[str, Any] | None) -> Iterator[Tensor]:
    """All tensors of a family's model in an entry's data type and quantization."""
    for name, spec in tensor_shapes(family["tensors"]):
        shape = tuple(spec["shape"])
        if any(fnmatch(name, pattern) for pattern in family["linear"]):
            grid, base = drawn(name, *shape), name.removesuffix(".weight")
            quantized = quantization and any(fnmatch(name, each) for each in quantization.get("only", ["*"]))
            layout = LAYOUTS[quantization["layout"]] if quantization and quantized else plain
            yield from layout(base, grid, dtype)
        else:
            yield Tensor(name, NAMES[dtype], shape, spread(name, shape, spec, dtype))


def drawn(name: str, rows: int, columns: int) -> Grid:
    """The random matrix of that name, always the same; sums of a row's products keep about their size."""
    chance = random.Random(zlib.crc32(name.encode()))  # noqa: S311 - nobody is to be kept from guessing them
    levels = chance.randbytes(rows * columns).translate(bytes(step % LEVELS for step in range(STEPS)))
    lifted = [bytes((level + LEVELS * factors) % STEPS for level in range(STEPS)) for factors in range(4)]
    parts, start = [], 0
    for _ in range(rows):
        row = 2 * chance.randrange(2)
        for _ in range(0, columns, GROUP):
            width = min(GROUP, columns)
            parts.append(levels[start : start + width].translate(lifted[row + chance.randrange(2)]))
            start += width
    exponent = round(-math.log2(DEVIATION * math.sqrt(columns)))
    return Grid(rows, columns, b"".join(parts), 2.0**exponent)


def _level(code: int) -> int:
    return code % LEVELS - LEVELS // 2


def _group_factor(code: int) -> int:
    return FACTORS[code // LEVELS % 2]


def _row_factor(code: int) -> int:
    return FACTORS[code // LEVELS // 2 % 2]


def _table(number: Callable[[int], int]) -> bytes:
    """A table for ``bytes.translate`` from an element's code to a number of a byte."""
    return bytes(number(code) & 0xFF for code in range(CODES)) + bytes(STEPS - CODES)


def encoded(values: Iterable[float], dtype: str) -> list[bytes]:
    """The bytes of each value; what bfloat16 cannot hold is cut off for all data types alike."""
    cut = (struct.unpack("<f", b"\0\0" + struct.pack("<f", value)[2:])[0] for value in values)
    return [
        struct.pack("<f", value)[2:] if dtype == "bfloat16" else struct.pack(FORMATS[dtype], value) for value in cut
    ]


FORMATS = {"float16": "<e", "float32": "<f"}


def _looked_up(codes: bytes, values: Iterable[float], dtype: str) -> bytes:
    table = encoded(values, dtype)
    table += [table[-1]] * (STEPS - len(table))
    width = len(table[0])
    data = bytearray(width * len(codes))
    for place in range(width):
        data[place::width] = codes.translate(bytes(value[place] for value in table))
    return bytes(data)


def spread(name: str, shape: tuple[int, ...], spec: Mapping[str, Any], dtype: str) -> bytes:
    """Numbers evenly spread around a middle: 1 for vectors, which are norms, 0 for all else."""
    chance = random.Random(zlib.crc32(name.encode()))  # noqa: S311 - as above
    middle = spec.get("around", 1.0 if len(shape) == 1 else 0.0)
    width = spec.get("spread", 0.5 if len(shape) == 1 else math.sqrt(3 / shape[-1]))
    values = [middle + width * (2 * step / (STEPS - 1) - 1) for step in range(STEPS)]
    return _looked_up(chance.randbytes(math.prod(shape)), values, dtype)


def plain(base: str, grid: Grid, dtype: str) -> Iterator[Tensor]:
    """The matrix as it is."""
    values = [grid.scale * _level(code) * _group_factor(code) * _row_factor(code) for code in range(CODES)]
    shape = (grid.rows, grid.columns)
    yield Tensor(f"{base}.weight", NAMES[dtype], shape, _looked_up(grid.codes, values, dtype))


def _packed(planes: list[bytes]) -> bytes:
    """Words of 32 bits, whose nibbles are the bytes of eight planes, the lowest first."""
    size = len(planes[0])
    data = bytearray(4 * size)
    for place in range(4):
        low, high = (int.from_bytes(plane, "little") for plane in planes[2 * place : 2 * place + 2])
        data[place::4] = (low | high << 4).to_bytes(size, "little")
    return bytes(data)


def _group_scales(grid: Grid, dtype: str, *, transposed: bool) -> Tensor:
    values = [grid.scale * _group_factor(code) * _row_factor(code) for code in range(CODES)]
    codes = grid.codes[::GROUP]
    groups = grid.columns // GROUP
    if transposed:
        codes = b"".join(codes[group::groups] for group in range(groups))
    shape = (groups, grid.rows) if transposed else (grid.rows, groups)
    return Tensor("", NAMES[dtype], shape, _looked_up(codes, values, dtype))


def awq(base: str, grid: Grid, dtype: str) -> Iterator[Tensor]:
    """Four bits with zero points, words along the rows."""
    nibbles = _table(lambda code: _level(code) + _zero(code))
    columns = (grid.codes[column :: grid.columns].translate(nibbles) for column in range(grid.columns))
    weight = b"".join(_packed([column[place::8] for place in AWQ_ORDER]) for column in columns)
    yield Tensor(f"{base}.qweight", "I32", (grid.columns, grid.rows // 8), weight)
    zeros, groups = grid.codes[::GROUP].translate(_table(_zero)), grid.columns // GROUP
    points = b"".join(_packed([zeros[group::groups][place::8] for place in AWQ_ORDER]) for group in range(groups))
    yield Tensor(f"{base}.qzeros", "I32", (groups, grid.rows // 8), points)
    yield _group_scales(grid, dtype, transposed=True)._replace(name=f"{base}.scales")


def _zero(code: int) -> int:
    return 6 + _group_factor(code)


def gptq(base: str, grid: Grid, dtype: str) -> Iterator[Tensor]:
    """Four bits around 8, words along the columns; zero points are stored less 1."""
    nibbles, groups = _table(lambda code: _level(code) + 8), grid.columns // GROUP
    columns = [grid.codes[column :: grid.columns].translate(nibbles) for column in range(grid.columns)]
    weight = b"".join(_packed(columns[start : start + 8]) for start in range(0, grid.columns, 8))
    yield Tensor(f"{base}.qweight", "I32", (grid.columns // 8, grid.rows), weight)
    yield Tensor(f"{base}.qzeros", "I32", (groups, grid.rows // 8), b"\x77" * (groups * grid.rows // 2))
    yield _group_scales(grid, dtype, transposed=True)._replace(name=f"{base}.scales")
    order = b"".join(struct.pack("<i", column // GROUP) for column in range(grid.columns))
    yield Tensor(f"{base}.g_idx", "I32", (grid.columns,), order)


def packed(base: str, grid: Grid, dtype: str) -> Iterator[Tensor]:
    """Four bits around 8 as compressed-tensors packs them, words along the columns of a row."""
    nibbles = grid.codes.translate(_table(lambda code: _level(code) + 8))
    shape = (grid.rows, grid.columns // 8)
    yield Tensor(f"{base}.weight_packed", "I32", shape, _packed([nibbles[place::8] for place in range(8)]))
    yield _group_scales(grid, dtype, transposed=False)._replace(name=f"{base}.weight_scale")
    yield Tensor(f"{base}.weight_shape", "I64", (2,), struct.pack("<2q", grid.rows, grid.columns))


def _row_scales(base: str, grid: Grid, dtype: str) -> Tensor:
    values = [grid.scale * _row_factor(code) for code in range(CODES)]
    data = _looked_up(grid.codes[:: grid.columns], values, dtype)
    return Tensor(f"{base}.weight_scale", NAMES[dtype], (grid.rows, 1), data)


def int8(base: str, grid: Grid, dtype: str) -> Iterator[Tensor]:
    """Bytes with a scale for each row."""
    data = grid.codes.translate(_table(lambda code: _level(code) * _group_factor(code)))
    yield Tensor(f"{base}.weight", "I8", (grid.rows, grid.columns), data)
    yield _row_scales(base, grid, dtype)


def int8_static(base: str, grid: Grid, dtype: str) -> Iterator[Tensor]:
    """The same with one scale for what is multiplied with it: normalised numbers of up to 8, or smaller ones."""
    yield from int8(base, grid, dtype)
    scale = 1 / 8 if base.endswith("down_proj") else 1 / 16
    yield Tensor(f"{base}.input_scale", NAMES[dtype], (1,), encoded([scale], dtype)[0])


def _e4m3(number: int) -> int:
    """The byte of a whole number of up to four significant bits."""
    fraction, exponent = math.frexp(abs(number))
    sign = 0x80 if number < 0 else 0
    return sign | (exponent + 6) << 3 | round(fraction * 16) - 8 if number else 0


def fp8_rows(base: str, grid: Grid, dtype: str) -> Iterator[Tensor]:
    """Floating-point bytes with a scale for each row."""
    data = grid.codes.translate(_table(lambda code: _e4m3(_level(code) * _group_factor(code))))
    yield Tensor(f"{base}.weight", "F8_E4M3", (grid.rows, grid.columns), data)
    yield _row_scales(base, grid, dtype)


def _fp8_whole(base: str, grid: Grid) -> Tensor:
    values = _table(lambda code: _e4m3(_level(code) * _group_factor(code) * _row_factor(code)))
    return Tensor(f"{base}.weight", "F8_E4M3", (grid.rows, grid.columns), grid.codes.translate(values))


def fp8(base: str, grid: Grid, _: str) -> Iterator[Tensor]:
    """Floating-point bytes with one scale."""
    yield _fp8_whole(base, grid)
    yield Tensor(f"{base}.weight_scale", "F32", (1,), struct.pack("<f", grid.scale))


def fp8_blocks(base: str, grid: Grid, _: str) -> Iterator[Tensor]:
    """Floating-point bytes with a scale for each block of 128 by 128."""
    yield _fp8_whole(base, grid)
    blocks = (math.ceil(grid.rows / 128), math.ceil(grid.columns / 128))
    yield Tensor(f"{base}.weight_scale_inv", "F32", blocks, struct.pack("<f", grid.scale) * math.prod(blocks))


LAYOUTS: dict[str, Callable[[str, Grid, str], Iterator[Tensor]]] = {
    "awq": awq,
    "gptq": gptq,
    "packed": packed,
    "int8": int8,
    "int8-static": int8_static,
    "fp8": fp8,
    "fp8-rows": fp8_rows,
    "fp8-blocks": fp8_blocks,
}


def write_tensors(path: Path, parts: Iterable[Tensor]) -> None:
    """Writes a file of safetensors: a length, a table of contents, and the numbers."""
    contents, data, end = {}, [], 0
    for part in parts:
        offsets = [end, end + len(part.data)]
        contents[part.name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": offsets}
        data.append(part.data)
        end += len(part.data)
    head = json.dumps(contents).encode()
    path.write_bytes(b"".join([struct.pack("<Q", len(head)), head, *data]))


def write_model(folder: Path, table: Mapping[str, Any], entry: Mapping[str, Any], *, weights: bool = True) -> None:
    """Writes the model of an entry of models.toml: configuration, weights, and where it asks for them the rest."""
    family, dtype = table["families"][entry["family"]], entry.get("dtype", "bfloat16")
    quantization = table["quantizations"][entry["quantization"]] if "quantization" in entry else None
    config = {**table["common"], **family["config"], **entry.get("config", {}), "torch_dtype": dtype}
    if quantization:
        config["quantization_config"] = quantization["config"]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    if weights:
        write_tensors(folder / "model.safetensors", tensors(family, dtype=dtype, quantization=quantization))
    if entry.get("way") == "lora":
        write_adapter(folder / "adapter", family, dtype)
    if entry.get("way") in WITH_TOKENIZER:
        write_tokenizer(folder, config["vocab_size"])


WITH_TOKENIZER = ("embed", "guided")
"""Ways of asking for which vLLM wants a tokenizer, though it is given tokens."""

RANK = 8
LETTERS = range(3, 11)
"""Tokens c to j of the tokenizer below; those of a and b begin and end a text."""


def write_adapter(folder: Path, family: Mapping[str, Any], dtype: str) -> None:
    """Writes a LoRA adapter that changes every projection of the attention by about as much as it has."""
    folder.mkdir()
    found, parts = [], list[Tensor]()
    for name, spec in tensor_shapes(family["tensors"]):
        if fnmatch(name, "*self_attn.?_proj.weight"):
            base, (rows, columns) = f"base_model.model.{name.removesuffix('.weight')}", spec["shape"]
            found.append(name.split(".")[-2])
            for side, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
                part = f"{base}.lora_{side}.weight"
                parts.append(Tensor(part, NAMES[dtype], shape, spread(part, shape, {}, dtype)))
    write_tensors(folder / "adapter_model.safetensors", parts)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": sorted(set(found)), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")


def write_tokenizer(folder: Path, size: int) -> None:
    """Writes a tokenizer of one token for each letter and of others that no text has."""
    words = {"<unk>": 0, **{chr(97 + number): number + 1 for number in range(26)}}
    words |= {f"<{number}>": number for number in range(len(words), size)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}
    split = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
    given = {"version": "1.0", "added_tokens": [], "pre_tokenizer": split, "decoder": {"type": "Fuse"}, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(given), "utf-8")
    # The last token, as the prompts never have it.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": f"<{size - 1}>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
