"""Recipes: what an artifact is made from, and its key."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from routedk import __version__
from routedk.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines an artifact, and nothing else.

    Args:
        stage: The kind of artifact; names a folder: lower-case letters, digits and ``-``.
        inputs: What it is made from, by name: content hashes, keys of other artifacts, LM names.
        settings: The settings that making it reads. Any other setting would give equal artifacts
            different keys.
    """

    stage: str
    inputs: Mapping[str, Any]
    settings: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """SHA-256 of the recipe as canonical JSON, 64 hex digits."""
        return content_hash(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The recipe, ready for JSON; RouteDK's version is part of it."""
        return {
            "stage": self.stage,
            "version": __version__,
            "inputs": dict(self.inputs),
            "settings": dict(self.settings),
        }


def content_hash(value: object) -> str:
    """Hash a value by SHA-256 as canonical JSON: keys sorted, no spaces, tuples as lists.

    Args:
        value: Of JSON types. 1 and 1.0 are different.

    Raises:
        SettingError: JSON cannot represent it.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise SettingError(f"{value!r:.200} cannot be part of a key: {error}") from None
    # A title may hold a lone surrogate, which plain UTF-8 rejects.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
