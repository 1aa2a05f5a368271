"""Keys: a hash of everything that a part is made of, and of nothing else."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from routedk.errors import SettingError

_STAGE = re.compile(r"[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one part is made of.

    Args:
        stage: What kind of part it is; becomes a folder: lower-case letters, digits and ``-``.
        version: Of the code that makes it, see `routedk.code_version`.
        inputs: What it is made from, by name: hashes of contents, keys of other parts.
        settings: The settings that its making reads, and no others: one that is not read would
            keep equal parts apart.

    Raises:
        SettingError: The stage has no such name.
    """

    stage: str
    version: str
    inputs: Mapping[str, Any]
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not _STAGE.fullmatch(self.stage):
            raise SettingError(
                f"stage {self.stage!r}: names are of up to 40 lower-case letters, digits and -"
            )

    @cached_property
    def key(self) -> str:
        """SHA-256 of the recipe as canonical JSON, 64 hex digits."""
        return content_hash(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The recipe, ready for JSON."""
        return {
            "stage": self.stage,
            "version": self.version,
            "inputs": dict(self.inputs),
            "settings": dict(self.settings),
        }


def content_hash(value: object) -> str:
    """SHA-256 of a value as canonical JSON: keys sorted, no spaces, tuples as lists.

    Args:
        value: Of JSON's types. 1 and 1.0 are different.

    Raises:
        SettingError: JSON cannot hold it.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise SettingError(f"{value!r:.200} has no place in a key: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()
