"""BundleRec's figures as the design states them: the whole session exactly, clusters to .02."""

from pathlib import Path

import pytest

from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.eval import EvaluateConfig, System, evaluate


def figures(folder: Path, options: DataOptions) -> dict[str, System]:
    """The baselines on the test split."""
    sessions = load_sessions(folder, options)
    parts = split_sessions(sessions, options)
    report = evaluate(
        parts["test"],
        config=EvaluateConfig(baselines=True, resamples=20),
        training=parts["train"],
        validation=parts["val"],
        catalogue=sessions,
    )
    return {system.name: system for system in report.baselines}


def value(system: System, protocol: str, metric: str) -> float:
    return system.results[protocol][metric].value


def aicl(system: System) -> list[float]:
    """Precision, recall and coverage."""
    return [value(system, "aicl", metric) for metric in ("precision", "recall", "coverage")]


@pytest.fixture(scope="module")
def electronic(bundlerec: Path) -> dict[str, System]:
    folder = bundlerec / "electronic"
    options = DataOptions(
        extra_titles=folder / "item_titles_extra.csv", split_file=folder / "split_aicl.json"
    )
    return figures(folder, options)


def test_whole_session(electronic: dict[str, System]) -> None:
    system = electronic["whole-session"]
    assert system.counts.sessions == 180
    assert aicl(system) == pytest.approx([0.261, 0.261, 1.0], abs=5e-4)
    assert value(system, "matched", "f1") == pytest.approx(0.556, abs=5e-4)


def test_all_pairs_show_what_aicl_rewards(electronic: dict[str, System]) -> None:
    assert value(electronic["all-pairs"], "aicl", "recall") == pytest.approx(4.7, abs=0.05)
    assert value(electronic["all-pairs"], "matched", "f1") < 0.3


def test_title_clusters(electronic: dict[str, System]) -> None:
    system = electronic["title-clusters"]
    assert aicl(system) == pytest.approx([0.618, 0.691, 0.796], abs=0.02)
    assert value(system, "matched", "f1") == pytest.approx(0.631, abs=0.02)


def test_embedding_clusters(electronic: dict[str, System]) -> None:
    system = electronic["embedding-clusters"]
    assert aicl(system) == pytest.approx([0.510, 0.619, 0.849], abs=0.02)
    assert value(system, "matched", "f1") == pytest.approx(0.639, abs=0.02)


def test_dropping_untitled_items_leaks(bundlerec: Path) -> None:
    folder = bundlerec / "electronic"
    options = DataOptions(untitled="drop", split_file=folder / "split_aicl.json")
    systems = figures(folder, options)
    assert value(systems["whole-session"], "matched", "f1") == pytest.approx(0.631, abs=5e-4)
    assert value(systems["category-2"], "matched", "f1") == pytest.approx(0.723, abs=0.02)


def test_clothing(bundlerec: Path) -> None:
    options = DataOptions(untitled="drop")
    systems = figures(bundlerec / "clothing", options)
    assert value(systems["embedding-clusters"], "matched", "f1") == pytest.approx(0.710, abs=0.02)
