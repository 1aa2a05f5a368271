from pathlib import Path

import numpy as np
import pytest

from routedk.errors import SettingError
from routedk.similarity.encoders import _folder, default_encoder
from routedk.similarity.named_encoders import check_encoder, named_encoder


def test_the_default_is_the_one_that_all_share() -> None:
    assert named_encoder() is named_encoder("minilm") is default_encoder()


def test_a_folder_is_a_model_of_its_own_and_loaded_once() -> None:
    folder = _folder(default_encoder().model)
    encoder = named_encoder(folder)
    assert named_encoder(folder) is encoder
    assert encoder is not default_encoder()
    titles = ["red kettle", "usb cable"]
    same = default_encoder().encode(titles)
    assert np.allclose(encoder.encode(titles), same, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no such folder"),
        ("a/b/c", "no such folder"),
        ("some/model", "not in the Hugging Face cache, and HF_HUB_OFFLINE"),
        ("x..y", "not in the Hugging Face cache"),
    ],
)
def test_what_cannot_be_a_model_is_refused(name: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        check_encoder(name)
    assert str(caught.value).startswith(f"{name!r} is no sentence-transformers model")


def test_weights_are_safetensors(tmp_path: Path) -> None:
    """A model whose weights are a pickle is not loaded."""
    source = Path(_folder(default_encoder().model))
    for path in source.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            copy = tmp_path / path.relative_to(source)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(SettingError, match=r"cannot be loaded: .*model\.safetensors"):
        named_encoder(str(tmp_path)).encode(["kettle"])
