"""The identity of a language model in cache keys: its options, not its connection."""

from typing import Any

# Options of a `dspy.LM` for how it is reached; they change no answer, and some are secrets.
_PLACE = {"api_base", "base_url", "api_version", "custom_llm_provider", "organization", "project"}
_ACCESS = {"api_key", "azure_ad_token_provider", "headers", "extra_headers", "extra_query"}
CONNECTION = frozenset({"timeout"} | _PLACE | _ACCESS)


def lm_identity(lm: Any) -> dict[str, str]:
    """The model's name and address, and the options that change its answers, as strings.

    Args:
        lm: A ``dspy.LM``. The names of RouteDK's own students include a hash of their weights.
    """
    options = {k: repr(v) for k, v in lm.kwargs.items() if k not in CONNECTION and v is not None}
    address = lm.kwargs.get("api_base") or lm.kwargs.get("base_url") or ""
    return {**options, "model": lm.model, "address": str(address)}
