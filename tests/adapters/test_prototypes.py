import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from routedk.adapters.engine.engine import StudentEngine
from routedk.adapters.engine.generation import GREEDY
from routedk.adapters.engine.requests import Job
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.export.prototype_export import PrototypeSettings, export_prototypes
from routedk.adapters.export.prototypes import Prototypes, read_prototypes
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.student import Student
from routedk.adapters.training.examples import encode_head
from routedk.errors import ArtifactError, SettingError
from routedk.programs.prompting.reading import session_lines
from routedk.types import Session

from .conftest import copy_of, make_session, randomise

Messages = dict[str, list[dict[str, str]]]


@pytest.fixture
def prompts(sessions: list[Session], messages_of: Any) -> Messages:
    return {session.id: messages_of(session) for session in sessions}


@pytest.fixture
def held_out(messages_of: Any) -> Messages:
    titles = [("kettle", "usb hub"), ("wool socks", "desk lamp", "tea cup")]
    return {
        f"h{k}": messages_of(make_session(f"h{k}", mine, [(1, 2)])) for k, mine in enumerate(titles)
    }


def build(fusion: str, student: Student) -> RoutedStudent:
    return randomise(
        RoutedStudent(copy_of(student), ExpertSettings(r=4, lora_alpha=6, layers=2), fusion)
    )


def gates_of(routed: RoutedStudent, messages: list[dict[str, str]]) -> torch.Tensor:
    gates = routed.gates([encode_prompt(routed.tokenizer, messages)])
    assert isinstance(gates, torch.Tensor)
    return gates[0]


@pytest.mark.parametrize("fusion", ["softmax", "layerwise", "top1"])
def test_a_prototype_for_every_gates_loses_nothing(
    fusion: str, loaded: Student, prompts: Messages, tmp_path: Path
) -> None:
    routed = build(fusion, loaded)
    distinct = len({repr(gates_of(routed, messages).tolist()) for messages in prompts.values()})
    again = {f"again-{name}": messages for name, messages in prompts.items()}
    settings = PrototypeSettings(k=distinct, sample=2)
    found = export_prototypes(routed, tmp_path / "out", prompts, again, settings)
    assert (found.sessions, found.sampled) == (6, 2)
    assert (found.gate_mean, found.gate_max, found.equal_answers) == (0.0, 0.0, 1.0)
    assert 0 <= found.kl_mean <= found.kl_max < 1e-6
    with pytest.raises(SettingError, match=f"so k is at most {distinct}"):
        export_prototypes(
            routed, tmp_path / "more", prompts, again, PrototypeSettings(k=distinct + 1)
        )
    assert not (tmp_path / "more").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # nothing half is left


def test_a_client_finds_the_nearest_without_the_student(
    loaded: Student, student_folder: Path, prompts: Messages, held_out: Messages, tmp_path: Path
) -> None:
    routed = build("softmax", loaded)
    export_prototypes(
        routed, tmp_path / "out", prompts, held_out, PrototypeSettings(k=2, sample=1, seed=3)
    )
    note = read_prototypes(tmp_path / "out")
    bare = tmp_path / "bare"  # the tokenizer and the embeddings are all that is left of it
    shutil.copytree(student_folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    name = "model.embed_tokens.weight"
    save_file(
        {name: load_file(student_folder / "model.safetensors")[name]}, bare / "model.safetensors"
    )
    client = Prototypes.load(tmp_path / "out", student=str(bare))
    for key, messages in {**prompts, **held_out}.items():
        gates = gates_of(routed, messages)
        torch.testing.assert_close(client.gates(messages)[0], gates)
        distances = {
            prototype.name: sum(
                (a - float(b)) ** 2 for a, b in zip(prototype.gates[0], gates, strict=True)
            )
            for prototype in note.prototypes
        }
        assert client.adapter_for(messages) == min(distances, key=lambda n: distances[n])
        assert client.adapter_of(key) == (client.adapter_for(messages) if key in prompts else None)
    sizes = [prototype.sessions for prototype in note.prototypes]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == len(note.sessions) == 6
    for prototype in note.prototypes:
        assert sum(prototype.gates[0]) == pytest.approx(1, abs=1e-6)
        assert (tmp_path / "out" / prototype.name / "adapter_model.safetensors").is_file()

    export_prototypes(
        routed, tmp_path / "twice", prompts, held_out, PrototypeSettings(k=2, sample=1, seed=3)
    )
    assert read_prototypes(tmp_path / "twice") == note
    with torch.no_grad():
        next(p for n, p in routed.model.named_parameters() if "lora_B" in n)[0, 0] += 1
    routed.freeze()
    export_prototypes(
        routed, tmp_path / "other", prompts, held_out, PrototypeSettings(k=2, sample=1, seed=3)
    )
    other = read_prototypes(tmp_path / "other")
    assert not {p.name for p in other.prototypes} & {p.name for p in note.prototypes}


@pytest.mark.parametrize("form", ["bundles", "item-intents"])
def test_fidelity_is_that_of_the_served_adapter(
    form: Any,
    loaded: Student,
    student_folder: Path,
    prompts: Messages,
    held_out: Messages,
    tmp_path: Path,
) -> None:
    routed = build("softmax", loaded)
    settings = PrototypeSettings(k=2, sample=2, form=form, max_rank=6, truncate=True)
    found = export_prototypes(routed, tmp_path / "out", prompts, held_out, settings)
    client = Prototypes.load(tmp_path / "out")
    held = {p.name: torch.tensor(p.gates[0]) for p in client.note.prototypes}
    differences, divergences, same = [], [], []
    for messages in held_out.values():
        gates, name = gates_of(routed, messages), client.adapter_for(messages)
        differences.append((gates - held[name]).abs())
        base = AutoModelForCausalLM.from_pretrained(student_folder).eval()
        PeftModel.from_pretrained(base, tmp_path / "out" / name)
        served = Student(base, loaded.tokenizer, loaded.name, loaded.fingerprint)
        prompt = encode_prompt(loaded.tokenizer, messages)
        lines = tuple((session_lines(messages[-1]["content"]) or "").split("\n"))
        heads = [encode_head(loaded.tokenizer, x) for x in lines] if form != "bundles" else [()]
        mine = []
        for head in heads:
            ids = torch.tensor([[*prompt.ids, *head]])
            with torch.no_grad(), routed.gate_state.use(gates[None]):
                p = routed.model(input_ids=ids).logits[0, -1].softmax(-1)
            with torch.no_grad():
                q = base(input_ids=ids).logits[0, -1].softmax(-1)
            mine.append(float((p * (p.log() - q.log())).sum()))
        divergences.append(fmean(mine))
        job = Job(prompt, lines, 256, GREEDY)
        texts = [
            StudentEngine(s, form=form, readings=1).run([job])[0][0].text for s in (routed, served)
        ]
        same.append(texts[0] == texts[1])
    assert found.gate_mean == pytest.approx(float(torch.stack(differences).mean()), rel=1e-4)
    assert found.gate_max == pytest.approx(float(torch.stack(differences).max()), rel=1e-4)
    assert found.kl_mean == pytest.approx(fmean(divergences), rel=1e-2, abs=1e-6)
    assert found.kl_max == pytest.approx(max(divergences), rel=1e-2, abs=1e-6)
    assert found.kl_max > 1e-4
    assert found.equal_answers == fmean(same)
    card = (tmp_path / "out" / "README.md").read_text()
    for name, line in found.lines().items():
        assert f"| {name} | {line} |" in card
    assert "2 LoRAs (prototypes) of rank 6 at most" in card
    assert "--max-lora-rank 8 --max-loras 2 --lora-modules proto-" in card
    assert "truncated | by SVD" in card
    assert {p.name for p in client.note.prototypes} == {
        p.name for p in (tmp_path / "out").iterdir() if p.is_dir()
    }


def test_the_student_is_as_it_was(
    loaded: Student, prompts: Messages, held_out: Messages, tmp_path: Path
) -> None:
    routed = build("softmax", loaded)
    before = (
        routed.fingerprint(),
        [n for n, p in routed.model.named_parameters() if p.requires_grad],
    )
    export_prototypes(routed, tmp_path / "out", prompts, held_out, PrototypeSettings(k=1, sample=1))
    assert (
        routed.fingerprint(),
        [n for n, p in routed.model.named_parameters() if p.requires_grad],
    ) == before
    assert list(routed.model.peft_config) == list(routed.adapters)
    assert routed.model.active_adapter == routed.adapters[0]


def test_refusals(loaded: Student, prompts: Messages, held_out: Messages, tmp_path: Path) -> None:
    def write(routed: RoutedStudent, clustered: Mapping[str, Any], **settings: Any) -> None:
        export_prototypes(
            routed, tmp_path / "out", clustered, held_out, PrototypeSettings(k=1, **settings)
        )

    with pytest.raises(
        SettingError, match="fusion 'sparsegen' has gates of its own for each token"
    ):
        write(build("sparsegen", loaded), prompts)
    with pytest.raises(SettingError, match="'static' has the same gates for every session"):
        write(build("static", loaded), prompts)
    for clustered in ({}, held_out):
        with pytest.raises(SettingError, match="at least one of each, none in both"):
            write(build("softmax", loaded), clustered)
    with pytest.raises(SettingError, match="ranks sum to 12, above max_rank=8"):
        write(build("softmax", loaded), prompts, max_rank=8)
    with pytest.raises(SettingError, match="k=0, sample=20: both are at least 1"):
        PrototypeSettings(k=0)
    assert not (tmp_path / "out").exists()


def test_what_is_damaged_is_named(
    loaded: Student, student_folder: Path, prompts: Messages, held_out: Messages, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    routed = build("softmax", loaded)
    export_prototypes(routed, folder, prompts, held_out, PrototypeSettings(k=2, sample=1))
    path = folder / "prototypes.json"
    whole = json.loads(path.read_text())
    name = whole["prototypes"][0]["name"]
    lost = {**whole, "sessions": {"s0": "proto-0000000000000000"}}
    twice = {**whole, "prototypes": [whole["prototypes"][0]] * 2}
    bent = {**whole, "prototypes": [{**whole["prototypes"][0], "gates": [[0.5, 0.1, 0.1]]}]}
    outside = {**whole, "prototypes": [{**whole["prototypes"][0], "name": f"../{name}"}]}
    for document, message in (
        ("{", "invalid JSON"),
        (json.dumps([]), "schema None, this version reads 1"),
        (json.dumps({**whole, "schema": 9}), "schema 9, this version reads 1"),
        (json.dumps({**whole, "router_input": "a hidden layer"}), "router_input: Input should be"),
        (json.dumps(lost), "sessions: no prototype proto-0000000000000000"),
        (json.dumps(twice), "a name stands twice"),
        (json.dumps(bent), "one gate per expert, summing to one"),
        (json.dumps(outside), "prototypes.0.name: String should match"),
        (json.dumps({**whole, "extra": 1}), "extra: Extra inputs"),
    ):
        path.write_text(document)
        with pytest.raises(ArtifactError, match=message) as caught:
            read_prototypes(folder)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    path.write_text(json.dumps(whole))
    other = tmp_path / "student"
    shutil.copytree(student_folder, other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.embed_tokens.weight"][0, 0] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="has other embeddings: name its folder as student"):
        Prototypes.load(folder, student=str(other))
    (other / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"embeddings, 'model.embed_tokens.weight', are not"):
        Prototypes.load(folder, student=str(other))
    (folder / "router.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match=r"router\.safetensors: missing or damaged"):
        Prototypes.load(folder)
    path.unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        Prototypes.load(folder)
