import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.export.export import export_lora, export_model
from routedk.adapters.student import Student
from routedk.data import write_jsonl
from routedk.errors import ArtifactError, SettingError
from routedk.types import Session

from .conftest import assert_same_scores, copy_of, randomise

IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
FIXED = {"uniform": 12, "static": 12, "merged": 8, "single:rule": 4}


def build(fusion: str, student: Student) -> RoutedStudent:
    settings = ExpertSettings(r=4, lora_alpha=6, layers=2)
    return randomise(RoutedStudent(copy_of(student), settings, fusion, [0.7, 0.0, 0.3]))


def logits(routed: RoutedStudent) -> torch.Tensor:
    pooled = torch.zeros(len(IDS), routed.student.model.config.hidden_size)
    with torch.no_grad(), routed.gate_state.use(routed.fusion(pooled)):
        return routed.model(input_ids=IDS).logits


@pytest.mark.parametrize(("fusion", "rank"), FIXED.items())
def test_a_plain_lora_is_the_fused_experts(
    fusion: str, rank: int, loaded: Student, student_folder: Path, tmp_path: Path
) -> None:
    routed = build(fusion, loaded)
    folder = export_lora(routed, tmp_path / "lora", {"data": "demo | all"})
    base = AutoModelForCausalLM.from_pretrained(student_folder)
    plain = PeftModel.from_pretrained(base, folder).eval()
    assert plain.peft_config["default"].r == rank
    assert plain.peft_config["default"].base_model_name_or_path == loaded.name
    assert plain.peft_config["default"].modules_to_save is None
    with torch.no_grad():
        assert_same_scores(plain(input_ids=IDS).logits, logits(routed))
    card = (folder / "README.md").read_text()
    assert f"| fusion | {fusion} |" in card
    assert f"one LoRA of rank {rank}" in card
    assert str(student_folder) not in card
    assert r"| data | demo \| all |" in card


def test_full_weights_are_the_fused_experts(loaded: Student, tmp_path: Path) -> None:
    routed = build("merged", loaded)
    folder = export_model(routed, tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert_same_scores(plain(input_ids=IDS).logits, logits(routed))
    assert AutoTokenizer.from_pretrained(folder).chat_template == loaded.tokenizer.chat_template
    assert "full weights" in (folder / "README.md").read_text()


@pytest.mark.parametrize("fusion", ["softmax", "top1", "layerwise", "sparsegen"])
def test_gates_of_a_session_fit_no_lora(fusion: str, loaded: Student, tmp_path: Path) -> None:
    for write in (export_lora, export_model):
        with pytest.raises(SettingError, match=f"fusion '{fusion}' has gates of its own"):
            write(build(fusion, loaded), tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_nothing_is_overwritten(loaded: Student, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ArtifactError, match="exists already: name another folder"):
            export_lora(build("uniform", loaded), folder)


def command(*arguments: object) -> int:
    from routedk.cli import main

    with pytest.raises(SystemExit) as caught:
        main(["export", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_the_command_with_gates_and_results(
    loaded: Student, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build("softmax", loaded).save(tmp_path / "experts")
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    results = {
        "config": {"data": "some/where/demo", "split": "test"},
        "counts": {"sessions": 7},
        "results": {"matched": {"f1": score}},
    }
    (tmp_path / "result.json").write_text(json.dumps(results))
    (tmp_path / "other.json").write_text("{}")
    begin = ["--experts", tmp_path / "experts", "--gates", "base=.75,rule=.25"]
    limit = ["--max-rank", 4]
    assert command(*begin, *limit, "--output", tmp_path / "lora") == 2
    assert "ranks sum to 8, above max_rank=4: truncate it" in capsys.readouterr().err
    end = [*limit, "--truncate", "--results", tmp_path / "result.json"]
    assert command(*begin, *end, "--output", tmp_path / "lora") == 0
    assert "a plain LoRA with gates of your own" in capsys.readouterr().out
    card = (tmp_path / "lora" / "README.md").read_text()
    assert "| gates | base 0.7500, rule 0.2500, thought 0.0000 |" in card
    assert "| evaluated on | demo, split test, 7 sessions |" in card
    assert "| matched F1 | 0.500 (95% 0.400 to 0.600) |" in card
    assert (
        "| command | routedk export --experts experts --gates base=.75,rule=.25 --results "
        "result.json --max-rank 4 --truncate --output lora |" in card
    )
    for options, message in (
        (["--gates", "base"], "'base' is no NAME=SHARE"),
        (["--gates", "base=.5,base=.5"], "'base=.5' is no NAME=SHARE of its own"),
        (["--gates", "base=.5"], "gates base=0.5: each at least 0, summing to 1"),
        (["--gates", "base=1", "--fusion", "uniform"], "give --fusion or --gates, not both"),
        (["--k", 2], "--k 2: is of --form prototypes"),
        (["--full", "--max-rank", 8], "full weights have no rank"),
        (["--truncate"], "truncate: to which rank"),
        (["--form", "prototypes", "--full"], "give --full or --form prototypes, not both"),
        (["--form", "prototypes", "--k", 2], "give --data PATH and --k NUMBER"),
        (
            ["--form", "prototypes", "--k", 2, "--data", "demo", "--fusion", "uniform"],
            "takes the router's own gates",
        ),
        (["--results", tmp_path / "other.json"], "no results of predictions"),
    ):
        experts = ["--experts", tmp_path / "experts", "--output", tmp_path / "none"]
        assert command(*experts, *options) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_command_for_prototypes(
    loaded: Student,
    sessions: list[Session],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build("softmax", loaded).save(tmp_path / "experts", {"training": {"answer_form": "bundles"}})
    write_jsonl(tmp_path / "sessions.jsonl", sessions)
    split = {"train": ["s0", "s1", "s2", "s3"], "val": [], "test": ["s4", "s5"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    options = [
        *("--experts", tmp_path / "experts", "--output", tmp_path / "out", "--form", "prototypes"),
        *("--data", tmp_path / "sessions.jsonl", "--split-file", tmp_path / "split.json"),
        *("--k", 2, "--sample", 1),
    ]
    assert command(*options, "--split", "all") == 2
    assert "the split 'all' leaves no session to cluster" in capsys.readouterr().err
    assert command(*options) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "gate difference" in shown
    assert "equal greedy answers" in shown
    assert "Exported 2 prototypes" in shown
    note = json.loads((tmp_path / "out" / "prototypes.json").read_text())
    assert list(note["sessions"]) == split["train"]
    assert (note["fidelity"]["sessions"], note["fidelity"]["sampled"]) == (2, 1)
    assert "--form prototypes --k 2" in (tmp_path / "out" / "README.md").read_text()


def test_the_command(loaded: Student, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from routedk.cli import main

    training = {"training": {"answer_form": "bundles"}}
    build("softmax", loaded).save(tmp_path / "experts", training)
    options = ["--experts", str(tmp_path / "experts"), "--output", str(tmp_path / "lora")]
    with pytest.raises(SystemExit) as caught:
        main(["export", *options])
    assert not caught.value.code
    assert "Exported a plain LoRA with fusion merged" in capsys.readouterr().out
    assert (tmp_path / "lora" / "adapter_model.safetensors").is_file()
    card = (tmp_path / "lora" / "README.md").read_text()
    assert "| answer form | bundles |" in card
    assert r"`1 3 4 \| camera accessories`" not in card
    assert "writes one line per\nbundle" in card
    with pytest.raises(SystemExit) as caught:
        main(["export", *options])
    assert caught.value.code == 2
    assert "exists already" in capsys.readouterr().err
