"""`RoutedFinetune` on the tiny student, alone and in ``dspy.BetterTogether``."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
import torch

from routedk.adapters.engine.engine import StudentEngine, engine_lm, student_lm
from routedk.adapters.experts.routed import read_routing
from routedk.adapters.student import Student
from routedk.adapters.training.run import TrainingRun
from routedk.errors import SettingError
from routedk.optimizers.compile_config import CompileConfig
from routedk.optimizers.feedback import feedback_metric
from routedk.optimizers.knowledge_injection import KnowledgeInjection
from routedk.optimizers.metric import as_examples, matched_f1_metric
from routedk.optimizers.routed_finetune import RoutedFinetune
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator, load_program
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import KnowledgeBase, Provenance, Rule, Session
from tests.adapters.conftest import SMALL, copy_of
from tests.scripted import scripted_lm

CONFIG = replace(SMALL, router_share=0.5)
ALONE = replace(CONFIG, expert_names=("base",), epochs=1, answer_form="bundles")


@pytest.fixture
def lm(loaded: Student) -> Iterator[Any]:
    """The tiny student, untrained."""
    engine = StudentEngine(copy_of(loaded))
    yield engine_lm(engine).copy(cache=False)
    engine.close()


def asking(lm: Any) -> BundleGenerator:
    program = BundleGenerator()
    program.set_lm(lm)
    return program


def teacher(answer: str) -> BundleGenerator:
    return asking(scripted_lm(lambda messages: answer)[0])


def weights(lm: Any) -> dict[str, torch.Tensor]:
    model = lm.engine.generator.base.model
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def texts(program: BundleGenerator, sessions: list[Session]) -> list[str]:
    return [answer.raw for answer in generate_all(program, sessions, num_threads=2)]


def test_better_together(
    lm: Any, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    train, val = as_examples(sessions[:4]), as_examples(sessions[4:])
    frozen, before = weights(lm), texts(asking(lm), sessions)
    # Any answer is learned from: an untrained student gives few good ones.
    w = RoutedFinetune(knowledge=knowledge, config=CONFIG, threshold=0.0, store=tmp_path)
    p = KnowledgeInjection(knowledge, CompileConfig(evaluations=2, threads=2))
    better = dspy.BetterTogether(metric=matched_f1_metric, p=p, w=w)
    best = better.compile(
        asking(lm), trainset=train, valset=val, strategy="p -> w -> p", num_threads=1, seed=0
    )
    assert best.flag_compilation_error_occurred is False
    tried = {one["strategy"]: one["program"] for one in best.candidate_programs}
    assert set(tried) == {"", "p", "p -> w", "p -> w -> p"}
    assert best in tried.values()

    (report,) = w.reports
    assert report.gold == report.asked == 4
    assert 0 < report.accepted <= 4
    # Gold for three experts; of the program's answers those that the form can say.
    assert 3 * 4 <= report.rows <= 3 * 4 + report.accepted
    tuned = tried["p -> w -> p"]
    assert tried["p"].generate.lm.model == lm.model
    assert tuned.generate.lm.model == tried["p -> w"].generate.lm.model != lm.model
    assert tuned.generate.lm.launch_kwargs == {"experts": str(report.folder)}

    # The new experts serve, and are those on disk.
    assert read_routing(report.folder)["experts"] == ["base", "rule", "thought"]
    assert student_lm(report.folder).model == tuned.generate.lm.model
    after = texts(tuned, sessions)
    assert after != before
    assert all(raw.startswith("Thought: ") for raw in after)

    # The student it came from answers as before, on the same weights.
    assert all(torch.equal(frozen[name], tensor) for name, tensor in weights(lm).items())
    assert texts(asking(lm), sessions) == before

    # Copies and DSPy's life cycle change nothing; a saved program finds its experts by folder.
    again = tuned.deepcopy()
    for act in (again.generate.lm.kill, again.generate.lm.launch) * 2:
        act()
    assert again.generate.lm.engine is tuned.generate.lm.engine
    tuned.save(tmp_path / "program.json")
    with dspy.context(lm=student_lm(report.folder)):
        assert texts(load_program(tmp_path / "program.json"), sessions) == after


def test_the_same_lessons_are_not_learnt_twice(
    lm: Any, sessions: list[Session], tmp_path: Path
) -> None:
    w = RoutedFinetune(config=ALONE, threshold=None, store=tmp_path)
    first = w.compile(asking(lm), trainset=as_examples(sessions))
    folder = w.reports[0].folder
    written = (folder / "routing.json").stat().st_mtime_ns
    second = w.compile(asking(lm), trainset=as_examples(sessions[::-1]))
    # From the tuned one on: again from the frozen student.
    third = w.compile(second, trainset=as_examples(sessions))
    assert [report.folder for report in w.reports] == [folder] * 3
    assert (folder / "routing.json").stat().st_mtime_ns == written
    assert len({program.generate.lm.model for program in (first, second, third)}) == 1
    told = w.reports[0]
    assert (told.gold, told.asked, told.accepted, told.rows) == (6, 0, 0, 6)
    fewer = replace(ALONE, seed=1, max_sessions=4)
    other = RoutedFinetune(config=fewer, threshold=None, store=tmp_path)
    other.compile(asking(lm), trainset=as_examples(sessions))
    assert (other.reports[0].gold, other.reports[0].folder == folder) == (4, False)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, list[Any]]]:
    """The rows that would be trained on; nothing is trained."""
    caught: list[dict[str, list[Any]]] = []

    def train_rows(run: TrainingRun, rows: dict[str, list[Any]]) -> Path:
        caught.append(rows)
        return Path("nowhere")

    home = "routedk.optimizers.routed_finetune"
    monkeypatch.setattr(TrainingRun, "train", train_rows)
    monkeypatch.setattr(f"{home}.student_lm", lambda folder, **_: dspy.LM("local/tuned"))
    return caught


def learnt(tokenizer: Any, row: Any) -> list[str]:
    """The texts that are trained on after a row's prompt, one per completion."""
    return [tokenizer.decode(ids).removesuffix("<|im_end|>") for ids, _ in row.lines]


@pytest.mark.parametrize(
    ("answer", "items", "bundles"),
    [
        ("1 2 | tea", ["1 {} | tea", "2 {} | tea"], "1 2 | tea"),
        ("Thought: 1 brew; 2 brew", ["1 {} | brew", "2 {} | brew"], "1 2 | brew"),
        ("Thought: both brew\n1 2 | tea", ["1 {} | tea", "2 {} | tea"], "1 2 | tea"),
        ("- Bundle 1: [1, 2] tea", ["1 {} | tea", "2 {} | tea"], "1 2 | tea"),
        ("none", [], "none"),
        ("1 2", [], "1 2"),
        ("what?", [], None),
    ],
)
@pytest.mark.parametrize("form", ["item-intents", "bundles"])
def test_an_accepted_answer_is_learnt_in_the_form_of_the_experts(
    lm: Any,
    sessions: list[Session],
    rows: list[dict[str, list[Any]]],
    form: Any,
    answer: str,
    items: list[str],
    bundles: str | None,
) -> None:
    session = sessions[0]
    w = RoutedFinetune(config=replace(ALONE, answer_form=form), threshold=0.0)
    student = asking(lm)
    student.knowledge = CompiledKnowledge(rules=("a rule",))
    w.compile(student, trainset=as_examples([session]), teacher=[teacher(answer)])
    tokenizer = lm.engine.generator.base.tokenizer
    gold, *traces = rows[0]["base"]
    expected = [bundles] if bundles else []
    if form == "item-intents":
        titles = [item.title for item in session.items]
        expected = [line.format(title) for line, title in zip(items, titles, strict=False)]
    assert [text for row in traces for text in learnt(tokenizer, row)] == expected
    # Gold stands under the role's prompt, an answer under the program's own.
    assert "a rule" not in tokenizer.decode(gold.prompt.ids)
    assert all("a rule" in tokenizer.decode(row.prompt.ids) for row in traces)


def test_the_metric_chooses_what_is_learnt(
    lm: Any, sessions: list[Session], rows: list[dict[str, list[Any]]]
) -> None:
    right = asking(
        scripted_lm(lambda m: "1 2 | tea" if "kettle" in m[-1]["content"] else "none")[0]
    )
    wrong = teacher("1 3 | tea")
    w = RoutedFinetune(config=ALONE, threshold=1.0)
    w.compile(asking(lm), trainset=as_examples(sessions), teacher=[right, wrong])
    with_kettle = sum(any(i.title == "kettle" for i in session.items) for session in sessions)
    (report,) = w.reports
    assert (report.gold, report.asked, report.accepted) == (6, 12, with_kettle)
    assert len(rows[0]["base"]) == report.rows == 6 + with_kettle
    judged = RoutedFinetune(config=ALONE, metric=feedback_metric, threshold=1.0)
    judged.compile(asking(lm), trainset=as_examples(sessions), teacher=right)
    assert judged.reports[0].accepted == with_kettle
    failing = RoutedFinetune(config=ALONE, metric=lambda example, answer: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.compile(asking(lm), trainset=as_examples(sessions), teacher=right)


def test_a_training_that_fails_is_an_error(
    lm: Any, sessions: list[Session], tmp_path: Path
) -> None:
    (tmp_path / "work").write_text("not a folder")
    w = RoutedFinetune(config=ALONE, threshold=None, store=tmp_path)
    train, val = as_examples(sessions[:4]), as_examples(sessions[4:])
    with pytest.raises(OSError, match="work"):
        w.compile(asking(lm), trainset=train)
    # BetterTogether does not raise it: the flag is all that says so.
    better = dspy.BetterTogether(metric=matched_f1_metric, w=w)
    best = better.compile(asking(lm), trainset=train, valset=val, strategy="w", num_threads=1)
    assert best.flag_compilation_error_occurred is True
    assert [one["strategy"] for one in best.candidate_programs] == [""]
    assert best.generate.lm.model == lm.model


def test_other_programs_and_models_are_refused(sessions: list[Session]) -> None:
    w = RoutedFinetune()  # Without knowledge the base expert alone is trained.
    with pytest.raises(SettingError, match="has no weights to train here: use a student"):
        w.compile(teacher("1 2"), trainset=as_examples(sessions))
    with pytest.raises(SettingError, match="tunes a BundleGenerator, this is a Predict"):
        w.compile(dspy.Predict("session -> bundles"), trainset=[])  # type: ignore[arg-type]


def test_what_is_not_allowed_is_said(
    lm: Any, sessions: list[Session], knowledge: KnowledgeBase
) -> None:
    with pytest.raises(SettingError, match=r"threshold=1.5: it must be in"):
        RoutedFinetune(threshold=1.5)
    with pytest.raises(SettingError, match=r"experts \['rule', 'thought'\] learn with knowledge"):
        RoutedFinetune(config=CONFIG)
    w = RoutedFinetune(config=ALONE, threshold=None)
    train = as_examples(sessions)
    with pytest.raises(SettingError, match="1 validation sessions are in the training set"):
        w.compile(asking(lm), trainset=train, valset=train[2:3])
    for gold in (None, ()):
        blind = as_examples([replace(session, bundles=gold) for session in sessions])
        with pytest.raises(SettingError, match="no training session has gold bundles"):
            w.compile(asking(lm), trainset=blind)
    rules = KnowledgeBase(rules=knowledge.rules)
    thoughtless = RoutedFinetune(knowledge=rules, config=CONFIG, threshold=None)
    with pytest.raises(SettingError, match=r"experts \['thought'\] have nothing to learn in the"):
        thoughtless.compile(asking(lm), trainset=train)
    rule = Rule(text="x", provenance=Provenance(teacher="t", sessions=("s5",)))
    informed = RoutedFinetune(knowledge=KnowledgeBase(rules=(rule,)), config=ALONE)
    with pytest.raises(SettingError, match="what the knowledge was made from"):
        informed.compile(asking(lm), trainset=train[:5], valset=train[5:])
