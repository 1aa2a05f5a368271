"""The language model that a config names as its teacher."""

from functools import partial
from typing import Any

from routedk.errors import SettingError
from routedk.programs.teachers.config import ANNOTATION, DistillConfig

_ANSWER_TOKENS = 1024
# Reasoning models think within the limit.
_REASONING_TOKENS = 16_000
# With waits of 1, 2, 4 ... 60 seconds where the server names none: five minutes.
_RETRIES = 10
_TIMEOUT_SECONDS = 180
# Of providers that can be reached without these: by a profile, a token or a default address.
_OPTIONAL = ("AWS_", "AZURE_", "OLLAMA_", "VERTEXAI_")


def teacher_lm(config: DistillConfig) -> Any:
    """The ``dspy.LM`` that a config names; None where none is asked.

    Raises:
        SettingError: LiteLLM does not know the provider, or a setting of LM teachers is given to
            the annotation teacher.
    """
    if config.answers:
        return None
    if config.teacher == ANNOTATION:
        for name in ("api_base", "max_tokens", "max_cost"):
            if getattr(config, name) is not None:
                raise SettingError(f"{name} is for LM teachers: the annotation teacher calls none")
        return None
    import dspy
    import litellm
    from dspy.utils.exceptions import LMConfigurationError

    litellm.suppress_debug_info = True
    try:
        litellm.get_llm_provider(config.teacher)
    except litellm.exceptions.BadRequestError:
        raise SettingError(
            f"teacher {config.teacher!r}: annotation, or a model by its LiteLLM name with its "
            "provider, e.g. openai/gpt-4o-mini or hosted_vllm/llama"
        ) from None
    options: dict[str, Any] = {"num_retries": _RETRIES, "timeout": _TIMEOUT_SECONDS}
    if config.api_base is not None:
        options["api_base"] = config.api_base
    make = partial(dspy.LM, config.teacher, engine="litellm", cache=False, **options)
    try:
        return make(temperature=0.0, max_tokens=_ANSWER_TOKENS)
    except LMConfigurationError:
        # Reasoning models refuse a temperature and small limits.
        return make(temperature=None, max_tokens=_REASONING_TOKENS)


def check_key(model: str) -> None:
    """Check, before the first call, that the environment holds the key of a model's provider.

    Args:
        model: LiteLLM's name.

    Raises:
        SettingError: It does not; the message names the missing variables.
    """
    import litellm

    litellm.suppress_debug_info = True
    needed = litellm.validate_environment(model)["missing_keys"]
    if missing := [name for name in needed if not name.startswith(_OPTIONAL)]:
        raise SettingError(f"{model}: the environment variable {', '.join(missing)} is not set")
