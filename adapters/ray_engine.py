"""`answers_on_ray`: sessions answered by a pool of Ray actors, batch by batch.

The driver reads the sessions and writes the answers, so only it needs the data and the output;
each actor loads program and student once. An answered batch is one part of the output.
"""

import hashlib
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from routedk import __version__
from routedk.adapters.answer_parts import UNREAD, add_part, sole_writer, stored
from routedk.adapters.answering import GenerateConfig, answering
from routedk.checks import check_least
from routedk.data.records import session_to_record
from routedk.errors import MissingExtraError, RouteDKError, SettingError, one_line
from routedk.eval.predictions import prediction_record, write_part
from routedk.files import open_file
from routedk.rules import BundleRules, read_rules
from routedk.types import Answer, Item, Session

Ask = Callable[[Session], Answer]
# If at least this many sessions all fail, the sessions are not to blame.
_ALIKE = 8
_RETRIES = 3


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """How engine ray distributes its work.

    Args:
        address: A running Ray cluster, e.g. auto; local starts Ray on this machine. Unset: the
            cluster of RAY_ADDRESS or ray start, else Ray is started on this machine.
        actors: Processes that each load program and student. Unset: as many as there is room for.
        num_cpus: CPU cores of each actor, and the threads that it computes with.
        num_gpus: GPUs of each actor; 0.5 lets two share one. Unset: 1 if there are any, else 0.
        batch_size: Sessions per batch: one part of the output, and what a killed actor repeats.

    Raises:
        SettingError: A value is not allowed.
    """

    address: str | None = None
    actors: int | None = None
    num_cpus: int = 1
    num_gpus: float | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        check_least(self, actors=1, num_cpus=1, num_gpus=0, batch_size=1)


def answers_on_ray(
    sessions: Iterable[Session | Answer],
    output: str | Path,
    config: GenerateConfig | None = None,
    *,
    ray: RayConfig | None = None,
    rules: BundleRules | None = None,
    made_with: Mapping[str, Any] | None = None,
    load: Callable[[], Ask] | None = None,
) -> Iterator[tuple[str, str]]:
    """Answer sessions on Ray, into a folder of Parquet parts; repeating the call resumes it.

    Args:
        sessions: What to answer; ids must be distinct. An `Answer` among them stands for a session
            that could not be read. All are taken before the first is answered, and held by Ray, on
            disk if memory does not suffice.
        output: The folder.
        config: Settings; None for the defaults.
        ray: Settings of Ray; None for the defaults.
        rules: The catalogue's rules, instead of ``config.rules``.
        made_with: What else must be the same whenever the job is resumed, JSON-serializable.
        load: Makes the function that answers a session, once per actor, instead of the config; Ray
            pickles it.

    Yields:
        The id and the error (empty if none) of each session in the output; first those answered by
        earlier runs, otherwise in no order.

    Raises:
        SettingError: A setting is not allowed, or the folder was made with another one.
        ArtifactError: The folder holds something else, or another run is writing to it.
        MissingExtraError: Ray is not installed.
        RouteDKError: Ray failed; what is in the folder is kept.
    """
    config, ray = config or GenerateConfig(), ray or RayConfig()
    if rules is None and config.rules is not None:
        rules = read_rules(config.rules)
    identity = {**_identity(config, rules), **(made_with or {})}
    actor = load or partial(_load, config, rules), config.threads, ray.num_cpus
    folder, cluster = Path(output), _connected(ray.address)
    with sole_writer(folder, identity):
        done = set()
        for name, error in stored(folder):
            done.add(name)
            yield name, error
        unread: list[Answer] = []

        def left() -> Iterator[Session]:
            for one in sessions:
                if isinstance(one, Answer):
                    unread.append(one)
                elif one.id not in done:
                    yield one

        some = left()
        batches = iter(lambda: [*islice(some, ray.batch_size)], [])
        blocks = [cluster.put(_block(map(session_to_record, batch))) for batch in batches]
        unread[:] = [one for one in unread if one.session_id not in done]
        write_part(folder / UNREAD, map(prediction_record, unread))
        yield from ((one.session_id, one.error) for one in unread)
        for records in _answered(cluster, blocks, ray, actor) if blocks else ():
            if kept := [one for one in records if not one.get("failed")]:
                add_part(folder, kept)
            if failed := [one for one in records if one.get("failed")]:
                # Retried by the next run, like those that could not be read.
                unread += [Answer(one["session_id"], error=one["error"]) for one in failed]
                write_part(folder / UNREAD, map(prediction_record, unread))
            yield from ((one["session_id"], one.get("error", "")) for one in records)


def _answered(
    cluster: Any, blocks: list[Any], ray: RayConfig, actor: tuple[Any, ...]
) -> Iterator[list[dict[str, Any]]]:
    """The predictions of each batch, as soon as it is answered."""
    cpus, gpus = (cluster.cluster_resources().get(name, 0) for name in ("CPU", "GPU"))
    num_gpus = float(gpus > 0) if ray.num_gpus is None else ray.num_gpus
    actors = ray.actors or int(min(cpus / ray.num_cpus, gpus / num_gpus if num_gpus else cpus))
    if not actors:
        raise SettingError(
            f"num_cpus={ray.num_cpus}, num_gpus={num_gpus:g}: the cluster has {cpus:g} and "
            f"{gpus:g}: ask for less, or say how many actors there will be room for"
        )
    data = cluster.data.from_arrow_refs(blocks)
    settings = data.context
    settings.enable_progress_bars = False
    settings.retried_map_errors, settings.max_map_retries = True, _RETRIES
    settings.max_consecutive_actor_init_deaths = _RETRIES
    # A batch may take longer than Ray's default half hour, and so may growing a cluster.
    settings.execution_no_progress_timeout_s = -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cluster.util.annotations.RayDeprecationWarning)
        data = data.map_batches(
            _Actor,
            fn_constructor_args=actor,
            compute=cluster.data.ActorPoolStrategy(size=min(actors, len(blocks))),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=ray.num_cpus,
            num_gpus=num_gpus,
            # Unlimited by default: a batch that kills its actor would be retried forever.
            max_task_retries=_RETRIES,
        )
    try:
        for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            records = [json.loads(text) for text in table["json"].to_pylist()]
            if failure := records[0].get("failure"):
                raise SettingError(failure)
            yield records
    except cluster.exceptions.RayError as error:
        # The first of the tracebacks in it ends with the cause.
        cause = re.search(r"^[\w.]*(?:Error|Exception): .+", str(error), re.MULTILINE)
        reason = one_line(cause[0] if cause else str(error), 150)
        hint = "answered batches are kept; fix the cause and run the same command again"
        raise RouteDKError(f"engine ray: {reason} ({hint})") from error


class _Actor:
    """Answers batches of sessions; the function that answers them is loaded with the first one.

    Args:
        load: Makes that function.
        threads: Sessions in progress at once.
        cores: Cores to compute with. Ray itself sets this only if no OpenMP variable does.
    """

    def __init__(self, load: Callable[[], Ask], threads: int, cores: int) -> None:
        self._load, self._threads, self._cores = load, threads, cores
        self._ask: Ask | None = None

    def __call__(self, batch: Any) -> Any:
        """Return the predictions of a batch, or the reason why no batch can be answered."""
        from routedk.programs.batch import call_all

        try:
            if self._ask is None:
                self._ask = self._load()
                if (torch := sys.modules.get("torch")) is not None:
                    torch.set_num_threads(self._cores)
            sessions = [_session(json.loads(text)) for text in batch["json"].to_pylist()]
            found = call_all(partial(_attempt, self._ask), sessions, num_threads=self._threads)
        except RouteDKError as error:  # Ray retries what is raised.
            return _block([{"failure": str(error)}])
        errors = [error for _, error in found if error is not None]
        if len(errors) == len(found) >= _ALIKE:
            raise errors[0]
        return _block(
            prediction_record(answer) | ({} if error is None else {"failed": True})
            for answer, error in found
        )


def _attempt(ask: Ask, session: Session) -> tuple[Answer, Exception | None]:
    """The answer and None; if asking fails, an answer that holds the error, and the error."""
    try:
        return ask(session), None
    except SettingError:
        raise
    except Exception as error:
        return Answer(session.id, error=one_line(f"{type(error).__name__}: {error}")), error


def _load(config: GenerateConfig, rules: BundleRules | None) -> Ask:
    ask, _ = answering(config, rules=rules)
    return lambda session: config.shown(ask(session))


def _block(records: Iterable[Mapping[str, Any]]) -> Any:
    """Records as a table of JSON texts, so that Ray need not guess the types of their values."""
    import pyarrow as pa

    texts = (json.dumps(record, ensure_ascii=False) for record in records)
    # A text may hold half a surrogate pair, which UTF-8 cannot encode.
    return pa.table({"json": [text.encode(errors="replace").decode() for text in texts]})


def _session(record: Mapping[str, Any]) -> Session:
    """Restore a session as it was; `session_from_record` would parse its values again."""
    items = ({**item, "categories": tuple(item.get("categories", ()))} for item in record["items"])
    return Session(record["session_id"], tuple(Item(**item) for item in items))


def _identity(config: GenerateConfig, rules: BundleRules | None) -> dict[str, Any]:
    """What answers depend on, JSON-serializable: settings, and the contents of files they name."""
    named = {name: value for name, value in asdict(config).items() if name != "threads"}
    for name in ("program", "experts", "student"):
        if named[name] is not None and (path := Path(named[name])).exists():
            named[name] = f"{path.name} {_content(path)}"
    named["rules"] = None if rules is None else rules.model_dump(mode="json")
    return {"version": __version__, **json.loads(json.dumps(named, default=str))}


def _content(path: Path) -> str:
    """A hash of a file, or of all files in a folder."""
    digest = hashlib.sha256()
    for file in filter(Path.is_file, sorted(path.rglob("*")) if path.is_dir() else [path]):
        with open_file(file) as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _connected(address: str | None) -> Any:
    """Ray, connected; an existing connection of this process is kept."""
    # Ray would otherwise send usage statistics.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        message = f"engine ray: {error}: install it with pip install 'routedk[ray]'"
        raise MissingExtraError(message) from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        if not ray.is_initialized():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise RouteDKError(f"engine ray: address={address}: {error}") from error
    return ray
