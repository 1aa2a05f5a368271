"""What a teacher's answers are worth to the grouping: the table of docs/results.md.

For each BundleRec domain a grouping is trained on the teacher's recorded answers, on gold, on both,
on the other domain's answers alone ("out of the box"), and on both domains' answers (the bundler
that the package carries); none of them sees a test session. They are compared with the teacher
itself and the baselines, with paired 95% intervals.

    python -m benchmarks.teacher --json table.json [--domain electronic] [--system teacher]

About 10 minutes per system on two cores. ROUTEDK_BUNDLEREC and ROUTEDK_TEACHER name the data.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from routedk import (
    DataOptions,
    DistillConfig,
    KnowledgeBase,
    distill,
    load_sessions,
    split_sessions,
)
from routedk.adapters.grouping.fit import fit_grouping
from routedk.adapters.grouping.pair_trainer import PairSettings, multiplies_in_bf16
from routedk.eval import EvaluateConfig, cascade, evaluate, read_predictions
from routedk.programs.grouping.encoder import EncoderGrouping
from routedk.programs.labels import Labelled, Labels, choose_labels

DOMAINS = ("electronic", "clothing")
SYSTEMS = ("teacher", "gold", "both", "other domain", "packaged")
_RESAMPLES = 10_000


class Domain:
    """One domain: its splits, and what the teacher says about them."""

    def __init__(self, name: str, bundlerec: Path, teacher: Path) -> None:
        self.name = name
        folder, answers = bundlerec / name, teacher / name
        options = DataOptions(
            extra_titles=folder / "item_titles_extra.csv", split_file=folder / "split_aicl.json"
        )
        self.options = options
        self.sessions = load_sessions(folder, options)
        self.split = split_sessions(self.sessions, options)
        self.stated = read_predictions(answers / "test.jsonl", self.sessions)
        composed = [json.loads(line) for line in (answers / "composed.jsonl").open()]
        with tempfile.TemporaryDirectory() as scratch:
            # The other half is composed of test sessions' items.
            learnt = Path(scratch) / "composed.jsonl"
            own = (one for one in composed if one["session_id"].startswith("train-"))
            learnt.write_text("".join(json.dumps(one) + "\n" for one in own))
            files = (answers / "train.jsonl", answers / "rules.jsonl", learnt)
            self.knowledge: KnowledgeBase = distill(
                self.split["train"], DistillConfig(answers=files), store=Path(scratch) / "store"
            )
            tested = Path(scratch) / "tested.jsonl"
            others = (one for one in composed if one["session_id"].startswith("test-"))
            tested.write_text("".join(json.dumps(one) + "\n" for one in others))
            self.composed = [one for one in load_sessions(tested) if not one.bundles]

    def labels(self, labels: Labels) -> list[Labelled]:
        """Labels of the training split, with ids that are unique across domains."""
        found = choose_labels(self.split["train"], self.knowledge, labels)
        return [
            replace(one, session=replace(one.session, id=f"{self.name}:{one.session.id}"))
            for one in found
        ]


def data_folders() -> tuple[Path, Path]:
    """The folders of BundleRec and of the teacher's recorded answers."""
    shared = Path(__file__).parents[1].parent / "shared" / "data"
    return (
        Path(os.environ.get("ROUTEDK_BUNDLEREC", shared / "bundlerec")),
        Path(os.environ.get("ROUTEDK_TEACHER", shared / "teacher")),
    )


def lessons(system: str, domain: Domain, domains: Sequence[Domain]) -> list[Labelled]:
    """What a system learns from."""
    if system == "other domain":
        return [one for other in domains if other is not domain for one in other.labels("teacher")]
    return domain.labels(system)  # type: ignore[arg-type]


def _learnt_from(system: str, domain: Domain) -> str:
    """The name of a grouping by what it learns from, which several rows may share."""
    if system == "other domain":
        return next(f"{name}-teacher" for name in DOMAINS if name != domain.name)
    return f"{domain.name}-{system}"


def difference(scores: Sequence[float], others: Sequence[float]) -> list[float]:
    """The mean paired difference and its 95% bootstrap interval."""
    apart = np.subtract(scores, others)
    draws = np.random.default_rng(0).integers(len(apart), size=(_RESAMPLES, len(apart)))
    low, high = np.quantile(apart[draws].mean(axis=1), (0.025, 0.975))
    return [round(float(x), 4) for x in (apart.mean(), low, high)]


def measure(domain: Domain, grouping: EncoderGrouping) -> dict[str, object]:
    """A grouping's figures on a domain's test sessions."""
    test = [session for session in domain.split["test"] if session.gold]
    started = time.perf_counter()
    answers = [grouping.answer(session) for session in test]
    seconds = time.perf_counter() - started
    config = EvaluateConfig(baselines=False, intents=False)
    report = evaluate(test, answers, config, reference=domain.stated)
    left = [not grouping.answer(session).bundles for session in domain.composed]
    empty = [not answer.bundles for answer in answers]
    system = report.system
    agreed = report.agreement
    assert system is not None
    assert agreed is not None
    kinds = agreed.kinds
    return {
        "f1": [round(x, 4) for x in (system.f1.value, system.f1.low, system.f1.high)],
        "session_f1": system.session_f1,
        "agreement": round(agreed.matched_f1.value, 4),
        "kinds": kinds and [round(kinds.agreeing.value, 3), round(kinds.majority, 3)],
        "composed_left_empty": round(float(np.mean(left)), 3),
        "gold_left_empty": round(float(np.mean(empty)), 3),
        "cascade": [
            [row.below, round(row.teacher_calls, 3), round(row.matched_f1.value, 4)]
            for row in cascade(test, answers, domain.stated, seed=0)
        ],
        "ms_per_session": round(1000 * seconds / len(test), 1),
    }


def baselines(domain: Domain) -> dict[str, dict[str, object]]:
    """The teacher, and the baselines on gold and on the teacher's answers."""
    test = [session for session in domain.split["test"] if session.gold]
    taught = [
        replace(one.session, bundles=one.teacher)
        for one in choose_labels(domain.split["train"], domain.knowledge, "teacher")
    ]
    found: dict[str, dict[str, object]] = {}
    on_gold = evaluate(
        test,
        domain.stated,
        EvaluateConfig(baselines=True, intents=False),
        training=domain.split["train"],
        validation=domain.split["val"],
        catalogue=domain.sessions,
    )
    on_answers = evaluate(
        test,
        None,
        EvaluateConfig(baselines=True, intents=False),
        training=taught[len(taught) // 5 :],
        validation=taught[: len(taught) // 5],
        catalogue=domain.sessions,
    )
    assert on_gold.system is not None
    for name, system in (
        ("teacher, zero-shot", on_gold.system),
        *((f"{one.name}, on gold", one) for one in on_gold.baselines if "clusters" in one.name),
        *(
            (f"{one.name}, on answers", one)
            for one in on_answers.baselines
            if one.name == "pair-clusters"
        ),
    ):
        found[name] = {
            "f1": [round(x, 4) for x in (system.f1.value, system.f1.low, system.f1.high)],
            "session_f1": system.session_f1,
        }
    return found


def main() -> None:
    """Train what was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--domain", action="append", choices=DOMAINS)
    parser.add_argument("--system", action="append", choices=SYSTEMS)
    parser.add_argument("--json", type=Path, required=True, help="file that the table goes to")
    parser.add_argument("--groupings", type=Path, help="folder that keeps trained groupings")
    asked = parser.parse_args()
    domains = [Domain(name, *data_folders()) for name in DOMAINS]
    kept = asked.groupings or Path(tempfile.mkdtemp())
    table: dict[str, dict[str, dict[str, object]]] = {}
    for domain in domains:
        if asked.domain and domain.name not in asked.domain:
            continue
        rows = table[domain.name] = baselines(domain)
        for system in asked.system or SYSTEMS:
            folder = kept / _learnt_from(system, domain)
            if system == "packaged":
                folder = Path(str(files("routedk") / "bundler" / "grouping"))
            if not folder.is_dir():
                folder.mkdir(parents=True)
                settings = PairSettings(bf16=multiplies_in_bf16(None))
                fit_grouping(lessons(system, domain, domains), settings, folder)
            rows[system] = measure(domain, EncoderGrouping.load(folder))
        for name, row in rows.items():
            for other in ("pair-clusters, on answers", "teacher, zero-shot"):
                row[f"less {other}"] = difference(row["session_f1"], rows[other]["session_f1"])  # type: ignore[arg-type]
            shown = {key: value for key, value in row.items() if key != "session_f1"}
            print(domain.name, name, json.dumps(shown), flush=True)
    asked.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(max(1, os.cpu_count() or 1))
    main()
