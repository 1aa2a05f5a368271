"""Sessions that are longer than the student's context window."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from routedk.adapters.experts.routing_file import read_routing
from routedk.adapters.student import load_tokenizer
from routedk.adapters.train import choose_lessons, train
from routedk.adapters.training.examples import training_rows
from routedk.errors import SettingError
from routedk.files import write_json
from routedk.programs.knowledge.compiled import NO_KNOWLEDGE
from routedk.types import KnowledgeBase, Session
from tests.adapters.conftest import SMALL


def test_a_session_longer_than_the_window_is_named_and_left_out(
    sessions: list[Session], student_folder: Path, tmp_path: Path
) -> None:
    student = Path(shutil.copytree(student_folder, tmp_path / "student"))
    document = json.loads((student / "config.json").read_text())
    tokenizer = load_tokenizer(student)
    lessons = choose_lessons(sessions, KnowledgeBase(), "item-intents")
    lengths = {
        row.session_id: row.tokens
        for row in training_rows(tokenizer, lessons, NO_KNOWLEDGE, "base", "item-intents")
    }
    longest = max(lengths, key=lengths.__getitem__)
    document["max_position_embeddings"] = lengths[longest] - 1
    write_json(student / "config.json", document)
    alone = replace(SMALL, student=str(student), expert_names=("base",), epochs=1)
    folder = train(sessions, KnowledgeBase(), alone, store=tmp_path / "store")
    training = read_routing(folder)["training"]
    assert training["sessions"] == len(sessions) - 1
    assert training["longer_than_window"] == [longest]
    document["max_position_embeddings"] = min(lengths.values()) - 1
    write_json(student / "config.json", document)
    with pytest.raises(SettingError, match="no training session fits the student's window of"):
        train(sessions, KnowledgeBase(), alone, store=tmp_path / "store")
