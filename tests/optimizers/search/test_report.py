import json
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from routedk.errors import DataError
from routedk.eval.bootstrap import bootstrap
from routedk.eval.suite import BaselineData
from routedk.optimizers.search import drawing
from routedk.optimizers.search.budget import Budget
from routedk.optimizers.search.failure import TrialFailure
from routedk.optimizers.search.importance import flat_study, importances
from routedk.optimizers.search.page import settings_in_words
from routedk.optimizers.search.reading import (
    best_trials,
    complete_trials,
    dashboard_command,
    export_command,
    read_study,
)
from routedk.optimizers.search.report import write_report
from routedk.optimizers.search.retest import DEFAULT, retest
from routedk.optimizers.search.savings import savings
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.space import SearchSpace
from routedk.optimizers.search.study import StudySettings, run_study
from routedk.optimizers.search.testing import FastPipeline, small_sessions
from routedk.similarity.words import TfidfEncoder
from routedk.types import Bundle, Item, Session
from tests.optimizers.search.conftest import study_of

SPACE = SearchSpace(
    utilization="ICL", formats=["none", "rule"], strategy="random", enhancement="greedy"
)
REASON = "<script>alert('x')</script> & <b>more</b>"
OTHERS = TrialSettings(neighbours=3)
WORKER = {"place": "here", "pid": 1, "started": 0.0}


def trial(
    f1: float | None = None,
    tokens: float = 50.0,
    *,
    state: TrialState = TrialState.COMPLETE,
    params: Mapping[str, Any] | None = None,
    objectives: int = 2,
    **attrs: Any,
) -> FrozenTrial:
    """A trial as the objective leaves it, its settings those of the parameters."""
    params = dict(params or {"neighbours": 1})
    choices = {"neighbours": (0, 1, 2), "formats": ("none", "rule"), "ratio": (0.1, 1.0)}
    settings: dict[str, Any] = {"utilization": "ICL", "neighbours": 0, **params}
    if "formats" in params:
        settings["formats"] = [] if params["formats"] == "none" else [params["formats"]]
        settings["rules"] = 4 * bool(settings["formats"])
    own = {"settings": TrialSettings(**settings).to_dict(), "worker": WORKER, "seconds": 1.0}
    if f1 is not None:
        own |= {"f1": f1, "tokens": tokens}
    return create_trial(
        state=state,
        values=[f1, tokens][:objectives] if state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: CategoricalDistribution(choices[name]) for name in params},
        user_attrs={**own, **attrs},
    )


def part(stage: str, key: str, reused: bool, seconds: float) -> dict[str, Any]:
    return {"stage": stage, "key": key, "reused": reused, "seconds": seconds}


class Page(HTMLParser):
    """What a page names, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.named: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.named += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += f" {' '.join(data.split())}"


def read_page(folder: Path) -> Page:
    page = Page((folder / "report.html").read_text())
    assert page.tags & {"script", "link", "iframe", "object", "embed", "a"} == set()
    assert all(name.startswith("data:image/png;base64,") for name in page.named)
    source = (folder / "report.html").read_text()
    assert "http:" not in source
    assert "https:" not in source
    assert "url(" not in source
    return page


def test_what_is_said_of_a_study_that_was_run(url: str, tmp_path: Path) -> None:
    failed = 0

    def hook(settings: TrialSettings, place: int) -> None:
        nonlocal failed
        if place == 1 and settings.rules == 16:
            failed += 1
            raise TrialFailure(REASON)

    validation, test = small_sessions(4), small_sessions(9)
    run_study(
        FastPipeline(hook),
        validation,
        SPACE,
        StudySettings(name="mine", storage=url, sampler="random"),
        Budget(trials=14),
    )
    assert failed
    study = read_study("mine", url)
    best = best_trials(complete_trials(study), 2)
    assert len({str(one.user_attrs["settings"]) for one in best}) == 2
    tested = retest(best, FastPipeline(), test, seed=3, default=OTHERS)
    record = write_report(
        study,
        tmp_path / "out",
        best=best,
        tested=tested,
        config={"split": "test <i>"},
        dashboard=dashboard_command("mine", url),
        export=export_command("mine", best[0].number, url, "a store"),
    )
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == record
    states = {"complete": 14 - failed, "pruned": 0, "failed": failed, "cut": 0, "under_way": 0}
    assert record["trials"] == states
    assert [one["reason"] for one in record["failures"]] == [REASON] * failed

    # A session is answered with its gold, or as a whole: 1, or half of the items are right.
    every = {}
    for one in [*best, None]:
        settings = OTHERS if one is None else TrialSettings(**_settings(one))
        pipeline = FastPipeline()
        answers = list(pipeline.answers(pipeline.prepare(settings), test))
        every[one and one.number] = np.array(
            [1.0 if len(line["bundles"][0]["items"]) == 2 else 0.5 for _, line, _ in answers]
        )
    first = every[best[0].number]
    for one, line in zip([*best, None], tested, strict=True):
        (expected,) = bootstrap(every[one and one.number][:, None], np.ones((9, 1)), seed=3)
        assert line.f1.to_dict() == pytest.approx(expected.to_dict())
        if one is not best[0]:
            assert line.ahead is not None
            assert line.ahead.value == pytest.approx((first - every[one and one.number]).mean())
    assert tested[0].ahead is None
    assert [line.name for line in tested] == [*(f"trial {t.number}" for t in best), DEFAULT]
    found = record["best"][0]
    assert found["validation"]["f1"] == max(t.values[0] for t in complete_trials(study))
    assert found["test"]["results"]["matched"]["f1"]["value"] == pytest.approx(first.mean())
    assert found["test"]["counts"]["sessions"] == 9
    assert record["history"][-1]["best_f1"] == found["validation"]["f1"]
    assert {one["trial"] for one in record["front"]} == {t.number for t in study.best_trials}

    page = read_page(tmp_path / "out")
    assert REASON in page.text
    assert "split test <i>" in page.text
    assert f"optuna-dashboard {url}" in page.text
    assert f"export {best[0].number} --study mine --storage {url} --store 'a store'" in page.text
    assert "The configuration is chosen on validation" in page.text
    pictures = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert {"history", "front", "parallel"} <= pictures
    assert len(page.named) == len(pictures)

    # What optuna-dashboard does, without a line of RouteDK.
    alone = (
        "import sys, optuna\n"
        f"study = optuna.load_study(study_name='mine', storage={url!r})\n"
        "assert not any(name.startswith('routedk') for name in sys.modules)\n"
        "print(len(study.trials), len(study.best_trials))\n"
    )
    said = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["14", str(len(study.best_trials))]


def _settings(one: FrozenTrial) -> dict[str, Any]:
    settings: dict[str, Any] = one.user_attrs["settings"]
    return settings


def test_a_study_without_a_trial(tmp_path: Path) -> None:
    study = study_of([], ["maximize", "minimize"])
    record = write_report(study, tmp_path, best=[])
    assert (record["best"], record["front"], record["history"]) == ([], [], [])
    assert record["importances"] == {"f1": None, "tokens": None}
    assert record["store"]["share_saved"] == 0
    page = read_page(tmp_path)
    assert "No trial is complete" in page.text
    assert "routedk search export" not in page.text
    assert page.named == []


def test_one_objective_with_pruned_and_cut_trials(tmp_path: Path) -> None:
    trials = [
        trial(0.5, objectives=1),
        trial(0.2, state=TrialState.PRUNED, objectives=1),
        trial(state=TrialState.FAIL, failure="the loss is nan"),
        trial(state=TrialState.FAIL),
        trial(0.7, objectives=1, params={"neighbours": 2}),
    ]
    study = study_of(trials, ["maximize"])
    best = best_trials(complete_trials(study), 5)
    record = write_report(study, tmp_path, best=best)
    states = {"complete": 2, "pruned": 1, "failed": 1, "cut": 1, "under_way": 0}
    assert record["trials"] == states
    assert [one["trial"] for one in record["best"]] == [4, 0]
    assert record["front"] is None
    assert [(line["trial"], line["best_f1"]) for line in record["history"]] == [(0, 0.5), (4, 0.7)]
    assert list(record["importances"]) == ["f1"]
    assert [(one["trial"], one["reason"]) for one in record["failures"]] == [
        (2, "the loss is nan"),
        (3, None),
    ]
    page = read_page(tmp_path)
    assert "Pareto" not in page.text
    assert "cut short: its worker was killed" in page.text
    assert "Nothing here was measured on the test split" in page.text
    assert not (tmp_path / "front.png").exists()


def test_no_line_is_as_light_as_the_paper() -> None:
    trials = [trial(f1, params={"neighbours": place % 3}) for place, f1 in enumerate((0.1, 0.5, 1))]
    flat = flat_study(study_of(trials, ["maximize", "minimize"]).trials, {}, "f1")
    with drawing._quiet_pyplot() as plt:
        axes = drawing._parallel(flat, ["neighbours"])
        (lines,) = axes.collections
        colours = lines.to_rgba(lines.get_array())[:, :3]
        plt.close(axes.figure)
    # Relative luminance and contrast with white as WCAG 2 defines them.
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    contrast = 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    assert contrast.min() > 2.5
    # The best stands out the most.
    assert contrast.argmax() == lines.get_array().argmax()


def test_the_best_are_of_other_settings_and_cheap() -> None:
    trials = [
        trial(0.7, 90, params={"neighbours": 2}),
        trial(0.7, 80),
        trial(0.9, 99, params={"neighbours": 0}),
        trial(0.7, 80),
    ]
    study = study_of(trials, ["maximize", "minimize"])
    assert [one.number for one in best_trials(study.trials, 9)] == [2, 1, 0]
    assert [one.number for one in best_trials(study.trials, 1)] == [2]


def test_time_saved_by_hand() -> None:
    trials = [
        trial(0.1, parts=[part("knowledge", "k", False, 10.0)], seconds=12.0),
        trial(
            0.1,
            parts=[
                part("knowledge", "k", True, 10.0),
                {**part("expert", "e", True, 30.0), "waited": 25.0},
            ],
            seconds=27.0,
        ),
        trial(
            0.1,
            parts=[part("expert", "e", True, 30.0), part("program", "p", False, 1.0)],
            seconds=3.0,
            worker={**WORKER, "pid": 2},
        ),
        create_trial(state=TrialState.FAIL, user_attrs={"worker": WORKER}),
    ]
    found = savings(trials)
    # 17 seconds of work; 70 were not spent, 30 of them since the expert was there before.
    assert found.waited == 25.0
    assert (found.seconds, found.saved, found.saved_before) == (17.0, 70.0, 30.0)
    assert found.share == pytest.approx(70 / 87)
    assert found.share_within == pytest.approx(40 / 87)
    assert (found.untimed, found.workers) == (1, 2)
    assert found.to_dict()["stages"] == {
        "expert": {"made": 0, "reused": 2, "saved_seconds": 60.0},
        "knowledge": {"made": 1, "reused": 1, "saved_seconds": 10.0},
        "program": {"made": 1, "reused": 0, "saved_seconds": 0.0},
    }


def test_what_decides_is_important() -> None:
    asked = [
        {"formats": formats, "neighbours": neighbours}
        | ({"ratio": 0.1} if formats == "rule" else {})
        for formats in ("none", "rule")
        for neighbours in (1, 2)
        for _ in range(5)
    ]
    trials = [trial(0.9 if one["formats"] == "rule" else 0.1, params=one) for one in asked]
    flat = flat_study(trials, SPACE.model_dump(mode="json"), "f1")
    assert [one.params for one in flat.trials] == asked
    found = importances(flat)
    assert found is not None
    assert sum(found.values()) == pytest.approx(1)
    assert next(iter(found)) == "formats"
    assert found["formats"] > 0.99
    # All the same: nothing tells the best apart. Nine: too few.
    assert importances(flat_study(trials, {}, "tokens")) is None
    assert importances(flat_study(trials[6:15], {}, "f1")) is None


def test_a_dimension_has_one_name_whatever_can_be() -> None:
    one = trial(0.5, params={"neighbours": 1})
    other = create_trial(
        values=[0.5, 1.0],
        params={"neighbours without 0": 2},
        distributions={"neighbours without 0": CategoricalDistribution((1, 2))},
        user_attrs={**one.user_attrs, "settings": {**_settings(one), "neighbours": 2}},
    )
    flat = flat_study([one, other], {"neighbours": [0, 2, 1]}, "f1")
    assert [found.params for found in flat.trials] == [{"neighbours": 1}, {"neighbours": 2}]
    assert flat.trials[0].distributions["neighbours"] == CategoricalDistribution((2, 1))


def test_baselines_stand_beside() -> None:
    words = ("red lamp", "red lamps", "blue pan", "blue pans")
    items = tuple(Item(str(place), title) for place, title in enumerate(words))
    sessions = [Session(f"s{k}", items, (Bundle(("0", "1"), ""),)) for k in range(4)]
    data = BaselineData(
        catalogue=sessions,
        validation=sessions[:1],
        encoder=TfidfEncoder(words),
        training=sessions[1:2],
    )
    tested = retest(
        study_of([trial(0.5)], ["maximize", "minimize"]).trials,
        FastPipeline(),
        sessions[2:],
        seed=0,
        baselines=data,
        default=OTHERS,
    )
    names = ["trial 0", DEFAULT, "embedding-clusters", "pair-clusters"]
    assert [line.name for line in tested] == names
    assert tested[2].tokens is None
    with pytest.raises(DataError, match="none of the 1 test sessions has gold bundles"):
        retest([], FastPipeline(), [Session("s", items)], seed=0)


def test_settings_in_words() -> None:
    settings = TrialSettings(formats=("rule", "thought"), neighbours=1, rules=4)
    assert settings_in_words(settings.to_dict()) == (
        "formats rule+thought, strategy random, ratio 1.0, utilization ICL, neighbours 1, "
        "rules 4, enhancement greedy"
    )
    assert settings_in_words(TrialSettings().to_dict()) == (
        "formats none, strategy random, ratio 1.0, utilization ICL, enhancement greedy"
    )
    assert settings_in_words(None) == ""
