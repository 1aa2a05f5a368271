"""Greedy answers, samples, consensus, ranking and verification, for each way to fuse the experts.

    python -m benchmarks.enhancement --data bundlerec/electronic --extra-titles titles.csv \
        --split-file split.json --experts be/experts --program be/program.json \
        --verifier be/verifier --single thought --output enhancement.json

Every row is compared with `embedding-clusters`, session by session. The results are written after
every row; a run that was cut goes on where it stopped.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import dspy
import typer
from rich.console import Console

from benchmarks.command import run_command
from benchmarks.conditions import Condition, digest, result_table, run_conditions
from routedk.adapters import StudentRanker, StudentVerifier, student_lm
from routedk.adapters.experts.routed import read_routing
from routedk.cli.options import SessionSource, takes_sessions
from routedk.data import load_sessions, select_split, split_sessions
from routedk.errors import SettingError
from routedk.eval import BaselineData, default_encoder, make_baseline
from routedk.eval.baselines import Baseline
from routedk.programs import BundleGenerator, Consensus, LikelihoodRanking, Verification
from routedk.programs.program_file import load_generator
from routedk.programs.prompting.layout import layout_hash
from routedk.types import Bundle, Session

BASELINES = ("embedding-clusters", "pair-clusters")
BASE = BASELINES[0]


def baseline_conditions(data: BaselineData) -> Iterator[Condition]:
    """The baselines as programs that call no language model."""

    def answer(baseline: Baseline, session: Session) -> dspy.Prediction:
        found = baseline.predict(session)
        return dspy.Prediction(bundles=[Bundle(tuple(items), "") for items in found], error=None)

    def make(name: str) -> tuple[None, Callable[..., dspy.Prediction]]:
        return None, partial(answer, make_baseline(name, data))

    for name in BASELINES:
        if name != "pair-clusters" or data.training:
            yield Condition(name, partial(make, name))


def fused_conditions(
    fusion: str | None,
    experts: Path,
    verifier: Path | None,
    program: BundleGenerator,
    *,
    n: int,
    samples: int,
    temperature: float,
    dtype: str | None,
) -> Iterator[Condition]:
    """Every way to come to an answer under one fusion.

    Args:
        fusion: Its name; None for the router.
        experts: Folder of the experts that write.
        verifier: Folder of the experts that judge; None for no verification.
        program: What asks them.
        n: Answers of the consensus.
        samples: Answers among the candidates of ranking and verification, the first greedy.
        temperature: Of drawn answers.
        dtype: The student's.
    """
    name = fusion or "routed"

    @cache
    def lm() -> Any:
        # Answers of another row, or run, would cost this one nothing.
        return student_lm(experts, fusion=fusion, dtype=dtype).copy(cache=False)

    chosen: dict[str, Any] = {"n": samples, "temperature": temperature}
    several = Consensus(program, n=n, temperature=temperature)
    yield Condition(f"{name}, greedy", lambda: (lm(), program))
    yield Condition(
        f"{name}, one sample", lambda: (lm().copy(temperature=temperature, rollout_id=1), program)
    )
    yield Condition(f"{name}, consensus", lambda: (lm(), several))
    yield Condition(
        f"{name}, likelihood",
        lambda: (lm(), LikelihoodRanking(program, StudentRanker(lm(), program), **chosen)),
    )
    if verifier is not None:

        def verification() -> tuple[Any, Any]:
            judge = StudentVerifier(
                student_lm(verifier, fusion=fusion, dtype=dtype), program.knowledge
            )
            return lm(), Verification(program, judge, **chosen)

        yield Condition(f"{name}, verification", verification)


@takes_sessions(split="test")
def main(
    source: SessionSource,
    experts: Annotated[Path, typer.Option(help="What routedk train wrote.")],
    output: Annotated[Path, typer.Option(help="Where the results go, as JSON.")],
    single: Annotated[str, typer.Option(help="The expert that is to stand alone.")],
    program: Annotated[Path | None, typer.Option(help="What routedk compile wrote.")] = None,
    verifier: Annotated[
        Path | None, typer.Option(help="Experts trained with --answer-form verification.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Answers of the consensus.")] = 8,
    samples: Annotated[
        int, typer.Option(min=0, help="Answers among the candidates that are judged.")
    ] = 1,
    temperature: Annotated[float, typer.Option(help="Of drawn answers.")] = 0.7,
    limit: Annotated[int | None, typer.Option(min=1, help="Score the first sessions only.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run these rows alone.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Calls to the model at once.")] = 16,
    dtype: Annotated[
        str | None, typer.Option(help="The student's, as in routedk generate.")
    ] = None,
) -> None:
    """Score every way to come to an answer, under one expert, uniform and routed fusion."""
    everything = load_sessions(source.path, source.options)
    sessions = [s for s in select_split(everything, source.options, source.split) if s.gold][:limit]
    scored = {session.id for session in sessions}
    parts = split_sessions(everything, source.options)
    data = BaselineData(
        catalogue=everything,
        validation=parts["val"],
        encoder=default_encoder(),
        training=[s for s in parts["train"] if s.id not in scored],
    )
    if single not in read_routing(experts)["experts"]:
        raise SettingError(f"--single {single}: {experts} has no such expert")
    if verifier is not None and not judges(verifier):
        raise SettingError(f"--verifier {verifier}: not trained with --answer-form verification")
    compiled = load_generator(program) if program is not None else BundleGenerator()
    settings = {"n": n, "samples": samples, "temperature": temperature, "dtype": dtype}
    fusions = (f"single:{single}", "uniform", None)
    listed = [
        *baseline_conditions(data),
        *(
            condition
            for fusion in fusions
            for condition in fused_conditions(fusion, experts, verifier, compiled, **settings)
        ),
    ]
    names = [condition.name for condition in listed]
    if unknown := set(only or ()) - set(names):
        raise SettingError(f"no row is called {min(unknown)!r}: choose among {names}")
    config = {
        **source.config(),
        **settings,
        "limit": limit,
        "sessions_hash": digest(sessions),
        "experts": _trained(experts),
        "verifier": verifier and _trained(verifier),
        "program_hash": program and hashlib.sha256(program.read_bytes()).hexdigest()[:16],
        "layout": layout_hash(),
    }
    records = run_conditions(
        [c for c in listed if not only or c.name in {*only, BASE}],
        sessions,
        output,
        config,
        names=names,
        base=BASE,
        threads=threads,
        seed=source.options.seed,
    )
    console = Console(width=200)
    console.print(result_table(records))
    console.print(
        f"{len(sessions)} sessions of {source.split}; differences are from {BASE}; seconds are "
        "those of calls really made, tokens those of all answers.",
        highlight=False,
    )


def judges(experts: Path) -> bool:
    """Whether experts were trained to verify."""
    return (read_routing(experts).get("training") or {}).get("answer_form") == "verification"


def _trained(experts: Path) -> dict[str, Any]:
    """What a results file says of experts, so that another's rows do not mix with theirs."""
    document = read_routing(experts)
    weights: Sequence[Path] = sorted(experts.rglob("*.safetensors"))
    found = hashlib.sha256(b"".join(hashlib.sha256(p.read_bytes()).digest() for p in weights))
    return {"fusion": document["fusion"], "weights": found.hexdigest()[:16]}


if __name__ == "__main__":
    run_command(main)
