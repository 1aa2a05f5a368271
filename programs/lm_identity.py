"""What distinguishes one language model from another in keys: its options, not its connection."""

from typing import Any

# Options of a `dspy.LM` that say how it is reached; they change no answer, and some are secrets.
CONNECTION = frozenset(
    {
        "api_base",
        "api_key",
        "api_version",
        "azure_ad_token_provider",
        "base_url",
        "custom_llm_provider",
        "extra_headers",
        "extra_query",
        "headers",
        "organization",
        "project",
        "timeout",
    }
)


def lm_identity(lm: Any) -> dict[str, str]:
    """The model's name and the options that change its answers, as texts.

    Args:
        lm: A ``dspy.LM``. The names of RouteDK's own students hold a hash of their weights.
    """
    options = {k: repr(v) for k, v in lm.kwargs.items() if k not in CONNECTION and v is not None}
    return {**options, "model": lm.model}


def address_of(lm: Any) -> str:
    """Where a model is served; empty where its provider's own address is used."""
    return str(lm.kwargs.get("api_base") or lm.kwargs.get("base_url") or "")
