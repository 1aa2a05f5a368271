from routedk.programs.knowledge import utilization
from routedk.programs.knowledge.utilization import UTILIZATIONS


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
