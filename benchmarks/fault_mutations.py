"""Ways to damage a file: its bytes, or values inside JSON, NumPy, safetensors and zip files."""

import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

DIGITS, BRACKETS = 5000, 100_000  # more than Python's limits for whole numbers and for nesting
HUGE = 10**12
TOKENS = (
    "NaN", "Infinity", "-1", "0", "1e999", "9" * DIGITS, "[" * BRACKETS, '{"a":' * BRACKETS, "null", "true",
    "{}", "[]", '""', '"\\ud800"', "\x00", "\ufeff", "\u2028", "\r", "\t", "\n", '"', ",", "../../etc/passwd",
    str(HUGE), "-0.0", "1e-400", "x" * 70_000,
)  # fmt: skip
NOT_UTF8 = b"\xff\xfe\xe2\x28"
# Replacements for a value in JSON or in a saved state; JSON gets texts in angle brackets without quotes.
VALUES = (
    None, True, 0, -1, HUGE, 1.5, "", "x", "NaN", [], {}, [[]], ["x"], {"x": 1}, "\ud800", "\x00",
    "<NaN>", "<-Infinity>", f"<{'9' * DIGITS}>", f"<{'[' * BRACKETS}{']' * BRACKETS}>",
)  # fmt: skip
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
# In the header of a .npy file.
NPY_TYPES = (
    b"'|O'", b"'<U9999999'", b"'<f999'", b"'<i8'", b"'<c16'", b"[('a', '<f4')]", b"'>f4'", b"'V0'", b"3",
)  # fmt: skip
NPY_SHAPES = (
    b"(1000000000000,)", b"(1000000000000, 0)", b"(-1, 3)", b"(3,)", b"()", b"(True, 2)", b"('a',)",
)  # fmt: skip
NPY_TEXTS = (b"(" * 500, b"{", b"'\\x00'", b"\x00", b"9" * DIGITS, b"\xff", b"'''", b"# ")
NPY_NUMBERS = (b"\x00\x00", b"\xff\xff", b"\x01\x02")

Mutation = Callable[[random.Random, bytes], tuple[bytes, str]]  # bytes -> (bytes, what was done)


def span(rng: random.Random, data: bytes) -> tuple[int, int]:
    """Returns (start, end) of a random part, mostly a short one."""
    start = rng.randrange(len(data) + 1)
    longest = max(1, len(data) // rng.choice((1, 4, 20, 100)))
    return start, min(len(data), start + rng.randint(1, longest))


# ---- any file


def flip(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    changed = bytearray(data)
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 2, 10)))] if data else []
    for place in places:
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed), f"bits flipped at {places}"


def truncate(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    end = rng.randrange(len(data) + 1)
    return data[:end], f"cut off at {end}"


def delete(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    start, end = span(rng, data)
    return data[:start] + data[end:], f"without {start}:{end}"


def duplicate(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    start, end = span(rng, data)
    return data[:end] + data[start:], f"{start}:{end} twice"


def insert(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    token = rng.choice((*TOKENS, None))
    content = NOT_UTF8 if token is None else token.encode()
    place = rng.randrange(len(data) + 1)
    return data[:place] + content + data[
        place:
    ], f"{content[:20]!r} ({len(content)} bytes) inserted at {place}"


def replace_number(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    found = list(NUMBER.finditer(data))
    if not found:
        return insert(rng, data)
    match, token = rng.choice(found), rng.choice(TOKENS)
    return data[: match.start()] + token.encode() + data[match.end() :], f"{token[:20]!r} for {match[0]!r}"


def whole(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    contents = {
        "empty": b"",
        "CRLF": data.replace(b"\n", b"\r\n"),
        "BOM": b"\xef\xbb\xbf" + data,
        "UTF-16": data.decode("latin-1").encode("utf-16"),
        "zeros": bytes(len(data)),
        "noise": rng.randbytes(len(data)),
        "a list": b"[1, 2]",
        "a number": b"1",
        "a null": b"null",
        "nested": b"[" * BRACKETS,
        "nested objects": b'{"a":' * BRACKETS,
        "digits": b"9" * DIGITS,
        "digits in an object": b'{"a": ' + b"9" * DIGITS + b"}",
        "a zip": zip_of({"a.npy": data}),
        "an empty zip": zip_of({}),
    }
    name = rng.choice(sorted(contents))
    return contents[name], f"all of it: {name}"


ANY: tuple[Mutation, ...] = (flip, truncate, delete, duplicate, insert, replace_number, whole)

# ---- values in JSON and in saved states


def in_json(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    values, done = changed_value(rng, json.loads(data))
    return re.sub(r'"<([^">]+)>"', r"\1", json.dumps(values)).encode(), done


def in_json_lines(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    lines = data.splitlines()
    row = rng.randrange(len(lines))
    lines[row], done = in_json(rng, lines[row])
    return b"\n".join(lines) + b"\n", f"line {row + 1}: {done}"


def changed_value(rng: random.Random, values) -> tuple[object, str]:
    """Returns the nested values with a random one removed, renamed or replaced, and what was done."""
    places = list(places_in(values))
    if not places:
        return rng.choice(VALUES), "another value"
    path = rng.choice(places)
    holder = values
    for key in path[:-1]:
        holder = holder[key]
    key, where = path[-1], "/".join(map(str, path))
    act = rng.choice(("replace", "replace", "replace", "remove", "rename"))
    if act == "remove" and isinstance(holder, dict | list):
        del holder[key]
        return values, f"{where} removed"
    if act == "rename" and isinstance(holder, dict):
        name = rng.choice(("x", "", f"{key}s", "\ud800"))
        holder[name] = holder.pop(key)
        return values, f"{where} renamed {name!r}"
    value = rng.choice(VALUES)
    holder[key] = value
    return values, f"{where} is {str(value)[:20]!r}"


def places_in(values, path: tuple = ()):
    """Yields the paths to all values inside nested dictionaries and lists."""
    if not isinstance(values, dict | list):
        return
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield (*path, key)
        yield from places_in(value, (*path, key))


def in_state(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Mutations of files from torch.save: a changed value, or damage in the archive with correct checksum."""
    if rng.random() < 0.3:
        return in_zip(rng, data)
    state, done = changed_value(rng, torch.load(io.BytesIO(data), weights_only=True))
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue(), done


# ---- formats


def zip_of(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def in_zip(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(files))
    if rng.random() < 0.2:
        del files[name]
        return zip_of(files), f"without {name}"
    files[name], done = rng.choice((*ANY, in_npy) if name.endswith(".npy") else ANY)(rng, files[name])
    return zip_of(files), f"{name}: {done}"


def in_npy(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Damage to the header of a .npy file: its length, version, type or shape, or a text inserted in it."""
    (length,) = struct.unpack("<H", data[8:10])
    header, rest = data[10 : 10 + length], data[10 + length :]
    act = rng.choice(("type", "shape", "text", "length", "version"))
    if act in ("length", "version"):
        value, start = rng.choice(NPY_NUMBERS), 8 if act == "length" else 6
        return data[:start] + value + data[start + 2 :], f"{act} {value!r}"
    if act == "text":
        value, place = rng.choice(NPY_TEXTS), rng.randrange(len(header))
        header = header[:place] + value + header[place:]
    else:
        pattern, values = (rb"'<f\d'", NPY_TYPES) if act == "type" else (rb"\([^)]*\)", NPY_SHAPES)
        value = rng.choice(values)
        header = re.sub(pattern, lambda _: value, header, count=1)
    header = header.rstrip() + b"\n"
    return data[:8] + struct.pack("<H", len(header) & 0xFFFF) + header + rest, f"{act} {value[:20]!r}"


def in_safetensors(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Damage to the header of a safetensors file: its length, or a value in its JSON."""
    (length,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.2:
        wrong = rng.choice((0, 1, length - 1, length + 8, HUGE, 2**63, 2**64 - 1))
        return struct.pack("<Q", wrong) + data[8:], f"header of {wrong} bytes"
    header, done = in_json(rng, data[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + data[8 + length :], done


# ---- another thing in a file's place


def put_in_place(rng: random.Random, path: Path, others: dict[str, bytes]) -> str:
    """Replaces the file by nothing, a folder, a link to itself or another file. Returns what was done."""
    path.unlink()
    act = rng.choice(("nothing", "folder", "loop", "swapped", "swapped"))
    if act == "folder":
        path.mkdir()
    elif act == "loop":
        path.symlink_to(path)
    elif act == "swapped":
        name = rng.choice(sorted(others))
        path.write_bytes(others[name])
        return f"{name} in its place"
    return f"{act} in its place"
