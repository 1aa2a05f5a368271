import dspy

from routedk.programs.lm_identity import lm_identity


def test_what_changes_answers_is_told_and_no_secret() -> None:
    lm = dspy.LM(
        "openai/x",
        temperature=0.5,
        top_p=0.9,
        api_base="http://h/v1",
        api_key="sk-secret",
        timeout=3,
        extra_headers={"a": "sk-secret"},
    )
    assert lm_identity(lm) == {
        "model": "openai/x",
        "address": "http://h/v1",
        "temperature": "0.5",
        "top_p": "0.9",
    }
    assert lm_identity(dspy.LM("openai/x"))["address"] == ""
