"""Trains a grouping: the encoder, and the models fitted on sessions it was not trained on."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from accelerate import PartialState
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from tqdm.auto import tqdm

from routedk.adapters.grouping.pair_trainer import PairEncoder, PairSettings, train_pairs
from routedk.errors import DataError
from routedk.files import write_json
from routedk.programs.grouping.decision import Decision, Scored, fit_decision
from routedk.programs.grouping.encoder import RECORD, VERSION
from routedk.programs.grouping.kinds import Kinds, fit_kinds
from routedk.programs.grouping.titles import (
    HEADS,
    LORA,
    MAX_TOKENS,
    Familiarity,
    KnownIntents,
    embed,
    mean_title,
    weights_hashes,
)
from routedk.programs.labels import (
    Labelled,
    bundle_places,
    compose_sessions,
    telling_items,
    titles_of,
)
from routedk.programs.prompting.item_intents import clean_intent
from routedk.programs.prompting.naming import labelled_parts

_FOLDS = 3
# With fewer sessions, training a fold takes less time than starting a process.
_WORTH_PROCESSES = 100
_COMPOSED = 0.1
_CENTERS = 64
# The quantile of the training titles' nearness to a center that still counts as usual.
_UNUSUAL = 0.05

# The embeddings of a session's titles, and the logits of its pairs.
Reading = tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]
Rows = dict[str, "np.ndarray[Any, np.dtype[np.float64]]"]


def fit_grouping(
    labelled: Sequence[Labelled],
    settings: PairSettings,
    out: Path | None,
) -> None:
    """Train a grouping and write it as `EncoderGrouping.load` reads it.

    An encoder fits the labels of sessions that it was trained on better than those of others. So
    three encoders are each trained without a third of the sessions, and the choice among groupings,
    the confidence and the kinds are fitted on how they read that third. The encoder that is kept is
    then trained on all sessions, for the mean of the three best numbers of epochs.

    Args:
        labelled: Training sessions. Items are left out if their titles do not say what they are,
            as when a session is answered. If no session is labelled as empty, some are composed of
            items that nobody looked at together.
        settings: How the encoder is trained.
        out: An existing folder; None if another process writes.

    Raises:
        DataError: There are too few sessions, or none of them holds a bundle.
    """
    lessons = telling_items(labelled)
    if len(lessons) < _FOLDS or not any(bundles for one in lessons for bundles, _ in one.labels):
        raise DataError(
            f"{len(lessons)} labelled sessions have two items with titles that say what they are, "
            "or none of these holds a bundle: too few to learn a grouping from",
            hint="give more sessions, or use the packaged bundler",
        )
    if all(bundles for one in lessons for bundles, _ in one.labels):
        count = round(_COMPOSED * len(lessons))
        lessons += compose_sessions([one.session for one in lessons], count, settings.seed)
    random.Random(settings.seed).shuffle(lessons)
    scored: list[Scored] = []
    kinds: list[Any] = []
    epochs = []
    for fold, (best, read) in enumerate(held_out_readings(lessons, settings)):
        epochs.append(best)
        for one, (titles_ND, logits_NN) in zip(lessons[fold::_FOLDS], read, strict=True):
            for bundles, weight in one.labels:
                places = bundle_places(one.session, bundles)
                scored.append(Scored(logits_NN, places, weight))
                for bundle, mine in zip(bundles, map(sorted, places), strict=True):
                    if bundle.kind:
                        titles = [one.session.items[k].title for k in mine]
                        kinds.append((titles, titles_ND[mine], bundle.kind, weight))
    settings = replace(settings, epochs=max(1.0, float(np.mean(epochs))))
    model, _ = train_pairs(lessons, settings)
    decision = fit_decision(scored)
    if out is not None:
        rows = _embeddings(model, titles_of(lessons))
        titles_ND = torch.stack([*rows.values()]).double().cpu().numpy()
        known = known_intents(lessons, dict(zip(rows, titles_ND, strict=True)))
        _save(model, decision, fit_kinds(kinds), _familiarity(titles_ND), known, lessons, out)


def held_out_readings(
    lessons: Sequence[Labelled], settings: PairSettings
) -> Iterator[tuple[float, list[Reading]]]:
    """Train an encoder without each fold in turn, and read that fold's sessions with it.

    Training keeps only one CPU core busy: if there are several, folds are trained at the same time,
    in separate processes.

    Yields:
        For each fold, the best number of epochs and its sessions as `read_sessions` returns them.
    """
    alone = (
        torch.cuda.is_available()
        or PartialState().num_processes > 1
        or len(lessons) < _WORTH_PROCESSES
    )
    jobs = 1 if alone else min(_FOLDS, joblib.cpu_count())
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator", idle_worker_timeout=5)
    tasks = (joblib.delayed(_held_out)(lessons, settings, fold) for fold in range(_FOLDS))
    yield from tqdm(parallel(tasks), desc="grouping, held out", total=_FOLDS, disable=None)


def _held_out(
    lessons: Sequence[Labelled], settings: PairSettings, fold: int
) -> tuple[float, list[Reading]]:
    unseen = lessons[fold::_FOLDS]
    seen = [one for place, one in enumerate(lessons) if place % _FOLDS != fold]
    model, best = train_pairs(seen, settings, unseen)
    return best, read_sessions(model, unseen)


def read_sessions(model: PairEncoder, labelled: Sequence[Labelled]) -> list[Reading]:
    """For each session, the embeddings of its titles and the logits of its pairs as a matrix."""
    rows = _embeddings(model, titles_of(labelled))
    found = []
    with torch.inference_mode():
        for one in labelled:
            titles_ND = torch.stack([rows[item.title] for item in one.session.items])
            count = len(titles_ND)
            logits, upper = np.zeros((count, count)), np.triu_indices(count, k=1)
            logits[upper] = logits.T[upper] = model.head(titles_ND).double().cpu().numpy()
            found.append((titles_ND.double().cpu().numpy(), logits))
    return found


def _embeddings(model: PairEncoder, titles: Sequence[str]) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return dict(zip(titles, embed(model.encoder, titles), strict=True))


def known_intents(
    labelled: Sequence[Labelled], rows: Mapping[str, "np.ndarray[Any, Any]"]
) -> KnownIntents | None:
    """Collect the intents of labelled bundles; None if no bundle has one.

    Args:
        labelled: The sessions that were trained on.
        rows: The embedding of each of their titles.
    """
    intents, bundles = [], []
    for part in labelled_parts(session for one in labelled for session in one.sessions):
        (bundle,) = part.bundles or ()
        intents.append(clean_intent(bundle.intent))
        bundles.append(mean_title(np.stack([rows[item.title] for item in part.items])))
    return KnownIntents(intents, np.stack(bundles)) if intents else None


def _familiarity(rows: "np.ndarray[Any, Any]") -> Familiarity:
    from sklearn.cluster import KMeans

    means = KMeans(min(_CENTERS, len(rows)), n_init=1, random_state=0).fit(rows).cluster_centers_
    centers = means / np.linalg.norm(means, axis=1, keepdims=True)
    near = (rows @ centers.T).max(axis=1)
    return Familiarity(centers, float(np.quantile(near, _UNUSUAL)))


def _save(
    model: PairEncoder,
    decision: Decision,
    kinds: Kinds | None,
    familiarity: Familiarity,
    intents: KnownIntents | None,
    lessons: Sequence[Labelled],
    out: Path,
) -> None:
    """Write a grouping: the encoder's LoRA, the small models, and how it was trained."""
    settings = model.settings
    lora = {
        f"base_model.model.{name}": tensor.detach().cpu().to(torch.float16).contiguous()
        for name, tensor in model.encoder.get_adapter_state_dict().items()
    }
    save_file(lora, out / LORA, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "r": settings.r,
        "lora_alpha": 2 * settings.r,
        "target_modules": "all-linear",
        "base_model_name_or_path": settings.encoder,
        "inference_mode": True,
    }
    write_json(out / "adapter_config.json", config)
    heads: Rows = {
        f"pairs.{name}": np.atleast_1d(tensor.detach().double().cpu().numpy())
        for name, tensor in model.head.state_dict().items()
    }
    linear = {"f1": decision.f1, "empty": decision.empty, "jaccard": decision.jaccard}
    for name, model_ in {**linear, **({"kinds": kinds.model} if kinds else {})}.items():
        heads[f"{name}.weight"], heads[f"{name}.bias"] = model_.weight, model_.bias
    heads["titles.centers"] = familiarity.centers
    arrays = {k: np.ascontiguousarray(v, np.float32) for k, v in heads.items()}
    if intents is not None:
        arrays["intents.bundles"] = np.ascontiguousarray(intents.bundles, np.float16)
    save_arrays(arrays, out / HEADS)
    record = {
        "version": VERSION,
        "encoder": settings.encoder,
        "max_tokens": MAX_TOKENS,
        "kinds": kinds is not None,
        "empty_above": decision.empty_above,
        "usual": familiarity.usual,
        "intents": intents.intents if intents else [],
        "weights": weights_hashes(out),
        "training": {
            "sessions": len(lessons),
            "labelled_empty": sum(not bundles for one in lessons for bundles, _ in one.labels),
            "gold": sum(one.gold is not None for one in lessons),
            "teacher": sum(one.teacher is not None for one in lessons),
            "settings": asdict(settings),
        },
    }
    write_json(out / RECORD, record)
