"""The main job end to end, on the tiny student: every part is the real part, only small."""

from pathlib import Path

import pytest

from routedk.adapters import student as student_module
from routedk.cli.demo_steps import Demo, DemoSettings
from routedk.files import read_json

SETTINGS = DemoSettings(
    epochs=0.5, knowledge_share=0.1, router_share=0.1, evaluations=2, validation=3
)


def _shrink(demo: Demo) -> None:
    for part, count in (("train", 16), ("val", 6), ("test", 4)):
        demo.parts[part] = demo.parts[part][:count]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


def test_the_demo_runs_and_a_second_run_reuses_it(
    folder: Path, student_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student_module, "find_student", lambda name, **_: student_folder)
    said: list[str] = []
    demo = Demo(folder, SETTINGS, said.append)
    _shrink(demo)
    demo.run()
    assert said == [
        f"{n}/4 {name} ..." for n, name in enumerate(["distil", "train", "compile", "predict"], 1)
    ]
    report = demo.report()
    assert report.system is not None
    assert report.system.name == "routed student"
    names = [system.name for system in report.baselines]
    assert names[-1] == "base model, zero-shot"
    assert "embedding-clusters" in names
    assert read_json(demo.result)["counts"]["sessions"] > 0  # type: ignore[index]
    assert demo.experts.joinpath("loss.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.glob(".*work/*"))

    said.clear()
    Demo(folder, SETTINGS, said.append).run()
    assert all("done before" in line for line in said)

    said.clear()
    (folder / "program.json").unlink()
    again = Demo(folder, SETTINGS, said.append)
    _shrink(again)
    again.run()
    assert ["done before" in line for line in said] == [True, True, False, False]
