"""The kinds of files that commands take: an example of each, and how a command uses it."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.order_lines import DAMAGED, FORMS, make_rows
from routedk.cli.output import refuse_foreign
from routedk.data import (
    DataOptions,
    load_sessions,
    read_knowledge,
    scan_sessions,
    session_to_record,
    split_sessions,
    write_jsonl,
    write_knowledge,
    write_parquet,
)
from routedk.eval.predictions import read_predictions, write_predictions
from routedk.files import write_json, write_jsonl_records
from routedk.programs.prompting.layout import build_prompt
from routedk.programs.sampling.difficulty import read_scores
from routedk.programs.teachers.accumulate import accumulate, of_domain
from routedk.programs.teachers.recorded import RecordedAnswers
from routedk.types import (
    Answer,
    KnowledgeBase,
    Pattern,
    Provenance,
    Rule,
    Session,
    TeacherAnswer,
    Thought,
)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Args:
        files: The files in its folder that are damaged.
        use: What a command does with the folder.
        weight: How often it is damaged, relative to the others.
    """

    files: tuple[str, ...]
    use: Callable[[Path], object]
    weight: float = 1.0


@cache
def _sessions() -> list[Session]:
    return load_sessions("demo")[:6]


def _use_sessions(folder: Path) -> None:
    """Read all that can be read, show it and write it; then read as strictly as training does."""
    path = next(folder.iterdir())
    found = [one for one in scan_sessions(path) if isinstance(one, Session)]
    for session in found:
        build_prompt(session)
    write_jsonl(folder.parent / "out.jsonl", found)
    write_parquet(folder.parent / "out.parquet", found)
    load_sessions(path)


def _use_split(folder: Path) -> None:
    split_sessions(_sessions(), DataOptions(split_file=folder / "split.json"))


def _use_titles(folder: Path) -> None:
    load_sessions(folder / "sessions.jsonl", DataOptions(extra_titles=folder / "titles.csv"))


def _use_bundlerec(folder: Path) -> None:
    write_jsonl(folder.parent / "out.jsonl", load_sessions(folder))


def _use_knowledge(folder: Path) -> None:
    base = read_knowledge(folder / "knowledge.jsonl")
    write_knowledge(accumulate([base, of_domain(base, "other")]), folder.parent / "out.jsonl")


def _use_answers(folder: Path) -> None:
    reader = RecordedAnswers(_sessions()[:4], _sessions()[:3], _sessions()[4:])
    reader.read([folder / "answers.jsonl"])
    write_json(folder.parent / "out.json", {"bad": reader.bad_lines, "dropped": reader.dropped})
    made = KnowledgeBase(rules=tuple(reader.rules), answers=tuple(reader.answers))
    write_knowledge(made, folder.parent / "out.jsonl")


def _use_program(folder: Path) -> None:
    from routedk.programs.generator import load_program

    program = load_program(folder / "program.json")
    if program.knowledge.retriever == "tfidf":
        program.messages(_sessions()[0])
    program.save(folder.parent / "out.json")


def _use_predictions(folder: Path) -> None:
    answers = read_predictions(folder / "predictions.jsonl", _sessions())
    write_predictions(folder.parent / "out.jsonl", answers)
    refuse_foreign(folder / "predictions.jsonl", lambda first: "session_id" in first)


def _use_scores(folder: Path) -> None:
    read_scores(folder / "scores.jsonl")


def _use_space(folder: Path) -> None:
    from routedk.optimizers.search import read_space
    from routedk.optimizers.studies import read_grid

    read_space(folder / "space.toml").model_dump_json()
    read_grid(folder / "grid.toml").of("small")


def _use_manifest(folder: Path) -> None:
    from routedk.artifacts.store import ArtifactStore, read_manifest

    read_manifest(folder)
    list(ArtifactStore(folder / "store").root.glob("*"))


def _use_journal(folder: Path) -> None:
    from routedk.programs.journal.journal import open_journal

    with open_journal(folder / "journal.jsonl", "run"):
        pass


@cache
def _encoder() -> Any:
    from routedk.similarity.encoders import load_sentence_model

    return load_sentence_model("minilm")


def _use_grouping(folder: Path) -> None:
    """Share one encoder: only another one that a damaged record names is loaded."""
    from routedk.programs.grouping import encoder

    load = encoder.load_sentence_model
    encoder.load_sentence_model = lambda name: (
        copy.deepcopy(_encoder()) if name == "minilm" else load(name)
    )
    try:
        grouping = encoder.EncoderGrouping.load(folder)
    finally:
        encoder.load_sentence_model = load
    write_json(folder.parent / "out.json", asdict(grouping.answer(_sessions()[0])))


@cache
def _student() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from routedk.adapters.student import Student

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 32}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval().requires_grad_(False)
    return Student(model, None, "tiny", "tiny")  # type: ignore[arg-type]


def _copy() -> Any:
    from dataclasses import replace

    return replace(_student(), model=copy.deepcopy(_student().model))


def _use_experts(folder: Path) -> None:
    from routedk.adapters.experts.routed import RoutedStudent

    RoutedStudent.load(folder, student=_copy()).fingerprint()


_GRID = "studies/routedk.toml"
_LORA = "adapter_model.safetensors"
_TABLES = {
    "session_item": "session ID,item ID\n2,10\n2,11\n1,10\n1,12\n1,13\n",
    "session_bundle": "session ID,bundle ID\n1,0\n1,1\n",
    "bundle_item": "bundle ID,item ID\n0,10\n0,12\n1,10\n1,12\n1,13\n",
    "bundle_intent": "bundle ID,intent\n0,tea &amp; cake\n1,2\n",
    "item_titles": 'item ID,titles\n10,"Mug, 12&quot;"\n12,Caf\u00e9 &amp; Bar\n11,C\n',
    "item_categories": 'item ID,categories\n10,"[[A &amp; B, C,D],[E]]"\n12,[[F]]\n',
}
KINDS = {
    "answers": Kind(("answers.jsonl",), _use_answers),
    "bundlerec": Kind(tuple(f"{name}.csv" for name in _TABLES), _use_bundlerec),
    "experts": Kind(
        ("routing.json", "router.safetensors", f"expert_base/{_LORA}", f"expert_rule/{_LORA}"),
        _use_experts,
        weight=0.1,
    ),
    "grouping": Kind(
        ("grouping.json", "heads.safetensors", _LORA, "adapter_config.json"),
        _use_grouping,
        weight=0.03,
    ),
    "journal": Kind(("journal.jsonl",), _use_journal, weight=0.3),
    "knowledge": Kind(("knowledge.jsonl",), _use_knowledge),
    "manifest": Kind(("manifest.json",), _use_manifest, weight=0.3),
    "parquet": Kind(("sessions.parquet",), _use_sessions),
    "predictions": Kind(("predictions.jsonl",), _use_predictions),
    "program": Kind(("program.json",), _use_program),
    "scores": Kind(("scores.jsonl",), _use_scores),
    "sessions": Kind(("sessions.jsonl",), _use_sessions),
    "space": Kind(("space.toml", "grid.toml"), _use_space),
    "split": Kind(("split.json",), _use_split),
    "titles": Kind(("titles.csv",), _use_titles),
    **{name: Kind((name,), _use_sessions, weight=0.5) for name in DAMAGED},
}
"""The kinds that are damaged, by name."""


def make_files(folder: Path) -> Path:
    """Write an example of each kind, in a folder named after it."""
    from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.knowledge.compiled import CompiledKnowledge

    sessions = _sessions()
    for name in KINDS:
        (folder / name).mkdir(parents=True)
    for table, text in _TABLES.items():
        (folder / "bundlerec" / f"{table}.csv").write_text(text, encoding="utf-8")
    write_jsonl(folder / "sessions" / "sessions.jsonl", sessions)
    write_jsonl(folder / "titles" / "sessions.jsonl", sessions)
    write_parquet(folder / "parquet" / "sessions.parquet", sessions)
    for name in DAMAGED:
        FORMS[name](make_rows(40), folder / name / name)
    ids = [session.id for session in sessions]
    parts = {"train": ids[:4], "val": ids[4:5], "test": ids[5:]}
    write_json(folder / "split" / "split.json", parts)
    titles = [f'{item.id},"{item.title}"' for item in sessions[0].items]
    (folder / "titles" / "titles.csv").write_text("\n".join(["item ID,titles", *titles]))
    source = Provenance(teacher="annotation", sessions=tuple(ids[:2]))
    answer = TeacherAnswer(
        session_id=ids[0],
        bundles=sessions[0].bundles or (),
        item_intents={sessions[0].items[0].id: "tea"},
        items=sessions[0].items,
        provenance=source,
    )
    names = ("Kettles", "Mugs")
    pattern = Pattern(categories=names, support=0.2, confidence=0.5, lift=1.5, provenance=source)
    rules = ("Kettles go with mugs.", "Socks stay out.")
    base = KnowledgeBase(
        patterns=(pattern,),
        rules=tuple(Rule(text=text, provenance=source) for text in rules),
        thoughts=(Thought(session_id=ids[0], text="1 tea; 2 tea", provenance=source),),
        answers=(answer,),
    )
    write_knowledge(base, folder / "knowledge" / "knowledge.jsonl")
    content = json.dumps({"bundles": [{"items": [1, 2], "intent": "tea", "why": "x"}]})
    body = {"model": "m", "choices": [{"message": {"content": content}}], "usage": {}}
    own = session_to_record(sessions[5]) | {"session_id": "own"}
    lines = [
        {"custom_id": ids[1], "response": {"status_code": 200, "body": body}, "error": None},
        {"session_id": ids[0], "bundles": session_to_record(sessions[0])["bundles"]},
        {**own, "items": own["items"][:2], "bundles": [], "teacher": "t"},
        {"text": "Kettles go with mugs.", "sessions": ids[:2], "teacher": "t"},
    ]
    write_jsonl_records(folder / "answers" / "answers.jsonl", lines)
    knowledge = CompiledKnowledge(
        patterns=(pattern,), rules=rules, rules_shown=1, k=2, sessions=tuple(sessions[:3])
    )
    program = BundleGenerator(knowledge)
    program.trials = [{"number": 0, "matched_f1": 0.5, "choice": None}]
    program.save(folder / "program" / "program.json")
    answers = [Answer(one.id, one.bundles or (), confidence=0.5) for one in sessions]
    write_predictions(folder / "predictions" / "predictions.jsonl", answers)
    scores = ({"session_id": one.id, "score": 0.5} for one in sessions)
    write_jsonl_records(folder / "scores" / "scores.jsonl", scores)
    space = 'utilization = "ICL"\nformats = ["none", "rule"]\nrules = [0, 4, 32]\nratio = 0.5\n'
    (folder / "space" / "space.toml").write_text(space)
    (folder / "space" / "grid.toml").write_bytes((files("routedk.optimizers") / _GRID).read_bytes())
    manifest = {"stage": "answers", "key": "0", "version": "0", "seconds": 1.0}
    write_json(folder / "manifest" / "manifest.json", manifest)
    kept = {"key": "0", "run": "run", "text": "t", "input_tokens": 1, "output_tokens": 1}
    write_jsonl_records(folder / "journal" / "journal.jsonl", [{**kept, "cost": 0.5}])
    settings = ExpertSettings(experts=("base", "rule"), r=2, lora_alpha=4, layers=1)
    (folder / "experts").rmdir()
    RoutedStudent(_copy(), settings).save(folder / "experts")
    packaged = files("routedk") / "bundler" / "grouping"
    for name in KINDS["grouping"].files:
        (folder / "grouping" / name).write_bytes((packaged / name).read_bytes())
    return folder
