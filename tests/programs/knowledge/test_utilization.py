from typing import get_args

from routedk.programs.knowledge import utilization
from routedk.programs.knowledge.utilization import UtilizationName, is_shown, is_trained


def test_the_documented_table_is_the_one_in_force() -> None:
    rows = {
        name: "| {} | {} | {} |".format(
            "yes" if is_trained(name) else "no",
            "yes" if is_trained(name) else "-",
            "yes" if is_shown(name) else "no",
        )
        for name in get_args(UtilizationName)
    }
    plain = " ".join(str(utilization.__doc__).split())
    for name, row in rows.items():
        assert f"| `{name}` {row}" in plain
