"""Over a real wire: transformers' own server, and a proxy before it that breaks calls."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy
import pytest
import torch
from dspy.utils.exceptions import LMAuthError, LMServerError, LMUnsupportedModelError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from routedk.programs.journal.journaled_lm import is_session_error, journaled_lm
from routedk.programs.teachers.lm_teacher import LMTeacher
from routedk.types import KnowledgeBase, Session

from .wire import Fault, FaultProxy, Reply

_START_SECONDS = 300


_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def make_student(folder: Path) -> Path:
    """A tiny random Llama that reads bytes, with a chat template, on disk."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        chat_template=_TEMPLATE,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def serving(model: Path, log: Path) -> Iterator[int]:
    """``transformers serve`` as a process of its own; gives its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", model]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, env=environment
        )
    try:
        # What the client needs takes as long to load as the server: they load side by side.
        import litellm  # noqa: F401

        deadline = time.monotonic() + _START_SECONDS
        while not _healthy(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield port
    finally:
        server.kill()
        server.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module", autouse=True)
def _event_loop() -> Iterator[None]:
    """LiteLLM's blocking calls leave an event loop open if they find none."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_student(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def proxy(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """A proxy before a server of the tiny student."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with serving(model, log) as port, FaultProxy(port).running() as running:
        yield running


def lm_at(address: str, model: Path, **options: Any) -> Any:
    options = {"timeout": 60, "num_retries": 2, "temperature": 0.0, "max_tokens": 8, **options}
    return dspy.LM(f"openai/{model}", api_base=address, api_key="none", engine="litellm", **options)


_EMPTY = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
_OPENAI_ERROR = json.dumps({"error": {"message": "please be patient", "type": "busy"}})


def test_a_real_server_answers_once_for_each_question(
    proxy: FaultProxy, model: Path, tmp_path: Path
) -> None:
    proxy.script()
    for _ in range(2):
        with journaled_lm(lm_at(proxy.address, model), tmp_path / "journal.jsonl") as journaled:
            answers = [journaled.lm(question) for question in ("tea?", "mugs?", "tea?")]
            spent = journaled.spent
    assert answers[0] == answers[2]
    assert proxy.passed == spent.journal.calls == 2
    assert (spent.run.calls, spent.replayed) == (0, 3)
    # The server counted: "<s>user\n", the question, "</s>\n<s>assistant\n", a token a byte.
    assert spent.journal.input_tokens == 2 * (6 + 2 + 11) + len("tea?mugs?")
    assert 2 <= spent.journal.output_tokens <= 2 * 8
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    keys = [json.loads(line)["key"] for line in lines]
    assert [sent["idempotency-key"] for sent in proxy.headers] == keys


@pytest.mark.parametrize(
    "fault",
    [
        Reply(429, _OPENAI_ERROR, {"Retry-After": "0.1"}),
        Reply(500, _OPENAI_ERROR, {"Retry-After": "0"}),
        "drop",
        Reply(200, '{"id": "x", "choi'),
        Reply(200, json.dumps(_EMPTY)),
    ],
    ids=["429", "500", "drop", "malformed", "no choices"],
)
def test_a_broken_call_is_made_again_and_counted_once(
    proxy: FaultProxy, model: Path, tmp_path: Path, fault: Fault
) -> None:
    proxy.script()
    with journaled_lm(lm_at(proxy.address, model), tmp_path / "unbroken.jsonl") as journaled:
        unbroken = journaled.lm("tea?")
    proxy.script(fault)
    path = tmp_path / "journal.jsonl"
    with journaled_lm(lm_at(proxy.address, model), path) as journaled:
        assert journaled.lm("tea?") == unbroken
        assert (journaled.spent.run.calls, journaled.spent.replayed) == (1, 0)
        assert journaled.lm("tea?") == unbroken
    assert (len(proxy.arrivals), proxy.passed) == (2, 1)
    assert len(path.read_text().splitlines()) == 1


def test_a_call_that_stalls_is_given_up_and_made_again(
    proxy: FaultProxy, model: Path, tmp_path: Path
) -> None:
    proxy.script("stall")
    lm = lm_at(proxy.address, model, timeout=3)
    with journaled_lm(lm, tmp_path / "journal.jsonl") as journaled:
        journaled.lm("tea?")
        assert journaled.spent.run.calls == 1
    # A busy machine may take longer than the time-out, too.
    assert len(proxy.arrivals) >= 2


def test_a_server_that_says_when_is_not_asked_before(
    proxy: FaultProxy, model: Path, tmp_path: Path
) -> None:
    proxy.script(Reply(429, _OPENAI_ERROR, {"Retry-After": "2.5"}))
    with journaled_lm(lm_at(proxy.address, model), tmp_path / "journal.jsonl") as journaled:
        journaled.lm("tea?")
    first, second = proxy.arrivals
    # DSPy's own wait before a first retry is one second.
    assert second - first >= 2.5


@pytest.mark.parametrize(
    ("reply", "error", "message", "calls"),
    [
        (
            Reply(401, json.dumps({"error": {"message": "no such key", "code": "bad"}})),
            LMAuthError,
            "no such key",
            1,
        ),
        (
            Reply(404, json.dumps({"error": {"message": "no such model"}})),
            LMUnsupportedModelError,
            "no such model",
            1,
        ),
        (Reply(500, _OPENAI_ERROR, {"Retry-After": "0"}), LMServerError, "please be patient", 3),
    ],
    ids=["401", "404", "500 for ever"],
)
def test_a_server_that_fails_for_good_is_an_error_with_its_message(
    tmp_path: Path, reply: Reply, error: type[Exception], message: str, calls: int
) -> None:
    path = tmp_path / "journal.jsonl"
    with FaultProxy().running() as proxy:
        proxy.for_ever = reply
        lm = lm_at(proxy.address, Path("tiny"))
        with (
            journaled_lm(lm, path) as journaled,
            pytest.raises(error, match=message) as caught,
        ):
            journaled.lm("tea?")
        assert len(proxy.arrivals) == calls
    assert not is_session_error(caught.value)
    assert path.read_bytes() == b""


def test_a_prompt_beyond_the_context_window_is_one_sessions(tmp_path: Path) -> None:
    body = {"message": "8 tokens at most", "code": "context_length_exceeded"}
    with FaultProxy().running() as proxy:
        proxy.for_ever = Reply(400, json.dumps({"error": body}))
        lm = lm_at(proxy.address, Path("tiny"))
        with (
            journaled_lm(lm, tmp_path / "journal.jsonl") as journaled,
            pytest.raises(dspy.ContextWindowExceededError, match="8 tokens at most") as caught,
        ):
            journaled.lm("tea?")
        assert len(proxy.arrivals) == 1
    assert is_session_error(caught.value)


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with FaultProxy().running() as proxy:
        gone = proxy.address
    lm = lm_at(gone, Path("tiny"), num_retries=0)
    with (
        journaled_lm(lm, tmp_path / "journal.jsonl") as journaled,
        pytest.raises(dspy.utils.exceptions.LMError, match="Connection error") as caught,
    ):
        journaled.lm("tea?")
    assert not is_session_error(caught.value)


def distil(lm: Any, folder: Path, sessions: Sequence[Session]) -> tuple[KnowledgeBase, Any, int]:
    """What a teacher makes over the wire, its report, and how many calls it took."""
    with journaled_lm(lm, folder / "journal.jsonl") as journaled:
        teacher = LMTeacher(journaled.lm, num_threads=2)
        knowledge = teacher.distill(sessions)
        return knowledge, teacher.report, journaled.spent.run.calls


def test_distilling_survives_what_goes_wrong_on_the_way(
    proxy: FaultProxy, model: Path, tmp_path: Path, training: list[Session]
) -> None:
    patience = Reply(429, _OPENAI_ERROR, {"Retry-After": "0.1"})
    proxy.script(patience, "drop", "stall", Reply(200, '{"id": "x", "choi'), patience)
    lm = lm_at(proxy.address, model, timeout=5, num_retries=6)
    knowledge, report, calls = distil(lm, tmp_path, training)
    assert not report.quarantined
    named = {thought.session_id for thought in knowledge.thoughts} | set(report.dropped_thoughts)
    assert named == {session.id for session in training}
    assert calls == len((tmp_path / "journal.jsonl").read_text().splitlines()) >= 2 * len(training)
    proxy.script()
    assert distil(lm, tmp_path, training) == (knowledge, report, 0)
    assert proxy.arrivals == []


@pytest.mark.student
def test_the_embedded_student_answers_over_the_wire(tmp_path: Path) -> None:
    from routedk.adapters.student import find_student, load_student

    folder, question = find_student(), "Name two hot drinks."
    with serving(folder, tmp_path / "log.txt") as port:
        lm = lm_at(f"http://127.0.0.1:{port}/v1", folder, max_tokens=12)
        with journaled_lm(lm, tmp_path / "journal.jsonl") as journaled:
            (text,) = journaled.lm(question)
            spent = journaled.spent.run
    student = load_student(dtype="float32")
    turns = [{"role": "user", "content": question}]
    prompt = student.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = student.model.generate(**prompt, max_new_tokens=12, do_sample=False)[0]
    length = prompt["input_ids"].shape[1]
    assert text == student.tokenizer.decode(made[length:], skip_special_tokens=True)
    assert (spent.input_tokens, spent.output_tokens) == (length, len(made) - length)


@pytest.mark.student
def test_the_embedded_student_is_a_teacher_over_the_wire(
    tmp_path: Path, training: list[Session]
) -> None:
    from routedk.adapters.student import find_student

    folder = find_student()
    with serving(folder, tmp_path / "log.txt") as port, FaultProxy(port).running() as proxy:
        proxy.script(Reply(429, _OPENAI_ERROR, {"Retry-After": "0.1"}), "drop")
        lm = lm_at(proxy.address, folder, max_tokens=48, num_retries=4)
        knowledge, report, calls = distil(lm, tmp_path, training)
    assert not report.quarantined
    assert calls == len((tmp_path / "journal.jsonl").read_text().splitlines())
    # It writes sentences, mostly; whether they are good rules is another question.
    assert report.stated_rules == 0 or knowledge.rules
    assert sum(report.kinds.values()) >= 1
