import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from routedk.adapters import student as student_module
from routedk.adapters.training import fit as fit_module
from routedk.adapters.training.router_training import RouterTraining
from routedk.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("knowledge")
    with pytest.raises(SystemExit):
        main(["distill", "--data", "demo", "--output", str(folder)])
    return folder / "knowledge.jsonl"


class Fitted:
    """What `fit` was called with, instead of training."""

    adapters = ("expert_base", "expert_rule", "expert_thought")
    fusion_name = "softmax"

    def __init__(self) -> None:
        self.call: dict[str, Any] = {}


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> Fitted:
    found = Fitted()

    def fit(
        student: Any, sessions: Any, knowledge: Any, folder: Path, settings: Any, *, experts: Any
    ) -> Fitted:
        found.call = {
            "experts": experts,
            "student": student,
            "sessions": sessions,
            "knowledge": knowledge,
            "settings": settings,
        }
        folder.mkdir()
        routing = {
            "schema": 2,
            "student": {"name": "tiny", "fingerprint": "0"},
            "experts": ["base", "rule", "thought"],
            "r": 8,
            "lora_alpha": 16,
            "target_modules": ["q_proj"],
            "layers": 8,
            "fusion": "softmax",
            "training": {"tokens": {"base": 123456, "router": 7}},
        }
        (folder / "routing.json").write_text(json.dumps(routing))
        return found

    monkeypatch.setattr(fit_module, "fit", fit)
    monkeypatch.setattr(student_module, "load_student", lambda name: name)
    return found


def _never(*arguments: Any) -> Any:
    raise AssertionError("the student is loaded before the arguments are known to be right")


@pytest.fixture
def no_student(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student_module, "load_student", _never)


def test_options_reach_the_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, fitted: Fitted
) -> None:
    run(capsys, "distill", "--data", "demo", "--seed", "5", "--output", tmp_path)
    knowledge = tmp_path / "knowledge.jsonl"
    options = ("--epochs", "2", "--layers", "0", "--r", "4", "--seed", "5", "--max-sessions", "9")
    options = (*options, "--utilization", "SFT", "--answer-form", "bundles")
    code, out, _ = run(
        capsys,
        "train",
        *("--data", "demo", "--knowledge", knowledge, "--output", tmp_path / "e"),
        *("--student", "some/model", *options),
    )
    assert code == 0
    settings = fitted.call["settings"]
    assert fitted.call["student"] == "some/model"
    assert len(fitted.call["sessions"]) == 9
    assert all(session.bundles for session in fitted.call["sessions"])
    assert (settings.base.epochs, settings.experts.layers, settings.experts.r) == (2, None, 4)
    assert (settings.utilization, settings.answer_form) == ("SFT", "bundles")
    assert settings.seed == settings.base.seed == settings.router.seed == 5
    assert settings.router_training == RouterTraining(expert_learning_rate=5e-4)
    assert (settings.router.share, settings.router.epochs, settings.router.batch_size) == (
        0.1,
        2,
        4,
    )
    assert (settings.experts.router_input, settings.one_by_one) == ("session", False)
    assert "123,456" in out
    assert "expert_base, expert_rule, expert_thought; fusion: softmax" in out


def test_a_router_over_trained_experts_keeps_their_shape_and_form(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path, fitted: Fitted
) -> None:
    given = ("--data", "demo", "--knowledge", knowledge)
    assert run(capsys, "train", *given, "--output", tmp_path / "e")[0] == 0
    document = json.loads((tmp_path / "e" / "routing.json").read_text())
    document |= {"r": 4, "layers": 2}
    document["training"]["answer_form"] = "bundles"
    (tmp_path / "e" / "routing.json").write_text(json.dumps(document))
    options = ("--experts", tmp_path / "e", "--router-input", "prompt", "--fusion", "top1")
    assert run(capsys, "train", *given, *options, "--output", tmp_path / "again")[0] == 0
    settings = fitted.call["settings"]
    assert fitted.call["experts"] == tmp_path / "e"
    assert (settings.experts.r, settings.experts.layers) == (4, 2)
    assert (settings.experts.router_input, settings.fusion) == ("prompt", "top1")
    assert settings.answer_form == "bundles"
    (tmp_path / "e" / "routing.json").write_text(json.dumps(document | {"training": None}))
    assert run(capsys, "train", *given, *options, "--output", tmp_path / "unsaid")[0] == 0
    assert fitted.call["settings"].answer_form == "item-intents"


def test_options_of_the_router(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path, fitted: Fitted
) -> None:
    options = ("--data", "demo", "--knowledge", knowledge, "--output", tmp_path / "e")
    router = ("--router-training", "supervised", "--temperature", "0.2", "--balance", "0.5")
    router = (*router, "--sparsity", "0.25", "--router-input", "prompt-hidden")
    more = ("--router-epochs", "3", "--one-by-one", "--gradient-checkpointing")
    assert run(capsys, "train", *options, *router, *more)[0] == 0
    settings = fitted.call["settings"]
    assert settings.router_training == RouterTraining(
        method="supervised",
        temperature=0.2,
        balance=0.5,
        sparsity=0.25,
        expert_learning_rate=5e-4,
    )
    assert (settings.router.share, settings.router.epochs, settings.router.batch_size) == (1, 3, 32)
    assert settings.experts.router_input == "prompt-hidden"
    assert settings.one_by_one
    assert settings.base.gradient_checkpointing
    assert settings.router.gradient_checkpointing


def test_the_embedded_student_is_the_default(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path, fitted: Fitted
) -> None:
    options = ("--data", "demo", "--knowledge", knowledge, "--output", tmp_path / "e")
    code, _, _ = run(capsys, "train", *options)
    assert code == 0
    assert fitted.call["student"] == student_module.DEFAULT_STUDENT


@pytest.mark.usefixtures("no_student")
def test_no_gold_in_the_split(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path
) -> None:
    data = tmp_path / "sessions.jsonl"
    lines = [{"session_id": str(n), "items": [{"id": "a", "title": "x"}]} for n in range(20)]
    data.write_text("\n".join(map(json.dumps, lines)))
    options = ("--data", data, "--knowledge", knowledge, "--output", tmp_path / "e")
    code, _, err = run(capsys, "train", *options)
    assert code == 2
    assert "the split 'train' has no session with gold bundles" in err
    assert not (tmp_path / "e").exists()


@pytest.mark.usefixtures("no_student")
def test_knowledge_from_test_sessions_is_refused(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path
) -> None:
    options = ("--data", "demo", "--seed", "5", "--output", tmp_path / "e")
    code, _, err = run(capsys, "train", *options, "--knowledge", knowledge)
    assert code == 2
    assert "test sessions, e.g. 'demo-" in err


def _rewrite(knowledge: Path, to: Path, **changes: str) -> Path:
    """The knowledge with its rules reworded: another domain's, with the same session ids."""
    lines = [json.loads(line) for line in knowledge.read_text().splitlines()]
    changed = [line | (changes if line["kind"] == "rule" else {}) for line in lines]
    to.write_text("\n".join(map(json.dumps, changed)))
    return to


def test_knowledge_of_another_domain_is_kept_apart(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path, fitted: Fitted
) -> None:
    from routedk.data.knowledge_file import read_knowledge

    other = _rewrite(knowledge, tmp_path / "other.jsonl", text="Lens with camera.")
    options = ("--data", "demo", "--knowledge", knowledge, "--knowledge", f"Electronic={other}")
    assert run(capsys, "train", *options, "--output", tmp_path / "e")[0] == 0
    mine, merged = read_knowledge(knowledge), fitted.call["knowledge"]
    assert merged.thoughts[: len(mine.thoughts)] == mine.thoughts
    foreign = merged.thoughts[len(mine.thoughts) :]
    assert {thought.session_id for thought in foreign} == {
        f"Electronic:{thought.session_id}" for thought in mine.thoughts
    }
    assert [r.text for r in merged.rules] == [*(r.text for r in mine.rules), "Lens with camera."]


@pytest.mark.usefixtures("no_student")
def test_foreign_knowledge_needs_its_name(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path
) -> None:
    """With another seed the split differs: the ids are those of test sessions."""
    options = ("--data", "demo", "--seed", "5", "--output", tmp_path / "e", "--knowledge")
    code, _, err = run(capsys, "train", *options, knowledge)
    assert (code, "test sessions, e.g. 'demo-" in err) == (2, True)
    code, _, err = run(capsys, "train", *options, f"other={knowledge}", "--epochs", "0")
    assert "epochs=0.0" in err


@pytest.mark.usefixtures("no_student")
def test_a_domain_is_not_named_as_sessions_are(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path
) -> None:
    data = tmp_path / "sessions.jsonl"
    items = [{"id": "a", "title": "x"}, {"id": "b", "title": "y"}]
    bundles = [{"items": ["a", "b"], "intent": "z"}]
    lines = [{"session_id": f"d:{n}", "items": items, "bundles": bundles} for n in range(20)]
    data.write_text("\n".join(map(json.dumps, lines)))
    options = ("--data", data, "--knowledge", f"d={knowledge}", "--output", tmp_path / "e")
    code, _, err = run(capsys, "train", *options)
    assert code == 2
    assert "would be taken for one of d: call the domain something else" in err


@pytest.mark.usefixtures("no_student")
def test_no_knowledge_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--knowledge", tmp_path / "none.jsonl", "--output", tmp_path / "e")
    code, _, err = run(capsys, "train", "--data", "demo", *options)
    assert code == 2
    assert "none.jsonl: no such file" in err


@pytest.mark.usefixtures("no_student")
def test_an_output_folder_of_something_else(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    options = ("--knowledge", knowledge, "--output", tmp_path)
    code, _, err = run(capsys, "train", "--data", "demo", *options)
    assert code == 2
    assert "holds something else than experts" in err
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.usefixtures("no_student")
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--epochs", "0", "epochs=0.0: must be above 0"),
        ("--learning-rate", "-1", "learning_rate=-1.0: must be above 0"),
        ("--utilization", "ICL", "utilization 'ICL' has nothing to train: compile only"),
        ("--answer-form", "prose", "answer form 'prose': allowed are item-intents, bundles"),
        ("--utilization", "sft", "utilization 'sft': allowed are ICL, SFT, SFT+ICL"),
        ("--knowledge-share", "2", "share=2.0: must be above 0 and at most 1"),
        ("--router-training", "luck", "router training 'luck': allowed are answer, supervised"),
        ("--router-input", "all", "router input 'all': allowed are session, prompt, session-hi"),
        ("--temperature", "0", "temperature=0.0: must be above 0"),
        ("--balance", "-1", "balance=-1.0: must be at least 0"),
    ],
)
def test_settings(
    capsys: pytest.CaptureFixture[str],
    knowledge: Path,
    tmp_path: Path,
    option: str,
    value: str,
    message: str,
) -> None:
    options = ("--knowledge", knowledge, "--output", tmp_path / "e", option, value)
    code, _, err = run(capsys, "train", "--data", "demo", *options)
    assert code == 2
    assert message in err


def test_the_command_means_what_the_settings_mean() -> None:
    """Every default of the command is that of the class that has a field of its name."""
    from inspect import Parameter, signature

    from routedk.adapters.experts.routing_file import ExpertSettings
    from routedk.adapters.training.plan import TrainingPlan
    from routedk.cli.train import train

    empty = Parameter.empty
    command = {p.name: p.default for p in signature(train).parameters.values()}
    plan = {field.name: field.default for field in fields(TrainingPlan)}
    shape = {field.name: field.default for field in fields(ExpertSettings)}
    rest = {p.name: p.default for p in signature(TrainingPlan.fit_settings).parameters.values()}
    # Which experts, on which layers by name, is not for the command to say; its --experts is a
    # folder.
    shape = {k: v for k, v in shape.items() if k not in ("experts", "target_modules")}
    rest = {k: v for k, v in rest.items() if v is not empty}
    expected = {**plan, **shape, **rest}
    assert {name: command[name] for name in expected} == expected
    own = command.keys() - expected.keys() - {"data", "extra_titles", "gold", "untitled"}
    own -= {"split_file", "split", "knowledge", "output", "student", "experts", "max_sessions"}
    assert not own, "an option that neither settings class has: say in this test whose it is"


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "train", "--help")
    assert code == 0
    assert "Example: routedk train --data demo" in out
