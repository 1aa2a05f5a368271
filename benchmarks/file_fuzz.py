"""Damaged files of every kind that a command takes: ``python -m benchmarks.file_fuzz --n 100000``.

A file must be used, or refused with a RouteDK error of one short line. Any other exception, a hang,
a write outside the file's folder, a connection, a new process, or an import of something that a
file names is a fault. Prints counts as JSON; exits with 1 if there is a fault.
"""

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from benchmarks.file_kinds import KINDS, make_files
from benchmarks.file_mutations import CANARY, changed
from routedk.errors import LONGEST, RouteDKError

SECONDS = 20
_EVENTS = {"socket.connect", "subprocess.Popen", "os.system", "os.exec", "pickle.find_class"}
_WRITING = {"w", "a", "x", "+"}
_allowed: Path | None = None


class _Hang(BaseException):
    """A file that takes too long."""


class _Forbidden(BaseException):
    """Something that no file may cause."""


def _watch(event: str, details: tuple[Any, ...]) -> None:
    """An audit hook: while a file is used, refuse what it may not cause."""
    if _allowed is None:
        return
    if event in _EVENTS:
        raise _Forbidden(f"{event} {details}")
    writes = event == "open" and isinstance(details[1], str) and _WRITING & {*details[1]}
    if writes and not Path(str(details[0])).resolve().is_relative_to(_allowed):
        raise _Forbidden(f"writes {details[0]}")
    if event == "import" and str(details[0]).startswith(CANARY):
        raise _Forbidden(f"imports {details[0]}")


def _hang(number: int, frame: FrameType | None) -> NoReturn:
    raise _Hang(f"more than {SECONDS} seconds")


class FileFuzz:
    """Damages one file after another.

    Args:
        folder: Empty folder in which everything is created.
        seed: Seed of the damage.
        kinds: Names of the kinds; None for all.
    """

    def __init__(self, folder: Path, seed: int, kinds: list[str] | None = None) -> None:
        self.made = make_files(folder / "made")
        self.damaged = folder / "damaged"
        self.rng = random.Random(seed)
        self.names = kinds or sorted(KINDS)
        self.weights = [KINDS[name].weight for name in self.names]
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in self.names}
        self.faults: list[str] = []
        for name in self.names:
            # Undamaged files must be usable: otherwise nothing below would be tested.
            shutil.copytree(self.made / name, self.damaged / name)
            KINDS[name].use(self.damaged / name)

    def run(self, count: int) -> list[str]:
        """Damage and use files.

        Args:
            count: How many files.

        Returns:
            What went wrong, as tracebacks with the content of the file.
        """
        if _watch not in _HOOKS:
            sys.addaudithook(_watch)
            _HOOKS.append(_watch)
        before = signal.signal(signal.SIGALRM, _hang)
        try:
            for _ in range(count):
                self._once(self.rng.choices(self.names, self.weights)[0])
        finally:
            signal.signal(signal.SIGALRM, before)
        return self.faults

    def _once(self, name: str) -> None:
        global _allowed
        path = self.damaged / name / self.rng.choice(KINDS[name].files)
        raw = (self.made / path.relative_to(self.damaged)).read_bytes()
        content = changed(self.rng, raw, path.suffix)
        path.write_bytes(content)
        _allowed = self.damaged.resolve()
        signal.alarm(SECONDS)
        try:
            KINDS[name].use(self.damaged / name)
            outcome = "used"
        except RouteDKError as error:
            message = str(error)
            good = 0 < len(message) <= LONGEST and message.isprintable()
            outcome = "refused" if good else "faults"
            if not good:
                self.faults.append(f"{path}: the message is {message!r}")
        except KeyboardInterrupt:
            raise
        except BaseException:
            outcome = "faults"
            self.faults.append(f"{path}\n{content[:3000]!r}\n{traceback.format_exc()}")
        finally:
            signal.alarm(0)
            _allowed = None
        self.counts[name][outcome] += 1
        path.write_bytes(raw)


_HOOKS: list[Any] = []


def main() -> None:
    """Read the options, run, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", choices=sorted(KINDS))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        fuzz = FileFuzz(Path(folder), options.seed, options.kinds)
        # Ctrl-C ends a long run with the counts so far.
        with suppress(KeyboardInterrupt):
            fuzz.run(options.n)
    for fault in fuzz.faults[:20]:
        print(fault, file=sys.stderr)
    total = sum(fuzz.counts.values(), Counter())
    counted = {"n": total.total(), "seed": options.seed, **total}
    print(json.dumps({**counted, "kinds": fuzz.counts}))
    sys.exit(bool(fuzz.faults))


if __name__ == "__main__":
    main()
