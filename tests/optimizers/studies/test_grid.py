from itertools import product
from pathlib import Path

import pytest

from routedk.errors import DataError, SettingError
from routedk.optimizers.search.space import TrialSettings
from routedk.optimizers.studies import StudyGrid, read_grid

BUDGETS = "[budget.small]\n[budget.full]\n"


def test_kd_has_every_combination_that_differs() -> None:
    systems = read_grid("kd").of("full")
    samples = {("random", 1.0)} | {
        (strategy, ratio)
        for strategy in ("random", "length", "diversity", "difficulty")
        for ratio in (0.1, 0.3)
    }
    every = {
        tuple(f for f, used in zip(("pattern", "rule", "thought"), chosen, strict=True) if used)
        for chosen in product((False, True), repeat=3)
    } - {()}
    # No expert learns from patterns: under SFT they make no difference.
    learnt = {formats for formats in every if "pattern" not in formats}
    wanted = {
        (utilization, formats, *sample)
        for utilization, sets in (("ICL", every), ("SFT", learnt), ("SFT+ICL", every))
        for formats in sets
        for sample in samples
    }
    wanted |= {("ICL", (), "random", 1.0), ("SFT", (), "random", 1.0)}  # to compare with
    found = [(one.utilization, one.formats, one.strategy, one.ratio) for one in systems.values()]
    assert len(found) == len(wanted)
    assert {*found} == wanted


def test_what_a_system_of_kd_learns_and_shows() -> None:
    systems = read_grid("kd").of("full")
    both = systems["SFT+ICL, pattern+rule+thought, difficulty 0.1"]
    assert (both.experts, both.fusion) == (("base", "mixed"), "single:mixed")
    assert (both.rules, both.neighbours, both.epochs) == (3, 1, 3.0)
    shown = systems["ICL, rule, all"]
    assert (shown.experts, shown.r, shown.rules, shown.neighbours) == (None, None, 3, 0)
    alone = systems["SFT+ICL, pattern, all"]
    assert (alone.experts, alone.fusion, alone.rules) == (("base",), "single:base", 0)
    assert {one.ratio for one in systems.values()} == {0.1, 0.3, 1.0}


def test_the_small_kd_asks_every_question() -> None:
    grid = read_grid("kd")
    small = grid.of("small")
    assert len(small) == 27
    assert small.keys() <= grid.of("full").keys()
    assert grid.values("small", "formats") == grid.values("full", "formats")
    assert grid.values("small", "strategy") == grid.values("full", "strategy")
    assert grid.values("small", "ratio") == [0.1, 1.0]


def test_routedk_compares_systems_that_it_has() -> None:
    grid = read_grid("routedk")
    systems = grid.of("small")
    assert systems["routed, without base"].experts == ("rule", "thought")
    assert systems["AICL"] == TrialSettings(utilization="AICL")
    assert systems["routed"].epochs == 2.0
    assert systems["student, zero-shot"] == TrialSettings(utilization="ICL")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'title = "t"\n{BUDGETS}', "budget.small: there is no system"),
        ('title = "t"\n[systems.a]\n[budget]', "budget"),
        (f'title = "t"\n[systems.a]\nutilization = "RAG"\n{BUDGETS}', "systems.a.utilization.*RAG"),
        (f'title = "t"\n[systems.a]\nutilization = ["ICL"]\n{BUDGETS}', "systems.a.utilization"),
        (f'title = "t"\n[systems.a]\nformats = 3\n{BUDGETS}', "systems.a.formats"),
        (f'title = "t"\n[systems.a]\nratio = 5\n{BUDGETS}', "systems.a.ratio"),
        (f'title = "t"\n[systems.a]\nrank = 3\n{BUDGETS}', "systems.a.rank"),
        (f'title = "t"\n[systems.a]\nr = 3\n{BUDGETS}', "r: of no use under utilization ICL"),
        (f'title = "t"\n[systems.a]\nutilization = "SFT"\n{BUDGETS}', "trains some, say which"),
        (
            f'title = "t"\n[systems.a]\nutilization = "SFT"\nexperts = "base+rule"\n{BUDGETS}',
            "rule is not among the formats",
        ),
        (
            f'title = "t"\n[systems.a]\nutilization = "AICL"\nrules = 2\n{BUDGETS}',
            "rules: of no use",
        ),
        (f'title = "t"\n[systems.a]\nformats = ["rule", "rule"]\n{BUDGETS}', "each once"),
        (f'title = "t"\n[systems.teacher]\n{BUDGETS}', "'teacher' cannot be the name"),
        (f'title = "t"\ncompare = [["a", "b"]]\n[systems.a]\n{BUDGETS}', "'b' is neither"),
        (f'title = "t"\n[vary]\n[systems."ICL, no knowledge, all"]\n{BUDGETS}', "of vary, too"),
        (f'title = "t"\n[settings]\nratio = 1\n[systems.a]\n{BUDGETS}', "settings.ratio"),
        (f'title = "t"\n[vary]\nformats = ["idea"]\n{BUDGETS}', "idea"),
        (f'title = "t"\n[systems.a]\n{BUDGETS}[budget.tiny]', "tiny"),
        ('title = "t"\n[systems.a]\n[budget.small]\ntest = true', "budget.small.test"),
        ('title = "t"\n[systems.a]\n[budget.small]\ntest = "4"', "budget.small.test"),
        ('title = "t"\n[systems.a]\n[budget.small.vary]\nratio = [0.5]', r"a table \[vary\]"),
        (f'title = "t"\n[vary]\nformats = ["rule"]\n{BUDGETS}', "set rules and neighbours"),
        (
            f'title = "t"\n[systems.a]\n{BUDGETS}[settings]\nrules = 2\n'
            '[systems.b]\nformats = "rule+thought"',
            "'b' shows knowledge",
        ),
        (f'title = "t"\ncompare = [["a", "a"]]\n[systems.a]\n{BUDGETS}', "'a' is compared with"),
        (
            f'title = "t"\n[vary]\n{BUDGETS}[[questions]]\ntitle = "q"\ndimension = "ratio"\n'
            'by = "ratio"',
            "'q' compares a dimension by itself",
        ),
    ],
)
def test_a_grid_that_is_wrong_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        read_grid(path)
    assert str(path) in str(raised.value)


def test_a_grid_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        'title = "t"\n[settings]\nrules = 1\n[vary]\nformats = ["none", "rule"]\n'
        "ratio = [0.5, 1.0]\n[budget.small]\n"
        '[systems.mine]\nutilization = "SFT"\nformats = "rule+thought"\nexperts = "base+mixed"\n'
    )
    grid = read_grid(path)
    assert isinstance(grid, StudyGrid)
    assert [*grid.of("small")] == [
        "mine",
        "ICL, no knowledge, all",
        "ICL, rule, random 0.5",
        "ICL, rule, all",
    ]
    assert grid.systems["mine"].experts == ("base", "mixed")
    with pytest.raises(SettingError, match="budget=full: the grid has small"):
        grid.of("full")
