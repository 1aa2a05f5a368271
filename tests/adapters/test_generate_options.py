"""`generate` under the rules of a catalogue, and with explanations."""

from pathlib import Path
from typing import Any

import pytest

from routedk.adapters.answering import GenerateConfig
from routedk.adapters.generate import generate
from routedk.errors import SettingError
from routedk.eval.predictions import prediction_record, read_predictions, write_predictions
from routedk.programs.generator import BundleGenerator
from routedk.rules import BundleRules
from routedk.types import Answer, Item, Session
from tests.programs.grouping.test_constraints import made
from tests.scripted import scripted_lm

from .test_generate import Confident, some


def test_rules_hold_and_are_part_of_what_is_kept(tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "intent: red kettle")
    program = BundleGenerator(grouping=made())
    sessions = [Session("s", tuple(Item(name, "red kettle", price=9.0) for name in "abcd"))]
    file = tmp_path / "rules.toml"
    file.write_text('out_of_stock = ["b"]\n')

    def found(**given: Any) -> Answer:
        (answer,) = generate(sessions, program=program, lm=lm, store=tmp_path / "store", **given)
        return answer

    plain = [bundle.item_ids for bundle in found().bundles]
    assert plain == [tuple("abcd")]
    (bundle,) = found(rules=BundleRules(out_of_stock=("b",))).bundles
    assert bundle.item_ids == tuple("acd")
    assert bundle.changed == ("left out 'b': 'b' is out of stock",)
    asked = len(engine.requests)
    again = found(config=GenerateConfig(rules=file))
    assert again.bundles == (bundle,)
    assert len(engine.requests) == asked
    assert [one.item_ids for one in found().bundles] == plain
    assert prediction_record(again)["bundles"][0]["changed"] == list(bundle.changed)
    none = found(rules=BundleRules(price_to=1))
    assert prediction_record(none)["changed"] == [
        "no bundle of 'a', 'b', 'c', 'd': it would cost 36.00, price_to=1.00"
    ]
    write_predictions(tmp_path / "lines.jsonl", [again])
    (read,) = read_predictions(tmp_path / "lines.jsonl", sessions)
    assert read.bundles[0].changed == bundle.changed


@pytest.mark.parametrize("grouping", [None, Confident()])
def test_rules_that_nothing_keeps_are_refused(grouping: Any, tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2 | tea")
    program = BundleGenerator(grouping=grouping)
    rules = BundleRules(max_items=2)
    with pytest.raises(SettingError, match="rules: they hold where items are grouped before"):
        generate(some(1), program=program, lm=lm, rules=rules, store=tmp_path)
    assert not engine.requests


def test_another_model_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    student, asked = scripted_lm(lambda messages: "intent: tea\nwhy: The cup.")
    teacher, other = scripted_lm(lambda messages: "intent: kettle\nwhy: Tea and the kettle.")
    monkeypatch.setattr("routedk.adapters.lm.resolve_lm", lambda name: teacher.copy(model=name))
    program = BundleGenerator(grouping=Confident())
    items = (Item("a", "tea cup"), Item("b", "tea kettle"))

    def why(**settings: Any) -> str:
        (answer,) = generate(
            [Session("0.5", items)],
            GenerateConfig(**settings),
            program=program,
            lm=student,
            store=tmp_path,
        )
        return answer.bundles[0].why

    assert why(why=True) == "The cup."
    assert why(why_lm="local/teacher") == "Tea and the kettle."
    assert why(why=True) == "The cup."
    assert (len(asked.requests), len(other.requests)) == (1, 1)
    with pytest.raises(SettingError, match="why_lm=x: it names bundles of a grouping"):
        generate(some(1), GenerateConfig(why_lm="x"), lm=student, store=tmp_path)
