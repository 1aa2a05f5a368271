"""The language model that a config names as its teacher."""

from typing import Any

from routedk.errors import SettingError
from routedk.programs.teachers.config import DistillConfig

_ANSWER_TOKENS = 1024
# Reasoning models think within the limit.
_REASONING_TOKENS = 16_000
# With waits of 1, 2, 4 ... 60 seconds where the server names none: five minutes.
_RETRIES = 10
_TIMEOUT_SECONDS = 180


def teacher_lm(config: DistillConfig) -> Any:
    """The ``dspy.LM`` that a config names.

    Raises:
        SettingError: LiteLLM does not know the provider.
    """
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
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": _ANSWER_TOKENS}
    if config.api_base is not None:
        options["api_base"] = config.api_base
    connection = {"engine": "litellm", "num_retries": _RETRIES, "timeout": _TIMEOUT_SECONDS}
    try:
        return dspy.LM(config.teacher, cache=False, **connection, **options)
    except LMConfigurationError:
        # Reasoning models refuse a temperature and small limits.
        options |= {"temperature": None, "max_tokens": _REASONING_TOKENS}
        return dspy.LM(config.teacher, cache=False, **connection, **options)
