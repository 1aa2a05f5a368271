from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
import torch
from dspy.clients.utils_finetune import TrainingStatus

from routedk.adapters.engine.engine import StudentEngine, engine_lm, student_lm
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent, read_routing
from routedk.adapters.student import Student
from routedk.adapters.training.fit import FitSettings
from routedk.adapters.training.stages import TrainingSettings
from routedk.errors import SettingError
from routedk.optimizers.compile import CompileConfig
from routedk.optimizers.finetune import RoutedFinetune, finetunable, finetune_settings
from routedk.optimizers.knowledge_injection import KnowledgeInjection
from routedk.optimizers.metric import as_examples, matched_f1_metric
from routedk.programs.batch import generate_all
from routedk.programs.consensus import Consensus
from routedk.programs.generator import BundleGenerator
from routedk.programs.program_file import load_program
from routedk.programs.prompting.bundle_adapter import BundleLayout
from routedk.programs.testing import scripted_lm
from routedk.types import KnowledgeBase, Provenance, Rule, Session
from tests.adapters.conftest import copy_of

STAGE = TrainingSettings(epochs=4, learning_rate=3e-2, batch_size=2, warmup_steps=1, bf16=False)
SETTINGS = FitSettings(
    experts=ExpertSettings(r=4, lora_alpha=8, layers=2),
    base=STAGE,
    knowledge=replace(STAGE, epochs=1),
    router=replace(STAGE, epochs=1, share=0.3),
)
ALONE = FitSettings(
    experts=ExpertSettings(experts=("base",), r=4, lora_alpha=8, layers=2),
    base=STAGE,
    fusion="single:base",
    answer_form="bundles",
)


@pytest.fixture
def lm(loaded: Student) -> Iterator[Any]:
    """The tiny student as it is."""
    engine = StudentEngine(copy_of(loaded))
    yield engine_lm(engine)
    engine.close()


def weights(lm: Any) -> dict[str, torch.Tensor]:
    model = lm.engine.generator.base.model
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def texts(program: BundleGenerator, sessions: list[Session]) -> list[str]:
    return [answer.raw for answer in generate_all(program, sessions, num_threads=2)]


def asking(lm: Any) -> BundleGenerator:
    program = BundleGenerator()
    program.set_lm(lm)
    return program


def test_better_together(
    lm: Any, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    train, val = as_examples(sessions[:4]), as_examples(sessions[4:])
    frozen, before = weights(lm), texts(asking(lm), sessions)
    # Any answer is learnt from: an untrained student gives few good ones.
    w = RoutedFinetune(tmp_path / "tuned", knowledge=knowledge, settings=SETTINGS, threshold=0.0)
    p = KnowledgeInjection(knowledge, CompileConfig(evaluations=2, threads=2))
    better = dspy.BetterTogether(metric=matched_f1_metric, p=p, w=w)
    student = asking(lm)
    best = better.compile(
        student, trainset=train, valset=val, strategy="p -> w -> p", num_threads=1, seed=0
    )
    assert best.flag_compilation_error_occurred is False
    tried = {one["strategy"]: one["program"] for one in best.candidate_programs}
    assert set(tried) == {"", "p", "p -> w", "p -> w -> p"}
    assert best in tried.values()

    (report,) = w.reports
    assert (report.gold, report.reused) == (4, False)
    # Gold for three experts, and every answer of the program that could be read for one.
    assert report.lessons == 3 * 4 + report.accepted
    assert 0 < report.accepted <= report.asked == 4
    tuned = tried["p -> w -> p"]
    assert tried["p"].generate.lm.model == lm.model
    assert tuned.generate.lm.model == tried["p -> w"].generate.lm.model != lm.model
    assert tuned.generate.lm.launch_kwargs == {"experts": str(report.folder)}

    # The new experts serve, and are those on disk.
    routed = tuned.generate.lm.engine.generator.routed
    assert routed.adapters == ("expert_base", "expert_rule", "expert_thought")
    changed = [p for n, p in routed.model.named_parameters() if "lora_B" in n]
    assert all(parameter.abs().max() > 0 for parameter in changed)
    served = student_lm(report.folder)
    assert served.model == tuned.generate.lm.model
    after = texts(tuned, sessions)
    assert after != before
    assert all(raw.startswith("Thought: ") for raw in after)

    # The student it came from answers as before, on the same weights.
    assert all(torch.equal(frozen[name], tensor) for name, tensor in weights(lm).items())
    base = routed.student.model.state_dict()
    assert all(torch.equal(frozen[n], base[n]) for n in frozen if n in base)
    assert texts(asking(lm.copy(cache=False)), sessions) == before

    # Copies and DSPy's life cycle change nothing; a saved program finds its experts by folder.
    again = tuned.deepcopy()
    for act in (again.generate.lm.kill, again.generate.lm.launch) * 2:
        act()
    assert again.generate.lm.engine is tuned.generate.lm.engine
    again.set_lm(again.generate.lm.copy(cache=False))
    assert texts(again, sessions) == after
    tuned.save(tmp_path / "program.json")
    loaded = load_program(tmp_path / "program.json")
    with dspy.context(lm=served.copy(cache=False)):
        assert texts(loaded, sessions) == after


def test_the_same_is_not_trained_again(
    lm: Any, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    seen = []
    short = replace(ALONE, base=replace(STAGE, epochs=1))
    told: dict[str, Any] = {"settings": short, "sources": ["gold"], "on_report": seen.append}
    w = RoutedFinetune(tmp_path, **told)
    first = w.compile(asking(lm), trainset=as_examples(sessions))
    written = (w.reports[0].folder / "routing.json").stat().st_mtime_ns
    second = w.compile(asking(lm), trainset=as_examples(sessions[::-1]))
    assert [report.reused for report in w.reports] == [False, True]
    assert seen == w.reports
    assert w.reports[0].folder == w.reports[1].folder
    assert (w.reports[1].folder / "routing.json").stat().st_mtime_ns == written
    assert first.generate.lm.model == second.generate.lm.model
    assert (w.reports[0].asked, w.reports[0].accepted) == (0, 0)
    # From the tuned one on: again from the frozen student.
    third = w.compile(second, trainset=as_examples(sessions))
    assert third.generate.lm.model == first.generate.lm.model

    other = RoutedFinetune(tmp_path, **{**told, "settings": replace(short, seed=1)})
    other.compile(asking(lm), trainset=as_examples(sessions))
    assert other.reports[0].folder != w.reports[0].folder
    assert not other.reports[0].reused


def test_traces_alone(
    lm: Any, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    """A teacher's answers, which the metric accepts, teach every expert."""
    teacher = BundleGenerator()
    right = "1 2 | tea"
    teacher.set_lm(scripted_lm(lambda m: right if "kettle" in m[-1]["content"] else "none")[0])
    w = RoutedFinetune(
        tmp_path, knowledge=knowledge, settings=replace(SETTINGS, answer_form="item-intents"),
        sources=("traces",), threshold=1.0,
    )  # fmt: skip
    tuned = w.compile(asking(lm), trainset=as_examples(sessions), teacher=[teacher])
    with_kettle = sum(any(i.title == "kettle" for i in session.items) for session in sessions)
    (report,) = w.reports
    assert (report.gold, report.asked, report.accepted) == (0, 6, with_kettle)
    assert report.lessons == 3 * with_kettle
    assert read_routing(report.folder)["training"]["sessions"] == with_kettle
    assert tuned.generate.lm.engine.form == "item-intents"


def test_a_student_that_answers_badly_is_told_what_works(
    lm: Any, sessions: list[Session], tmp_path: Path
) -> None:
    short = replace(ALONE, base=replace(STAGE, epochs=1))
    told: dict[str, Any] = {"settings": short, "metric": lambda example, answer: 0.25}
    train = as_examples(sessions)
    with pytest.raises(SettingError) as caught:
        RoutedFinetune(tmp_path, sources=("traces",), **told).compile(asking(lm), trainset=train)
    said = str(caught.value)
    assert said.startswith("none of 6 answers to 6 sessions scores 0.8 or more: there is nothing")
    assert "sources=('gold', 'traces')" in said
    assert "teacher=" in said
    assert not list(tmp_path.iterdir())

    w = RoutedFinetune(tmp_path, sources=("gold", "traces"), **told)
    w.compile(asking(lm), trainset=train)
    assert (w.reports[0].gold, w.reports[0].accepted) == (6, 0)
    teacher = BundleGenerator()
    teacher.set_lm(scripted_lm(lambda messages: "1 2 | tea")[0])
    w = RoutedFinetune(tmp_path, settings=short, sources=("traces",))
    w.compile(asking(lm), trainset=train, teacher=teacher)
    assert w.reports[0].accepted == 6


def test_a_training_that_fails_is_an_error(
    lm: Any, sessions: list[Session], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("not a folder")
    w = RoutedFinetune(tmp_path / "taken", settings=ALONE, sources=("gold",))
    train, val = as_examples(sessions[:4]), as_examples(sessions[4:])
    with pytest.raises(FileExistsError, match="taken"):
        w.compile(asking(lm), trainset=train)
    # BetterTogether does not raise it: the flag is all that says so.
    better = dspy.BetterTogether(metric=matched_f1_metric, w=w)
    best = better.compile(asking(lm), trainset=train, valset=val, strategy="w", num_threads=1)
    assert best.flag_compilation_error_occurred is True
    assert [one["strategy"] for one in best.candidate_programs] == [""]
    assert best.generate.lm.model == lm.model


def test_bootstrap_finetune(lm: Any, sessions: list[Session], tmp_path: Path) -> None:
    """DSPy's own weight optimizer, over the provider."""
    program = asking(finetunable(lm, tmp_path, ALONE))
    before = texts(program, sessions)
    boot = dspy.BootstrapFinetune(
        metric=lambda example, answer, trace=None: answer.error is None,
        adapter=BundleLayout(),
        num_threads=1,
    )
    tuned = boot.compile(program, trainset=as_examples(sessions))
    folder = Path(tuned.generate.lm.launch_kwargs["experts"])
    assert folder.parent == tmp_path
    assert tuned.generate.lm.model == student_lm(folder).model
    assert RoutedStudent.load(folder).adapters == ("expert_base",)
    routed = tuned.generate.lm.engine.generator.routed
    assert all(p.abs().max() > 0 for n, p in routed.model.named_parameters() if "lora_B" in n)
    # It changes the program that it is given.
    assert tuned is program
    assert texts(asking(lm), sessions) == before


def test_the_job_says_where_it_stands(lm: Any, sessions: list[Session], tmp_path: Path) -> None:
    lm = finetunable(lm, tmp_path, ALONE)

    def failed(match: str, lessons: Any, form: str = "chat", **options: Any) -> None:
        job = lm.finetune(lessons, form, options)
        with pytest.raises(SettingError, match=match):
            raise job.result()
        job.thread.join()
        assert job.status() == TrainingStatus.failed
        assert not job.cancel()

    failed("train_data_format='completion': only 'chat'", [], "completion")
    failed(r"train_kwargs \['epochs'\]: allowed is settings", [], epochs=3)
    failed("train_kwargs settings=3: give FitSettings", [], settings=3)
    failed("lesson 0 is not of the form", [{}])
    assert list(tmp_path.iterdir()) == []


def test_other_language_models_are_refused(sessions: list[Session], tmp_path: Path) -> None:
    lm, _ = scripted_lm(lambda messages: "1 2")
    w = RoutedFinetune(tmp_path)
    with pytest.raises(SettingError, match="has no weights to train here: use a student"):
        w.compile(asking(lm), trainset=as_examples(sessions))
    with pytest.raises(SettingError, match="tunes a BundleGenerator, this is a Consensus"):
        w.compile(Consensus(asking(lm)), trainset=as_examples(sessions))  # type: ignore[arg-type]


def test_what_is_not_allowed_is_said(lm: Any, sessions: list[Session], tmp_path: Path) -> None:
    def refused(match: str, **options: Any) -> None:
        with pytest.raises(SettingError, match=match):
            RoutedFinetune(tmp_path, **options)

    refused("threshold=1.5: it must be in", threshold=1.5)
    refused(r"sources=\['dreams'\]: at least one of gold, traces", sources=["dreams"])
    refused(r"sources=\[\]", sources=[])
    refused("num_threads=0", num_threads=0)
    refused(r"experts \['rule', 'thought'\] learn with knowledge", settings=SETTINGS)
    refused(
        "'verification': such experts judge", settings=replace(ALONE, answer_form="verification")
    )

    w = RoutedFinetune(tmp_path, settings=ALONE)
    train = as_examples(sessions)
    with pytest.raises(SettingError, match="1 validation sessions are in the training set"):
        w.compile(asking(lm), trainset=train, valset=train[2:3])
    with pytest.raises(SettingError, match="no training session has gold"):
        w.compile(asking(lm), trainset=as_examples([replace(s, bundles=None) for s in sessions]))
    rule = Rule(text="x", provenance=Provenance(teacher="t", sessions=("s5",)))
    w = RoutedFinetune(tmp_path, knowledge=KnowledgeBase(rules=(rule,)), settings=ALONE)
    with pytest.raises(SettingError, match="what the knowledge was made from"):
        w.compile(asking(lm), trainset=train[:5], valset=train[5:])


def test_the_default_settings_follow_the_knowledge() -> None:
    """They are those of `routedk train`, which are written down once."""
    plain = finetune_settings(with_knowledge=False, seed=3)
    assert (plain.experts.experts, plain.fusion) == (("base",), "single:base")
    full = finetune_settings(with_knowledge=True, seed=3)
    assert (full.experts.experts, full.fusion) == (("base", "rule", "thought"), "softmax")
    for settings in (plain, full):
        stages = (settings.base, settings.knowledge, settings.router)
        assert {settings.seed, *(stage.seed for stage in stages)} == {3}
