"""The language model that a config names, as its teacher or by ``lm``."""

import logging
from functools import cache
from typing import Any

from routedk.errors import SettingError
from routedk.programs.teachers.config import ANNOTATION, DistillConfig

logger = logging.getLogger(__name__)

_ANSWER_TOKENS = 1024
# Reasoning models think within the limit.
_REASONING_TOKENS = 16_000
# With waits of 1, 2, 4 ... 60 seconds, unless the server states one: five minutes.
_RETRIES = 10
_TIMEOUT_SECONDS = 180
# Prefixes of variables that providers can do without: by a profile, token or default address.
_OPTIONAL = ("AWS_", "AZURE_", "OLLAMA_", "VERTEXAI_")


def teacher_lm(config: DistillConfig) -> Any:
    """The ``dspy.LM`` that a config names; None if no language model is asked.

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
    options: dict[str, Any] = {"num_retries": _RETRIES, "timeout": _TIMEOUT_SECONDS}
    if config.api_base is not None:
        options["api_base"] = config.api_base
    try:
        return named_lm(config.teacher, _ANSWER_TOKENS, engine="litellm", **options)
    except SettingError as error:
        raise SettingError(f"teacher: annotation, or a language model; {error}") from None


def named_lm(model: str, max_tokens: int, **options: Any) -> Any:
    """A ``dspy.LM`` that decodes at temperature 0, if the model takes a temperature.

    Args:
        model: LiteLLM's name.
        max_tokens: Most tokens of an answer; a model without a temperature reasons first, within
            a separate limit.
        **options: Other options of ``dspy.LM``; its cache is off.

    Raises:
        SettingError: LiteLLM does not know the provider.
    """
    import dspy
    import litellm

    litellm.suppress_debug_info = True
    try:
        litellm.get_llm_provider(model)
    except litellm.exceptions.BadRequestError:
        raise SettingError(
            f"{model!r} is no LiteLLM name of a model with its provider, such as "
            "openai/gpt-4o-mini or hosted_vllm/llama"
        ) from None
    if refuses_temperature(model):
        return dspy.LM(model, max_tokens=_REASONING_TOKENS, cache=False, **options)
    return dspy.LM(model, temperature=0.0, max_tokens=max_tokens, cache=False, **options)


@cache
def refuses_temperature(model: str) -> bool:
    """Whether a model reasons and takes no temperature; if so, that is logged once.

    Args:
        model: LiteLLM's name; a model that LiteLLM does not know is taken to accept one.
    """
    import dspy
    import litellm
    from dspy.utils.exceptions import LMConfigurationError

    try:
        name, provider, *_ = litellm.get_llm_provider(model)
        litellm.get_optional_params(model=name, custom_llm_provider=provider, temperature=0.0)
        # DSPy knows other such models by the token limit that they need.
        dspy.LM(model, max_tokens=1)
    except (litellm.exceptions.UnsupportedParamsError, LMConfigurationError):
        logger.warning(
            "%s takes no temperature: none is sent, so that answers may differ from call to call, "
            "and an answer may take %d tokens, reasoning included",
            model,
            _REASONING_TOKENS,
        )
        return True
    except litellm.exceptions.BadRequestError:
        return False
    return False


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
