"""A `BundleGenerator` inside a larger program: DSPy saves, loads and evaluates the whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

from routedk.adapters.engine.engine import StudentLM
from routedk.errors import ArtifactError, SettingError
from routedk.optimizers.feedback import feedback_metric
from routedk.optimizers.metric import matched_f1_metric
from routedk.programs.aicl.program import AICL
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping.protocol import Grouping
from routedk.programs.grouping.similar_intents import SimilarIntents
from routedk.programs.knowledge.compiled import NO_KNOWLEDGE, CompiledKnowledge
from routedk.types import Session
from tests.scripted import ScriptedEngine, scripted_lm

from .test_naming import Neighbours

SIMILAR = SimilarIntents(weight=0.5, threshold=0.4)


class Shop(dspy.Module):  # type: ignore[misc]
    """A program of a user's, around a bundler and a predictor of its own."""

    def __init__(
        self,
        knowledge: CompiledKnowledge = NO_KNOWLEDGE,
        grouping: Grouping | SimilarIntents | None = None,
    ) -> None:
        super().__init__()
        self.bundler = BundleGenerator(knowledge, grouping)
        self.greet = dspy.Predict("shopper -> greeting")

    def forward(self, session: Session) -> Any:
        return self.bundler(session=session)


@pytest.fixture
def knowledge(training: list[Session]) -> CompiledKnowledge:
    return CompiledKnowledge(rules=("kettles go with cups",), k=1, sessions=tuple(training))


def through_state(shop: Shop, new: Shop, folder: Path) -> Shop:
    new.load_state(shop.dump_state())
    return new


def through_a_file(shop: Shop, new: Shop, folder: Path) -> Shop:
    shop.save(folder / "shop.json")
    new.load(folder / "shop.json")
    return new


def through_a_pickled_state(shop: Shop, new: Shop, folder: Path) -> Shop:
    shop.save(folder / "shop.pkl")
    new.load(folder / "shop.pkl", allow_pickle=True)
    return new


def through_a_pickled_program(shop: Shop, new: Shop, folder: Path) -> Shop:
    shop.save(folder / "shop", save_program=True)
    loaded: Shop = dspy.load(str(folder / "shop"), allow_pickle=True)
    return loaded


Way = Callable[[Shop, Shop, Path], Shop]
WAYS = [through_state, through_a_file, through_a_pickled_state, through_a_pickled_program]


@pytest.mark.parametrize("way", WAYS)
def test_a_saved_program_asks_the_same(
    way: Way, knowledge: CompiledKnowledge, tea: Session, tmp_path: Path
) -> None:
    shop = Shop(knowledge, SIMILAR)
    shop.bundler.namer.why = True
    loaded = way(shop, Shop(), tmp_path)
    assert loaded.bundler.messages(tea) == shop.bundler.messages(tea)
    assert "kettles go with cups" in str(loaded.bundler.messages(tea))
    assert loaded.bundler.grouping == SIMILAR
    assert loaded.bundler.namer.why
    assert loaded.bundler.fingerprint() == shop.bundler.fingerprint()


@pytest.mark.parametrize("way", WAYS)
def test_demos_that_are_sessions_are_never_shown_with_the_session_they_answer(
    way: Way, training: list[Session], tea: Session, tmp_path: Path
) -> None:
    def metric(gold: Any, pred: Any, trace: object = None) -> bool:
        return bool(pred.bundles)

    lm, _ = scripted_lm(lambda messages: "1 2 | tea")
    sessions = [tea, *training]
    trainset = [dspy.Example(session=session).with_inputs("session") for session in sessions]
    optimizer = dspy.BootstrapFewShot(metric, max_bootstrapped_demos=1, max_labeled_demos=4)
    with dspy.context(lm=lm):
        shop = optimizer.compile(Shop(), trainset=trainset)
    loaded = way(shop, Shop(), tmp_path)
    demos = [[demo.get("session") for demo in s.bundler.generate.demos] for s in (shop, loaded)]
    shown = [[one for one in held if isinstance(one, Session)] for held in demos]
    assert shown[0]
    assert [one.id for one in shown[1]] == [one.id for one in shown[0]]
    assert [one.bundles for one in shown[1]] == [one.bundles for one in shown[0]]
    for session in sessions:
        messages = loaded.bundler.messages(session)
        assert messages == shop.bundler.messages(session)
        assert len(messages) > 4
        asked = messages[-1]["content"]
        assert asked not in [message["content"] for message in messages[:-1]]


@pytest.mark.parametrize("way", WAYS)
def test_a_student_is_named_and_must_be_set_again(way: Way, tea: Session, tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda messages: "1 2 | tea")
    student = StudentLM("local/routedk-0123", engine=engine, cache=False)
    shop = Shop()
    shop.set_lm(student)
    loaded = way(shop, Shop(), tmp_path)
    other, _ = scripted_lm(lambda messages: "none")
    with dspy.context(lm=other), pytest.raises(SettingError, match="saved with the student local/"):
        loaded(session=tea)
    assert loaded.greet.lm.model == student.model
    loaded.set_lm(student)
    assert loaded(session=tea).bundles == shop(session=tea).bundles
    assert shop.deepcopy().bundler.generate.lm.engine is engine


@pytest.mark.parametrize("way", WAYS[:3])
def test_a_grouping_is_kept_where_it_is_the_same_and_missed_where_it_is_not(
    way: Way, tea: Session, tmp_path: Path
) -> None:
    shop, own = Shop(grouping=Neighbours()), Neighbours()
    assert way(shop, Shop(grouping=own), tmp_path).bundler.groups_by() is own
    loaded = way(shop, Shop(), tmp_path)
    with pytest.raises(SettingError, match="saved with a grouping that is not in the file"):
        loaded(session=tea)
    # What was loaded can be saved and loaded once more.
    assert way(loaded, Shop(grouping=own), tmp_path).bundler.groups_by() is own


def test_the_bundler_alone_is_saved_and_loaded_as_other_modules_are(
    knowledge: CompiledKnowledge, tea: Session, tmp_path: Path
) -> None:
    program = BundleGenerator(knowledge)
    program.save(tmp_path / "folder", save_program=True)
    assert dspy.load(str(tmp_path / "folder"), allow_pickle=True).messages(tea) == program.messages(
        tea
    )
    program.save(tmp_path / "p.json", modules_to_serialize=None)
    program.save(tmp_path / "p.pkl")
    for name, options in (("p.json", {"allow_pickle": False}), ("p.pkl", {"allow_pickle": True})):
        other = BundleGenerator()
        other.load(tmp_path / name, **options)
        assert other.messages(tea) == program.messages(tea)
    with pytest.raises(ValueError, match="allow_pickle=True"):
        BundleGenerator().load(tmp_path / "p.pkl")


def test_a_state_of_another_layout_is_refused(tmp_path: Path) -> None:
    state = Shop().dump_state()
    state["bundler.record"]["layout"] = "0" * 16
    with pytest.raises(ArtifactError, match=r"saved program: compiled under prompt layout 0000"):
        Shop().load_state(state)


def test_lessons_are_not_pickled(training: list[Session], tea: Session, tmp_path: Path) -> None:
    program = AICL(training)
    program.save(tmp_path / "aicl", save_program=True)
    loaded = dspy.load(str(tmp_path / "aicl"), allow_pickle=True)
    assert loaded.knowledge.context(tea) == program.knowledge.context(tea)


@pytest.mark.parametrize("metric", [matched_f1_metric, feedback_metric])
def test_an_evaluation_is_written_as_json(
    metric: Callable[..., Any], training: list[Session], tea: Session, tmp_path: Path
) -> None:
    lm, _ = scripted_lm(lambda messages: "Thought: 1 tea; 2 tea; 3 usb")
    devset = [dspy.Example(session=session).with_inputs("session") for session in (tea, *training)]
    file = tmp_path / "results.json"
    evaluate = dspy.Evaluate(
        devset=devset,
        metric=metric,
        num_threads=1,
        save_as_json=str(file),
    )
    with dspy.context(lm=lm):
        evaluate(BundleGenerator())
    first = json.loads(file.read_text())[0]
    assert first["session"]["items"][0]["title"] == "red kettle"
    assert first["session"]["bundles"][0]["intent"] == "brewing tea at home"
    assert first["bundles"][0]["item_ids"] == ["tea-1", "tea-2"]
    assert first["item_intents"][2] == ["usb"]
    score = first[metric.__name__]
    assert (score["score"] if isinstance(score, dict) else score) == 1.0
    assert not isinstance(score, dict) or score["feedback"].startswith("Score 1.00")
