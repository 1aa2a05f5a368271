"""What stands in the way of a stream of sessions."""

import json
from pathlib import Path
from typing import IO

import pytest

from tests.cli.conftest import Run, records
from tests.cli.test_generate import expected, lines, put, stdin

__all__ = ["stdin"]


@pytest.mark.usefixtures("asked")
def test_a_broken_first_line_of_stdin_is_one_line(run: Run, stdin: IO[bytes]) -> None:
    good = "\n".join(json.dumps(record) for record in records(2))
    put(stdin, b'{"session_id": "a", "itemz": []}\n' + good.encode())
    code, out, _ = run("generate", "--data", "-", "--lm", "x")
    assert code == 0
    assert ["error" in line for line in map(json.loads, out.splitlines())] == [
        True,
        False,
        False,
    ]


@pytest.mark.usefixtures("asked")
def test_where_all_are_answered_a_split_plays_no_part(
    run: Run, stdin: IO[bytes], tmp_path: Path
) -> None:
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["s0"], "val": ["elsewhere"], "test": []}))
    put(stdin, json.dumps(records(1)[0]).encode())
    code, out, _ = run("generate", "--data", "-", "--lm", "x", "--split-file", split)
    assert code == 0
    assert lines(out) == expected(1)
