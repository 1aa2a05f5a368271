"""The journal on disk: what is added stays, and one process at a time has it."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from routedk.errors import DataError
from routedk.programs.journal.budget import BudgetError, Tally
from routedk.programs.journal.journal import KeptAnswer, open_journal


def answer(
    key: str,
    text: str = "1 2 | tea",
    *,
    run: str = "run",
    read: int = 10,
    cost: float | None = 0.5,
) -> KeptAnswer:
    return KeptAnswer(key=key, run=run, text=text, input_tokens=read, output_tokens=3, cost=cost)


def fill(path: Path, *keys: str) -> None:
    with open_journal(path, "run") as journal:
        for key in keys:
            journal.add(answer(key))


def test_what_was_added_is_read_again(path: Path) -> None:
    given = [answer("a", 'two\nlines, "quotes", ü, \u2028'), answer("b", "", cost=None)]
    with open_journal(path, "run") as journal:
        for one in given:
            journal.add(one)
            assert journal.get(one.key) == one
    with open_journal(path, "run") as journal:
        assert [journal.get(one.key) for one in given] == given
        assert journal.get("c") is None


def test_an_answer_is_on_disk_when_it_is_added(path: Path) -> None:
    with open_journal(path, "run") as journal:
        journal.add(answer("a"))
        assert json.loads(path.read_text()) == answer("a").model_dump()


def test_what_each_run_spent(path: Path) -> None:
    with open_journal(path, "run") as journal:
        journal.add(answer("a"))
        journal.add(answer("b", run="other", cost=None))
        journal.add(answer("c"))
    for run, spent in (
        ("run", Tally(2, 20, 6, 1.0)),
        ("other", Tally(1, 10, 3, None)),
        ("third", Tally()),
    ):
        with open_journal(path, run) as journal:
            assert journal.spent == spent


def test_a_budget_is_never_exceeded(path: Path) -> None:
    most = Tally(1, 10, 3)
    with open_journal(path, "run", max_tokens=1000) as journal:

        def work(k: int) -> bool:
            try:
                with journal.reserved(most):
                    journal.add(answer(f"q{k}", read=k % 11))
            except BudgetError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(work, range(500)))
        assert not all(done)
        assert 1000 - most.tokens < journal.spent.tokens <= 1000


def test_what_is_exceeded_is_told(path: Path) -> None:
    fill(path, "a")
    with open_journal(path, "run", max_tokens=50) as journal:
        with pytest.raises(BudgetError) as caught, journal.reserved(Tally(1, 30, 10, None)):
            pass
        assert str(caught.value) == (
            "the budget max_tokens=50 leaves no room: 13 tokens (0.5000 dollars) are spent, and "
            "the next call may take 40 tokens (raise max_tokens and run again: no answer is paid "
            "for twice)"
        )
        # What was refused holds nothing.
        with journal.reserved(Tally(1, 30, 7)):
            pass
    with (
        open_journal(path, "run", max_cost=0.6) as journal,
        pytest.raises(BudgetError, match=r"max_cost=0.6 leaves.*take 40 tokens \(0.2000 dollars\)"),
        journal.reserved(Tally(1, 30, 10, 0.2)),
    ):
        pass


@pytest.mark.parametrize("half", [b'{"key": "c", "te', b'{"key": "c"}', b"\xc3"])
def test_a_half_last_line_is_asked_again(path: Path, half: bytes) -> None:
    fill(path, "a", "b")
    path.write_bytes(path.read_bytes() + half)
    fill(path, "d")
    with open_journal(path, "run") as journal:
        assert [key for key in "abcd" if journal.get(key)] == ["a", "b", "d"]


def broken(name: str, value: object) -> Callable[[str], str]:
    def spoil(line: str) -> str:
        return json.dumps({**json.loads(line), name: value})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda line: "{}", "key: Field required"),
        (lambda line: "{", "invalid JSON"),
        (broken("extra", 1), "extra: Extra inputs are not permitted"),
        (broken("input_tokens", -1), "input_tokens: Input should be greater than or equal to 0"),
        (broken("cost", "1"), "cost: Input should be a valid number"),
    ],
)
def test_a_broken_line_is_named(path: Path, spoil: Callable[[str], str], problem: str) -> None:
    fill(path, "a", "b")
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{spoil(second)}\n")
    with pytest.raises(DataError) as caught, open_journal(path, "run"):
        pass
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ")
    assert problem in message
    if "JSON" not in problem:
        assert message.endswith("(remove the line: its call will be made again)")
    # The refusal leaves nothing locked.
    path.write_text(f"{first}\n")
    fill(path, "c")


def test_another_process_is_refused(path: Path) -> None:
    fill(path, "a")
    code = (
        "import sys; from pathlib import Path\n"
        "from routedk.programs.journal.journal import open_journal\n"
        "with open_journal(Path(sys.argv[1]), 'run'):\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with (
            pytest.raises(DataError, match=r"another process is asking this teacher \(wait until"),
            open_journal(path, "run"),
        ):
            pass
        other.kill()
    # A killed process holds nothing.
    fill(path, "b")


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "teacher.jsonl"
    folder.mkdir()
    with (
        pytest.raises(DataError, match="cannot write: Is a directory"),
        open_journal(folder, "run"),
    ):
        pass
