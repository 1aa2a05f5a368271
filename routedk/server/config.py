"""The settings of a server."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from routedk.adapters.student import Dtype
from routedk.checks import check_choices, check_least
from routedk.errors import SettingError
from routedk.files import read_text


@dataclass(frozen=True, kw_only=True)
class ListenConfig:
    """Where a server listens, and whom it lets in.

    Args:
        host: Address to listen on; any but loopback needs a token.
        port: Port to listen on; 0 picks a free one.
        token_file: File with the token that clients must send.

    Raises:
        SettingError: A value is not allowed, or a required token is missing.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, port=0)
        if self.port > 65535:
            raise SettingError(f"port={self.port}: it must be at most 65535")
        if self.token_file is None and not is_loopback(self.host):
            raise SettingError(
                f"host={self.host}: others can reach this address, and there is no token: name a "
                "file that holds one with --token-file, or listen on 127.0.0.1"
            )

    def token(self) -> str | None:
        """The token that clients must send; None if none is required.

        Raises:
            DataError: The file cannot be read.
            SettingError: It does not hold exactly one token.
        """
        if self.token_file is None:
            return None
        words = read_text(self.token_file).split()
        if len(words) != 1 or not words[0].isascii():
            raise SettingError(
                f"{self.token_file}: expected one token, a word of ASCII characters, e.g. of "
                "openssl rand -hex 32"
            )
        return words[0]


@dataclass(frozen=True, kw_only=True)
class ServeConfig(ListenConfig):
    """Settings of a bundle server.

    Args:
        program: A program.json from routedk compile; unset: prompts show no knowledge.
        experts: Folder of routed experts written by routedk train, which the student then uses.
        student: Folder or hub name of a causal LM. Unset or default: the student that the experts
            were trained on or, without experts, the embedded student, zero-shot. With neither
            experts nor student: the packaged general bundler.
        dtype: Student dtype: float32, bfloat16 or float16. Unset: float32 on a CPU, else bfloat16.
        rules: TOML file with a catalogue's rules, for sessions that have none of their own.
        token_file: File with the token that clients must send, as Authorization: Bearer TOKEN.
        cors_origins: Origin whose pages may call the server from a browser, e.g.
            https://shop.example. Repeatable; unset: none.
        max_body: Maximum size of a request's body, in bytes.
        max_sessions: Maximum number of sessions in a request.
        max_items: Maximum number of items in a session.
        max_queue: Maximum number of sessions and completions in progress; others get status 429.
        timeout: Seconds after which a request is aborted, with status 504.

    Raises:
        SettingError: A value is not allowed, or a required token is missing.
    """

    program: Path | None = None
    experts: Path | None = None
    student: str | None = None
    dtype: Dtype | None = None
    rules: Path | None = None
    cors_origins: tuple[str, ...] = ()
    max_body: int = 2**20
    max_sessions: int = 64
    max_items: int = 200
    max_queue: int = 256
    timeout: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, max_body=1, max_sessions=1, max_items=2, max_queue=1)
        if self.max_sessions > self.max_queue:
            raise SettingError(
                f"max_sessions={self.max_sessions}: the queue holds max_queue={self.max_queue}"
            )
        if not 0 < self.timeout < float("inf"):
            raise SettingError(f"timeout={self.timeout}: it must be a number of seconds above 0")


def is_loopback(host: str | None) -> bool:
    """Whether a name or address is a loopback one, reachable from this machine alone."""
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:  # Any other name may lead anywhere.
        return False
