"""Changed copies of good input: bytes, JSON values and protobuf messages."""

from __future__ import annotations

import math
import random
from typing import Any

_TEXTS = ("", "\x00", "\ud800", "é", "a" * 2000, "0" * 64, "../x", "MARKED", "2026-01-31T12:00:00Z")
_NUMBERS = (0, -1, 1, 2, 255, 65536, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, math.inf)
_VALUES = (None, True, False, [], {}, [[]], *_TEXTS, *_NUMBERS)


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes, numbers; parts lost, doubled or moved."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, max(len(changed) - 1, 0))
        end = min(len(changed), at + rng.choice((1, 2, 4, 8, 50)))
        kind = rng.randint(0, 6)
        if kind == 0 and changed:
            changed[at] ^= 1 << rng.randint(0, 7)
        elif kind == 1 and changed:
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randint(0, 255)))
        elif kind == 2:
            number = rng.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1))
            changed[at : at + 4] = number.to_bytes(4, rng.choice(("little", "big")))
        elif kind == 3:
            del changed[at:end]
        elif kind == 4:
            changed[at:at] = changed[at:end] * rng.randint(1, 3)
        elif kind == 5:
            changed[at:at] = bytes(rng.randint(0, 255) for _ in range(rng.randint(1, 8)))
        elif rng.randint(0, 3) == 0:
            del changed[at:]
    return bytes(changed)


def change_json(value: Any, rng: random.Random) -> Any:
    """The same tree with one value, name or length somewhere in it changed."""
    if isinstance(value, dict) and value and rng.randint(0, 9):
        name = rng.choice(sorted(value))
        changed = dict(value)
        if rng.randint(0, 15) == 0:
            changed[rng.choice(_TEXTS)] = changed.pop(name)
        else:
            changed[name] = change_json(value[name], rng)
        return changed
    if isinstance(value, list) and value and rng.randint(0, 9):
        at = rng.randint(0, len(value) - 1)
        if rng.randint(0, 7) == 0:
            return value[:at] + value[at + 1 :] if rng.randint(0, 1) else [*value, value[at]]
        return [*value[:at], change_json(value[at], rng), *value[at + 1 :]]
    kind = rng.randint(0, 3)
    if kind == 0 and isinstance(value, str) and value:
        return change_bytes(value.encode("utf-8", "replace"), rng).decode("utf-8", "replace")
    if kind == 1 and isinstance(value, int | float):
        return value + rng.choice((1, -1, 0.5))
    return rng.choice(_VALUES)


def change_message(message: Any, rng: random.Random) -> None:
    """Change one field somewhere in a protobuf message, in place."""
    descriptor = message.DESCRIPTOR
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present if present and rng.randint(0, 5) else list(descriptor.fields))
    repeated = hasattr(getattr(message, field.name), "extend")
    values = getattr(message, field.name)
    if repeated and len(values) and rng.randint(0, 4) == 0:
        del values[rng.randint(0, len(values) - 1)]
    elif field.message_type is not None:
        if repeated:
            nested = rng.choice(list(values)) if len(values) and rng.randint(0, 4) else values.add()
        else:
            nested = values
        change_message(nested, rng)
    elif rng.randint(0, 6) == 0:
        message.ClearField(field.name)
    else:
        value = _scalar(
            field, values if not repeated else (values[0] if len(values) else None), rng
        )
        try:
            if not repeated:
                setattr(message, field.name, value)
            elif len(values) and rng.randint(0, 1):
                values[rng.randint(0, len(values) - 1)] = value
            else:
                values.append(value)
        except (ValueError, TypeError):  # of another range or enumeration
            message.ClearField(field.name)


def _scalar(field: Any, now: Any, rng: random.Random) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return change_bytes(now or b"", rng)
        return rng.choice(("", "x", "y", "é", "ai.birthmark", "ai.onnx", "a" * 300, "x\ny"))
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -1.0, 1e38, math.inf, math.nan))
    return rng.choice((0, 1, 2, 3, 4, 7, 10, 16, 13, 17, 99, 2**31 - 1, -1, -(2**31), 2**62))
