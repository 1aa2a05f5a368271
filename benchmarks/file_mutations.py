"""Damages files at random: in their bytes, or in the structure of their format."""

import io
import json
import random
import struct
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from benchmarks.parser_fuzz import PIECES

CANARY = "routedk_canary"
"""A module that no file may cause to be imported."""


# Raw texts that a JSON writer would not write; each replaces the string "@" + its index.
_RAW = ("1e999", "9" * 5000, "[" * 400 + "]" * 400, "[" * 9999, "NaN", "0x1", "'a'", "-0", '"\\x"')


def _deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


_TEXTS = [
    *("", " ", "nan", "none", "\ud800", "a\ud83d", "\x00", "\x1b[2J", "x" * 5000, "é", "\u202e"),
    *("../../elsewhere", "/dev/null", "/", "~", CANARY, f"{CANARY}.Thing", f"hub/{CANARY}"),
    *("19,99 €", "$1,299.00", "9" * 5000, "1e999", "&amp;amp;lt;", "{{ 1 }}", "%s", "true"),
    *("base", "softmax", "single:x", "single:base", "minilm", "tfidf", "demos", "all-linear"),
]
_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e-320, 1e308, 2**31, 2**63, -(2**63), 2**127),
    *(
        10**50,
        10**4000,
        float("nan"),
        float("inf"),
        float("-inf"),
        [],
        {},
        [[]],
        [None],
        {"": None},
    ),
    *(["a"], [1, 1], ["a", "a"], {"a": 1}, {"id": "a"}, [{}], _deep(30), _deep(70)),
    *(f"@{number}" for number in range(len(_RAW))),
    *([0] * 500, {str(n): n for n in range(100)}),
]


def _value(rng: random.Random) -> Any:
    return rng.choice(_TEXTS + PIECES) if rng.random() < 0.4 else deepcopy(rng.choice(_VALUES))


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every container in a value with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            _places(value[key], found)
    return found


def change_value(rng: random.Random, value: Any) -> Any:
    """A JSON value, changed in one to three places."""
    value = deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not isinstance(value, dict | list) or not (places := _places(value, [])):
            return _value(rng)
        holder, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.6:
            holder[key] = _value(rng)
        elif kind < 0.75:
            del holder[key]
        elif kind < 0.85:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
        elif isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), deepcopy(holder[key]))
        else:
            holder[str(rng.choice(_TEXTS))] = holder.pop(key)
    return value


def change_bytes(rng: random.Random, raw: bytes) -> bytes:
    """Bytes, changed in one to four places; rarely replaced altogether."""
    if rng.random() < 0.02:
        return rng.choice((b"", b"\xef\xbb\xbf", b"\x00" * 99, b"\x80\x04N.", b"[" * 9999, b"{}"))
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(raw) + 1)
        end = place + min(rng.choice((1, 2, 8, 64, 4096)), len(raw))
        kind = rng.random()
        if kind < 0.3:
            new = bytes(rng.randrange(256) for _ in range(rng.choice((1, 1, 4))))
            raw = raw[:place] + new + raw[place + len(new) :]
        elif kind < 0.5:
            text = str(rng.choice(_TEXTS + PIECES)).encode(errors="surrogatepass")
            raw = raw[:place] + text + raw[place:]
        elif kind < 0.7:
            raw = raw[:place] + raw[end:]
        elif kind < 0.85:
            raw = raw[:end] + raw[place:]
        else:
            raw = raw[:place]
    return raw


def _dumped(value: Any) -> bytes:
    text = json.dumps(value, default=str)
    for number, raw in enumerate(_RAW):
        text = text.replace(f'"@{number}"', raw)
    return text.encode()


def change_json(rng: random.Random, raw: bytes) -> bytes:
    """A JSON document, or one line of JSONL, changed in its structure."""
    lines = raw.split(b"\n") if raw.count(b"\n{") else [raw]
    place = rng.randrange(len(lines))
    if lines[place].strip():
        changed = change_value(rng, json.loads(lines[place]))
        lines[place] = _dumped(changed)
    if len(lines) > 1 and rng.random() < 0.2:
        lines.insert(rng.randrange(len(lines)), lines[place])
    return b"\n".join(lines)


def change_safetensors(rng: random.Random, raw: bytes) -> bytes:
    """A safetensors file, changed in its header."""
    (size,) = struct.unpack("<Q", raw[:8])
    header = _dumped(change_value(rng, json.loads(raw[8 : 8 + size])))
    return struct.pack("<Q", len(header)) + header + raw[8 + size :]


def change_lines(rng: random.Random, raw: bytes) -> bytes:
    """TOML or CSV, changed in one field of a line."""
    lines = raw.decode().split("\n")
    place = rng.randrange(len(lines))
    mark = "=" if "=" in raw.decode() else ","
    fields = lines[place].split(mark)
    value = _value(rng)
    text = value if isinstance(value, str) and rng.random() < 0.5 else _dumped(value).decode()
    fields[rng.randrange(len(fields))] = text
    lines[place] = mark.join(fields)
    if rng.random() < 0.2:
        lines.insert(place, rng.choice(lines))
    return "\n".join(lines).encode(errors="surrogatepass")


def change_parquet(rng: random.Random, raw: bytes) -> bytes:
    """A Parquet file with the same columns, whose values and types are changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(raw)).to_pylist()
    out = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(change_value(rng, rows)), out)
    except Exception:
        # Not every value has an Arrow type.
        return change_bytes(rng, raw)
    return out.getvalue()


Change = Callable[[random.Random, bytes], bytes]
STRUCTURES: dict[str, Change] = {
    ".json": change_json,
    ".jsonl": change_json,
    ".safetensors": change_safetensors,
    ".toml": change_lines,
    ".csv": change_lines,
    ".parquet": change_parquet,
}


def changed(rng: random.Random, raw: bytes, suffix: str) -> bytes:
    """A file's content, changed in its structure or, one time in three, in its bytes."""
    change = change_bytes if rng.random() < 0.33 else STRUCTURES.get(suffix, change_bytes)
    return change(rng, raw)
