import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import pytest

from routedk.adapters.answering import GenerateConfig, stream_answers
from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.generate import generate
from routedk.adapters.student import Student
from routedk.types import Answer, Item, Session
from tests.scripted import scripted_lm


def session(number: int) -> Session:
    return Session(f"s{number}", tuple(Item(f"{number}-{k}", f"thing {k}") for k in range(3)))


def some(count: int) -> list[Session]:
    return list(map(session, range(count)))


def test_a_killed_run_repeats_no_answer(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        f"sys.path.append({str(Path(__file__).parents[2])!r})\n"
        "from routedk.adapters.answering import GenerateConfig\n"
        "from routedk.adapters.generate import generate\n"
        "from tests.scripted import scripted_lm\n"
        "from routedk.types import Item, Session\n"
        "log = open('asked', 'a', buffering=1)\n"
        "def script(messages):\n"
        "    name = messages[-1]['content'].split()[2]\n"
        "    if name == '5' and sys.argv[1] == 'die':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    log.write(name + '\\n')\n"
        "    return '1 2'\n"
        "sessions = [Session(f's{n}', tuple(Item(f'{n}-{k}', f'thing {n} {k}') for k in (0, 1)))\n"
        "            for n in range(9)]\n"
        "lm = scripted_lm(script)[0]\n"
        "print(len(generate(sessions, GenerateConfig(threads=1), lm=lm, store='store')))\n"
    )
    for argument, status in (("die", -signal.SIGKILL), ("live", 0)):
        command = [sys.executable, "-c", code, argument]
        done = subprocess.run(command, check=False, cwd=tmp_path, env={**os.environ})
        assert done.returncode == status
    assert sorted((tmp_path / "asked").read_text().split()) == [str(k) for k in range(9)]


def test_sessions_without_end(tmp_path: Path) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Session]:
        number = 0
        while True:
            taken.append(number)
            yield session(number)
            number += 1

    lm, _ = scripted_lm(lambda messages: "1 2")
    answers = stream_answers(endless(), GenerateConfig(threads=2), lm=lm, store=tmp_path)
    assert taken == []
    assert [answer.session_id for answer in islice(answers, 3)] == ["s0", "s1", "s2"]
    assert len(taken) <= 3 + 4


def test_an_answer_does_not_wait_for_the_next_session(tmp_path: Path) -> None:
    told: SimpleQueue[Session | None] = SimpleQueue()
    lm, _ = scripted_lm(lambda messages: "1 2")
    answers = stream_answers(iter(told.get, None), lm=lm, store=tmp_path)
    for number in range(3):
        told.put(session(number))
        assert next(answers).session_id == f"s{number}"
    told.put(None)
    assert list(answers) == []


def test_sessions_that_fail_to_come(tmp_path: Path) -> None:
    def broken() -> Iterator[Session]:
        yield session(0)
        raise OSError("the pipe broke")

    lm, _ = scripted_lm(lambda messages: "1 2")
    answers = stream_answers(broken(), lm=lm, store=tmp_path)
    assert next(answers).session_id == "s0"
    with pytest.raises(OSError, match="the pipe broke"):
        next(answers)


def test_what_could_not_be_read_is_passed_on(tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2")
    bad = Answer("bad", error="its third line is no item")
    config = GenerateConfig(abstain_below=0.5)
    assert generate([bad], config, lm=lm, store=tmp_path) == [bad]
    found = generate([session(0), bad, session(1)], lm=lm, store=tmp_path)
    assert [answer.session_id for answer in found] == ["s0", "bad", "s1"]
    assert len(engine.requests) == 2


def test_runs_at_once_read_what_others_have_kept(tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2")
    first = stream_answers(some(4), GenerateConfig(threads=1), lm=lm, store=tmp_path)
    next(first)
    assert len(generate(some(6), lm=lm, store=tmp_path)) == 6
    asked = len(engine.requests)
    assert 6 <= asked <= 9
    assert len(list(first)) == 3
    logs = sorted(tmp_path.glob("artifacts/answers/*/answers-*.jsonl"))
    assert [log.name for log in logs] == ["answers-0.jsonl", "answers-1.jsonl"]
    for log in logs:
        with log.open("a") as file:
            file.write('{"key": "half a')  # As a killed process leaves it.
    asked = len(engine.requests)
    assert len(generate(some(6), lm=lm, store=tmp_path)) == 6
    assert len(engine.requests) == asked


def test_a_session_beyond_the_window_has_an_error(loaded: Student, tmp_path: Path) -> None:
    lm = engine_lm(StudentEngine(loaded))
    items = tuple(Item(str(number), f"thing {number}") for number in range(1000))
    long, short = generate([Session("long", items), session(1)], lm=lm, store=tmp_path)
    lm.engine.close()
    assert "context window" in long.error
    assert long.bundles == ()
    assert short.error == ""
