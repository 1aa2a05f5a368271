"""The grouping encoder: trained, saved, loaded, and used."""

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import dspy
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from routedk import (
    ArtifactError,
    Bundle,
    BundleGenerator,
    DataError,
    Item,
    KnowledgeBase,
    Session,
    SettingError,
    load_program,
    load_sessions,
)
from routedk.adapters.grouping import fit
from routedk.adapters.grouping.fit import fit_grouping
from routedk.adapters.grouping.pair_trainer import PairSettings, pair_targets
from routedk.eval import matched_f1
from routedk.programs.grouping.encoder import RECORD, EncoderGrouping
from routedk.programs.grouping.titles import HEADS, LORA, weights_hashes
from routedk.programs.labels import Labelled, choose_labels
from routedk.similarity.encoders import load_sentence_model

SETTINGS = PairSettings(epochs=2, batch_size=8, learning_rate=1e-3, r=4)


def labelled(sessions: Sequence[Session]) -> list[Labelled]:
    """With kinds, which the demo set has not: a pair is of alternatives."""
    found = []
    for one in choose_labels(sessions, KnowledgeBase()):
        kinds = [
            replace(b, kind="alternatives" if len(b.item_ids) == 2 else "complements")
            for b in one.gold or ()
        ]
        found.append(replace(one, gold=tuple(kinds)))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("grouping")
    fit_grouping(labelled(load_sessions("demo")[:48]), SETTINGS, made)
    return made


@pytest.fixture(scope="module")
def grouping(folder: Path) -> EncoderGrouping:
    return EncoderGrouping.load(folder)


def test_it_learns_what_labels_group(grouping: EncoderGrouping) -> None:
    learnt = [session for session in load_sessions("demo")[:48] if session.gold]
    scores = [matched_f1(one.gold, grouping.answer(one).items) for one in learnt]
    whole = [matched_f1(one.gold, [frozenset(i.id for i in one.items)]) for one in learnt]
    assert np.mean(scores) > np.mean(whole)


def test_bundles_have_kinds_and_confidences(grouping: EncoderGrouping) -> None:
    bundles = [b for s in load_sessions("demo")[60:90] for b in grouping.answer(s).bundles]
    assert {bundle.kind for bundle in bundles} <= {"alternatives", "complements"}
    for bundle in bundles:
        assert 0 <= (bundle.confidence or -1) <= 1
        assert 0.5 <= (bundle.kind_confidence or -1) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_order_of_items_does_not_matter(folder: Path, dtype: torch.dtype) -> None:
    grouping = EncoderGrouping.load(folder)
    grouping.encoder.to(dtype)
    draw = random.Random(0)
    for session in load_sessions("demo")[100:105]:
        first = {(b.items, b.kind, b.confidence) for b in grouping.answer(session).bundles}
        for _ in range(20):
            items = draw.sample(session.items, len(session.items))
            moved = grouping.answer(Session("moved", tuple(items))).bundles
            assert {(b.items, b.kind, b.confidence) for b in moved} == first


@pytest.mark.parametrize("title", ["", "  ", "4711", "SKU 99-B", "nan", "SDCZ50-016G", "None"])
def test_an_item_without_a_telling_title_is_in_no_bundle(
    grouping: EncoderGrouping, title: str
) -> None:
    session = load_sessions("demo")[0]
    untold = tuple(Item(f"untold-{n}", title) for n in range(4))
    assert grouping.answer(Session("s", untold)).bundles == ()
    mixed = grouping.answer(Session("s", (*untold, *session.items))).bundles
    assert {b.items for b in mixed} == {b.items for b in grouping.answer(session).bundles}


def test_what_cannot_be_read_is_not_sure(grouping: EncoderGrouping) -> None:
    untold = Session("s", (Item("a", "4711"), Item("b", "")))
    assert grouping.answer(untold).confidence == 0.0
    assert grouping.answer(Session("s", (Item("a", "kettle"),))).confidence == 1.0


@pytest.mark.parametrize("sessions", [1, 3])
def test_too_little_to_learn_from(tmp_path: Path, sessions: int) -> None:
    titles = ("4711", "SKU 9") if sessions == 3 else ("kettle", "cup")
    items = tuple(Item(title, title) for title in titles)
    bundle = Bundle(tuple(titles))
    given = [Session(str(n), items, (bundle,)) for n in range(sessions)]
    with pytest.raises(DataError, match="too few to learn a grouping from"):
        fit_grouping(labelled(given), SETTINGS, tmp_path)


def test_one_item_is_no_bundle(grouping: EncoderGrouping) -> None:
    assert grouping.answer(Session("s", (Item("a", "kettle"),))).bundles == ()


def test_unfamiliar_titles_lower_the_confidence(grouping: EncoderGrouping) -> None:
    titles = [item.title for item in load_sessions("demo")[0].items]
    known = grouping.familiarity(grouping.read(titles)[0]).mean()
    strange = ["zxqv wkpf", "Ölwechsel Klärwerk", "qwertz uiopü", "lorem ipsum dolor"]
    assert grouping.familiarity(grouping.read(strange)[0]).mean() < known
    assert grouping.known_intents(titles)
    assert grouping.known_intents(strange) is None


def test_a_bundle_of_training_is_called_as_it_was_labelled(grouping: EncoderGrouping) -> None:
    session = load_sessions("demo")[0]
    for bundle in session.bundles or ():
        found = grouping.known_intents([session.item(name).title for name in bundle.item_ids])
        assert found
        assert max(found, key=lambda intent: found[intent]) == bundle.intent
        assert sum(found.values()) == pytest.approx(1)


def test_a_grouping_from_before_intents_were_kept(
    grouping: EncoderGrouping, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    record = json.loads((tmp_path / RECORD).read_text())
    record.pop("intents")
    (tmp_path / RECORD).write_text(json.dumps(record))
    session = load_sessions("demo")[0]
    loaded = EncoderGrouping.load(tmp_path)
    assert loaded.known_intents([item.title for item in session.items]) == {}
    assert loaded.answer(session) == grouping.answer(session)
    record["intents"] = ["one"]
    (tmp_path / RECORD).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="missing or damaged: 1 intents and"):
        EncoderGrouping.load(tmp_path)


def test_the_same_labels_give_the_same_grouping(folder: Path, tmp_path: Path) -> None:
    fit_grouping(labelled(load_sessions("demo")[:48]), SETTINGS, tmp_path)
    assert (
        EncoderGrouping.load(tmp_path).fingerprint() == EncoderGrouping.load(folder).fingerprint()
    )


def test_peft_reads_the_lora(folder: Path) -> None:
    from peft import PeftModel

    grouping = EncoderGrouping.load(folder)
    plain = load_sentence_model("minilm").transformers_model
    read = PeftModel.from_pretrained(plain, str(folder)).merge_and_unload()
    theirs = dict(grouping.encoder.transformers_model.named_parameters())
    changed = 0
    for name, weight in read.named_parameters():
        torch.testing.assert_close(weight, theirs[name], atol=1e-5, rtol=1e-4)
        changed += "query.weight" in name
    assert changed > 0


def test_what_labels_weigh(grouping: EncoderGrouping) -> None:
    session = load_sessions("demo")[0]
    one = Labelled(session=session, gold=session.bundles, teacher=(), teacher_weight=0.25)
    targets = pair_targets(one)
    assert set(targets.tolist()) == {0.0, 0.75}
    assert len(targets) == len(session.items) * (len(session.items) - 1) // 2


def test_a_saved_program_finds_its_grouping_again(
    grouping: EncoderGrouping, folder: Path, tmp_path: Path
) -> None:
    session = load_sessions("demo")[0]
    program = BundleGenerator(grouping=grouping)
    program.save(tmp_path / "program.json")
    program.save(tmp_path / "program", save_program=True)
    pickled = dspy.load(str(tmp_path / "program"), allow_pickle=True)
    for loaded in (load_program(tmp_path / "program.json"), pickled):
        assert loaded.prompts(session) == program.prompts(session)
        assert loaded.groups_by().answer(session) == grouping.answer(session)
    saved = json.loads((tmp_path / "program.json").read_text())
    assert saved["grouped_by"] == {
        "fingerprint": grouping.fingerprint(),
        "folder": str(folder.resolve()),
    }
    saved["grouped_by"]["fingerprint"] = "of another one"
    (tmp_path / "program.json").write_text(json.dumps(saved))
    with pytest.raises(SettingError, match=f"a grouping that is not in {folder.resolve()}: set it"):
        load_program(tmp_path / "program.json").groups_by()


class TestDamage:
    @pytest.fixture
    def copy(self, folder: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copy"))

    @pytest.mark.parametrize("name", [RECORD, HEADS, LORA, "adapter_config.json"])
    def test_a_file_is_missing(self, copy: Path, name: str) -> None:
        (copy / name).unlink()
        with pytest.raises((ArtifactError, ValueError), match=name.split(".")[0]):
            EncoderGrouping.load(copy)

    @pytest.mark.parametrize("name", [HEADS, LORA])
    def test_a_file_is_cut(self, copy: Path, name: str) -> None:
        (copy / name).write_bytes((copy / name).read_bytes()[:-100])
        with pytest.raises(ArtifactError, match="missing or damaged"):
            EncoderGrouping.load(copy)

    def test_another_version(self, copy: Path) -> None:
        record = json.loads((copy / RECORD).read_text())
        (copy / RECORD).write_text(json.dumps({**record, "version": 99}))
        with pytest.raises(ArtifactError, match="not a grouping of version"):
            EncoderGrouping.load(copy)

    def test_weights_that_are_not_finite(self, copy: Path) -> None:
        heads = load_file(copy / HEADS)
        heads["f1.weight"][:] = np.nan
        save_file(heads, copy / HEADS)
        with pytest.raises(ArtifactError, match="missing or damaged: not the weights of grouping"):
            EncoderGrouping.load(copy)
        record = json.loads((copy / RECORD).read_text())
        record["weights"] = weights_hashes(copy)
        (copy / RECORD).write_text(json.dumps(record))
        with pytest.raises(ArtifactError, match="not finite"):
            EncoderGrouping.load(copy)

    def test_a_scaling_that_makes_embeddings_overflow(self, copy: Path) -> None:
        path = copy / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 2**127}))
        with pytest.raises(ArtifactError, match="its embeddings are not finite"):
            EncoderGrouping.load(copy)


def test_folds_are_the_same_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    lessons = labelled(load_sessions("demo")[:9])
    alone = list(fit.held_out_readings(lessons, SETTINGS))
    monkeypatch.setattr(fit, "_WORTH_PROCESSES", 0)
    monkeypatch.setattr(fit.joblib, "cpu_count", lambda: 2)
    for (best, read), (other, again) in zip(
        alone, fit.held_out_readings(lessons, SETTINGS), strict=True
    ):
        assert best == other
        for mine, theirs in zip(chain(*read), chain(*again), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-3)
