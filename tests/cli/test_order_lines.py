import json
import sys
from pathlib import Path

import pytest

from .conftest import Run, records


def test_describe_order_lines(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("Bon;SKU;Title\n1;a;Mug\n1;b;Pot\n2;a;Mug\n")
    code, _, err = run("data", "describe", path)
    assert code == 2
    assert "no column of a usual name for the session; columns: Bon, SKU, Title (say which: " in err
    columns = ("--columns", "session=Bon")
    code, out, err = run("data", "describe", path, *columns, "--json")
    counts = json.loads(out)
    assert (code, counts["sessions"], counts["items"]) == (0, 1, 2)
    assert counts["config"]["columns"] == "session=Bon"
    said = "".join(err.split())
    assert "read1sessionsof2itemsfrom3linesbysession=Bon,item=SKU,title=Title;leftout:1" in said


@pytest.mark.usefixtures("asked")
def test_order_lines_are_answered(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    titled = ((r["session_id"], item["title"]) for r in records(2) for item in r["items"])
    path.write_text("order,title\n" + "".join(f"{order},{title}\n" for order, title in titled))
    code, out, err = run("generate", "--data", path, "--lm", "x")
    assert code == 0
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["session_id"] for answer in answers] == ["s0", "s1"]
    assert all(answer["bundles"] for answer in answers)
    assert err.count("read 2 sessions") == 1


@pytest.mark.parametrize(
    "content",
    [
        "order,title\n1,item 1 a\n1,item 1 b\n",
        '{"order": 1, "title": "item 1 a"}\n{"order": 1, "title": "item 1 b"}\n',
    ],
)
@pytest.mark.usefixtures("asked")
def test_order_lines_come_from_stdin(
    run: Run, content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "in"
    path.write_text(content)
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        code, out, _ = run("generate", "--data", "-", "--lm", "x")
    assert code == 0
    (answer,) = map(json.loads, out.splitlines())
    assert answer["bundles"][0]["items"] == ["item 1 a", "item 1 b"]
