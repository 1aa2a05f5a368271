import pytest

from routedk.errors import SettingError
from routedk.programs.knowledge import utilization
from routedk.programs.knowledge.utilization import UTILIZATIONS, utilization_of


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


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"'RAG': allowed are ICL, SFT, SFT\+ICL"):
        utilization_of("RAG")
