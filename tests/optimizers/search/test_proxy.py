"""A study behind Optuna's proxy, started as docs/scale.md says."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import GrpcStorageProxy
from optuna.trial import TrialState

from routedk.errors import MissingExtraError, RouteDKError
from routedk.optimizers.search.config import StudyConfig
from routedk.optimizers.search.storage import experimental, open_storage
from routedk.optimizers.search.study import read_study
from tests.running import PATIENCE

from .answers import run
from .test_study import work

DOCUMENT = Path(__file__).parents[3] / "docs" / "scale.md"
needs_grpc = pytest.mark.skipif(
    importlib.util.find_spec("grpc") is None, reason="gRPC is not here: pip install 'routedk[grpc]'"
)


@pytest.fixture
def proxy(url: str) -> Iterator[str]:
    """The URL of a proxy of the file ``url``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = re.search(r"python -c \"\n(.*?)\n\"", DOCUMENT.read_text(encoding="utf-8"), re.S)
    assert code is not None
    given = code[1].replace("postgresql://USER@HOST/NAME", url).replace("13000", str(port))
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", given]) as server:
        with experimental():
            GrpcStorageProxy(host="127.0.0.1", port=port).wait_server_ready(timeout=PATIENCE)
        yield f"grpc://127.0.0.1:{port}"
        server.kill()


@needs_grpc
def test_two_workers_one_of_them_killed(proxy: str, url: str) -> None:
    killed = work(proxy, 12, killed=2)
    other = work(proxy, 12)
    said = killed.communicate()[1]
    assert killed.returncode == -signal.SIGKILL, said.decode()
    said = other.communicate()[1]
    assert other.returncode == 0, said.decode()
    trials = read_study(StudyConfig(study="mine", storage=proxy)).trials
    states = [trial.state for trial in trials]
    # Without heartbeats nobody ends the killed worker's trial; another one took its place.
    assert states.count(TrialState.RUNNING) == 1
    assert 12 <= states.count(TrialState.COMPLETE) <= 13
    assert len(trials) == states.count(TrialState.COMPLETE) + 1
    # The same study as without the proxy, which resumes there.
    assert len(read_study(StudyConfig(study="mine", storage=url)).trials) == len(trials)


@needs_grpc
def test_the_same_trials_as_without_a_proxy_until_its_storage_fails(
    proxy: str, tmp_path: Path
) -> None:
    def kept(study: Any) -> list[Any]:
        return [(trial.params, trial.values) for trial in study.trials]

    assert kept(run(proxy, 5)) == kept(run(f"sqlite:///{tmp_path}/other.db", 5))
    os.truncate(tmp_path / "study.db", 0)
    with pytest.raises(RouteDKError, match=r"^storage 'grpc://127\.0\.0\.1:\d+': Exception "):
        run(proxy, 6)


@needs_grpc
def test_a_proxy_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routedk.optimizers.search.storage._PATIENCE", 0.2)
    with pytest.raises(RouteDKError, match=r"storage 'grpc://127\.0\.0\.1:1': no proxy answers"):
        open_storage("grpc://127.0.0.1:1")


def test_without_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'routedk\[grpc\]'"):
        open_storage("grpc://127.0.0.1:1")
