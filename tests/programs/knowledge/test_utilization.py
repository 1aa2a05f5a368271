import pytest

from routedk.errors import SettingError
from routedk.programs.knowledge import utilization
from routedk.programs.knowledge.utilization import (
    UTILIZATIONS,
    agreed_utilization,
    check_trains,
    utilization_of,
)


def test_the_documented_table_is_the_one_in_force() -> None:
    rows = {
        name: "| {} | {} | {} |".format(
            "yes" if use.trains else "no",
            "yes" if use.trains else "-",
            "yes" if use.prompts else "no",
        )
        for name, use in UTILIZATIONS.items()
    }
    plain = " ".join(str(utilization.__doc__).split())
    for name, row in rows.items():
        assert f"| `{name}` {row}" in plain


def test_no_utilization_leaves_the_choice_free() -> None:
    assert utilization_of(None) is None
    check_trains(None)
    check_trains("SFT")


def test_errors() -> None:
    with pytest.raises(SettingError, match=r"'RAG': allowed are ICL, SFT, SFT\+ICL"):
        utilization_of("RAG")
    with pytest.raises(SettingError, match="'ICL' has nothing to train: compile only"):
        check_trains("ICL")


@pytest.mark.parametrize(
    ("trained", "wanted", "agreed"),
    [(None, None, None), ("SFT", None, "SFT"), (None, "SFT+ICL", "SFT+ICL"), ("SFT", "SFT", "SFT")],
)
def test_what_experts_were_trained_for_is_what_is_compiled_for(
    trained: str | None, wanted: str | None, agreed: str | None
) -> None:
    assert agreed_utilization(trained, wanted) == agreed


def test_experts_trained_for_another_utilization_are_refused() -> None:
    with pytest.raises(SettingError, match=r"'SFT\+ICL': the experts were trained for 'SFT'"):
        agreed_utilization("SFT", "SFT+ICL")
