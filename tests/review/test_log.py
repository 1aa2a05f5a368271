"""What is saved: at once, by several people and processes, and nothing of it lost."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routedk import load_sessions
from routedk.errors import DataError
from routedk.review.draft import Version, accept, merge, move, proposed, reject, rename
from routedk.review.log import ReviewLog
from routedk.types import Bundle, Session

from .conftest import ANSWERS, SESSIONS

PROPOSED = [proposed(one, it.bundles) for one, it in zip(SESSIONS, ANSWERS, strict=True)]


def opened(output: Path) -> ReviewLog:
    return ReviewLog(output, PROPOSED)


def save(
    log: ReviewLog,
    edit: Callable[[Version], Version] | None,
    session: str = "s0",
    by: str = "ann",
) -> bool:
    """Save an edit of the newest version that this log has seen."""
    name = "undo" if edit is None else getattr(edit, "func", edit).__name__
    return log.save(session, log.newest(session).version, name, edit, by)


def state(found: Version) -> tuple[Any, bool]:
    return found.bundles, found.accepted


def history(output: Path) -> list[dict[str, Any]]:
    lines = output.with_name("gold.jsonl.history").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_what_is_accepted_is_gold(output: Path) -> None:
    log = opened(output)
    assert save(log, partial(move, items=["6"], to=2))
    assert save(log, partial(rename, bundle=1, intent="photo", kind=None))
    assert not output.exists()
    assert save(log, accept)
    assert save(log, accept, "s2", by="bo")
    camera = Bundle(("1", "2", "3"), "photo", why="They fit.")
    tablet = Bundle(("4", "5", "6"), "tablet kit", "alternatives")
    items = SESSIONS[0].items
    assert load_sessions(output) == [
        Session("s0", items, (camera, tablet)),
        Session("s2", items, ()),
    ]
    first, second = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert (first["reviewed_by"], second["reviewed_by"]) == ("ann", "bo")
    assert first["reviewed_at"].endswith("+00:00")
    assert [(one["version"], one["change"]) for one in history(output)[:4]] == [
        *((0, "proposed"), (1, "move"), (2, "rename"), (3, "accept")),
    ]
    assert save(log, partial(reject, bundle=1))
    assert [session.id for session in load_sessions(output)] == ["s2"]
    assert save(log, None)
    assert [session.id for session in load_sessions(output)] == ["s0", "s2"]


EDITS = st.lists(
    st.builds(partial, st.just(move), items=st.just(["1"]), to=st.integers(0, 3))
    | st.builds(partial, st.just(merge), bundle=st.just(1), to=st.just(2))
    | st.builds(partial, st.just(rename), bundle=st.just(1), intent=st.text(), kind=st.just(None))
    | st.builds(partial, st.just(reject), bundle=st.just(1))
    | st.just(accept)
    | st.none(),
    max_size=10,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(EDITS)
def test_undo_restores_and_a_restart_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Any]
) -> None:
    output = tmp_path_factory.mktemp("review") / "gold.jsonl"
    log = opened(output)
    model = [log.newest("s0")]
    for edit in edits:
        try:
            save(log, edit)
        except DataError:
            assert edit is not None or len(model) == 1
            continue
        if edit is None:
            model.pop()
        elif state(draft := edit(model[-1])) != state(model[-1]):
            model.append(draft)
        assert state(log.newest("s0")) == state(model[-1])
    again = opened(output)
    assert again.newest("s0") == log.newest("s0")
    for draft in reversed(model[:-1]):
        assert save(again, None)
        assert state(again.newest("s0")) == state(draft)
    with pytest.raises(DataError, match="nothing to undo"):
        save(again, None)
    assert state(again.newest("s0")) == state(PROPOSED[0])


def test_two_logs_on_one_file(output: Path) -> None:
    ann, bo = opened(output), opened(output)
    assert save(ann, accept)
    assert save(bo, accept, "s1", by="bo")
    assert [session.id for session in load_sessions(output)] == ["s0", "s1"]
    ann.refresh()
    assert ann.newest("s1").reviewed_by == "bo"
    # Of one session: the second is told, and both are kept.
    assert save(ann, partial(reject, bundle=1), "s1")
    assert not save(bo, partial(move, items=["1"], to=0), "s1", by="bo")
    assert bo.newest("s1") == ann.newest("s1")
    kept = [one for one in history(output) if one["session_id"] == "s1" and one["version"] == 2]
    assert [one["reviewed_by"] for one in kept] == ["ann", "bo"]
    assert [len(one["bundles"]) for one in kept] == [0, 1]
    assert opened(output).newest("s1") == ann.newest("s1")
    assert save(bo, partial(move, items=["1", "2"], to=1), "s1", by="bo")


EDITOR = """
import sys
from pathlib import Path
from routedk.review.draft import accept, move, proposed
from routedk.review.log import ReviewLog
from routedk.types import Item, Session

name, output = sys.argv[1], Path(sys.argv[2])
items = tuple(Item(str(n), f"item {n}") for n in range(4))
sessions = [Session(f"{who}{n}", items) for who in "ab" for n in range(15)] + [Session("c", items)]
log = ReviewLog(output, [proposed(one, ()) for one in sessions])
print("ready", flush=True)
sys.stdin.readline()
lost = 0
for number in range(15):
    log.refresh()
    for edit in (lambda draft: move(draft, ["0", "1"], 1), accept):
        assert log.save(f"{name}{number}", log.newest(f"{name}{number}").version, "e", edit, name)
    toggle = lambda draft: move(draft, ["2", "3"], 0 if draft.bundles else 1)
    lost += not log.save("c", log.newest("c").version, "e", toggle, name)
print(lost)
"""


def test_two_processes_lose_nothing(output: Path) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    editors = [
        subprocess.Popen([sys.executable, "-c", EDITOR, name, str(output)], **pipes)
        for name in "ab"
    ]
    for editor in editors:
        assert editor.stdout.readline() == "ready\n"
    for editor in editors:
        editor.stdin.write("go\n")
        editor.stdin.flush()
    lost = sum(int(editor.communicate()[0]) for editor in editors)
    assert [editor.returncode for editor in editors] == [0, 0]
    gold = {session.id: session.gold for session in load_sessions(output)}
    assert gold == {f"{who}{n}": [{"0", "1"}] for who in "ab" for n in range(15)}
    shared = [one["version"] for one in history(output) if one["session_id"] == "c"]
    # Each version that counts is there once, and what came second is there beside it.
    assert len(shared) - len(set(shared)) == lost
    assert sorted(set(shared)) == [*range(max(shared) + 1)]


def test_a_line_that_was_half_written_is_cut_off(output: Path) -> None:
    save(opened(output), accept)
    with output.with_name("gold.jsonl.history").open("ab") as file:
        file.write(b'{"session_id": "s0", "it')
    output.unlink()  # As when the process was killed before it wrote it.
    log = opened(output)
    assert [session.id for session in load_sessions(output)] == ["s0"]
    assert save(log, partial(reject, bundle=1))
    assert len(history(output)) == 3


def test_gold_of_sessions_that_are_not_shown_stays(output: Path) -> None:
    save(opened(output), accept)
    save(ReviewLog(output, PROPOSED[1:]), accept, "s1")
    assert [session.id for session in load_sessions(output)] == ["s1", "s0"]


def test_files_that_do_not_fit(output: Path) -> None:
    log = opened(output)
    save(log, accept)
    other = Session("s0", SESSIONS[0].items[:2])
    with pytest.raises(DataError, match=r"history:1: session 's0' has other items in the data"):
        ReviewLog(output, [proposed(other, ())])
    with pytest.raises(DataError, match="there is no version 7: load the page again"):
        log.save("s0", 7, "accept", accept, "ann")
    path = output.with_name("gold.jsonl.history")
    path.write_text("")
    with pytest.raises(DataError, match=r"was cut or replaced \(start routedk review again"):
        log.refresh()
    path.write_text('{"session_id": "s0"}\n')
    with pytest.raises(DataError, match=r"history:1: items: Field required"):
        opened(output)
    path.unlink()
    with pytest.raises(DataError, match=r"gold\.jsonl\.history is not next to it"):
        opened(output)
    assert not path.exists()


FOREIGN = '{"session_id": "theirs"}\n'


def test_gold_of_others_is_never_overwritten(output: Path) -> None:
    path = output.with_name("gold.jsonl.history")
    output.write_text(FOREIGN)
    for content in ("", '{"half'):
        path.write_text(content)
        with pytest.raises(DataError, match="is not next to it or accepts nothing"):
            opened(output)
    output.unlink()
    log = opened(output)
    assert save(log, partial(reject, bundle=1))
    output.write_text(FOREIGN)  # Before the first gold is written.
    for act in (lambda: save(log, accept), lambda: opened(output)):
        with pytest.raises(DataError, match="is not next to it or accepts nothing"):
            act()
    assert output.read_text() == FOREIGN
    output.unlink()
    for _ in range(2):  # The empty gold of a restart is no one else's.
        log = opened(output)
    assert save(log, accept)
    assert [session.id for session in load_sessions(output)] == ["s0"]
