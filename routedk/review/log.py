"""`ReviewLog`: every version of every session, saved at once, and the resulting gold.

Two files: the history, to which each edit adds a line, and the gold, rewritten from the history
whenever what is accepted changes. Both are written under one lock, so that any number of processes
may share them. An edit names the version that it is based on. Of two edits of one version, the
first counts; the second is kept in the history, and its author is told.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter

from routedk.data.validation import checked
from routedk.errors import DataError
from routedk.files import JsonlLog, write_jsonl_records
from routedk.review.draft import Version

_VERSION = TypeAdapter(Version)


class ReviewLog:
    """The reviews of a data set; threads and processes may share them.

    Args:
        output: The gold file; the history is next to it, its name followed by ``.history``.
        proposed: What reviewers start with. The files may hold reviews of other sessions, too.

    Raises:
        DataError: A file cannot be read or written, the history has sessions with other items,
            or there is gold without a history.
    """

    def __init__(self, output: Path, proposed: Iterable[Version]) -> None:
        self._output = output
        self._history = output.with_name(f"{output.name}.history")
        self._end = 0
        self._versions = {one.session_id: [one] for one in proposed}
        with self._opened() as log:
            if log.end:
                self._write_gold()

    def newest(self, session_id: str) -> Version:
        """The session as it was last saved, or else proposed, as of the last `refresh`."""
        return self._versions[session_id][-1]

    def refresh(self) -> None:
        """Read what other processes have saved."""
        if _size(self._history) != self._end:
            with self._opened():
                pass

    def save(
        self,
        session_id: str,
        base: int,
        change: str,
        edit: Callable[[Version], Version] | None,
        by: str,
    ) -> bool:
        """Save what an edit makes of a session; on return it is on disk.

        Args:
            session_id: The session.
            base: The version that the person saw.
            change: What the edit is called.
            edit: Makes the new version; None undoes the last edit that is not undone.
            by: Who edits.

        Returns:
            Whether it counts. If not, another edit of that version came first, and the person
            should be shown its result.

        Raises:
            DataError: The edit is not possible, there is nothing to undo, or a file cannot be
                written.
        """
        with self._opened() as log:
            versions = self._versions[session_id]
            if not 0 <= base < len(versions):
                raise DataError(f"there is no version {base}: load the page again")
            old, counts = versions[base], base == len(versions) - 1
            made = edit(old) if edit else _undone(versions[: base + 1])
            if (made.bundles, made.accepted) == (old.bundles, old.accepted):
                return counts
            now = datetime.now(UTC).isoformat(timespec="seconds")
            about = {"version": base + 1, "change": change, "reviewed_by": by, "reviewed_at": now}
            new = made.model_copy(update=about)
            for one in [new] if base or not counts else [versions[0], new]:
                log.append(one.model_dump(exclude_none=True))
            self._take(new)
            if counts and (new.accepted or old.accepted):
                self._write_gold()
            return counts

    @contextmanager
    def _opened(self) -> Iterator[JsonlLog]:
        """Open the history and read what others wrote."""
        self._output.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._output.with_name(f".{self._output.name}.lock")):
            if _size(self._history) < self._end:
                hint = "start routedk review again"
                raise DataError("was cut or replaced", path=self._history, hint=hint)
            with JsonlLog(self._history, start=self._end) as log:
                for number, record in log.records:
                    found = checked(_VERSION, record, path=self._history, line=number)
                    self._take(found, number)
                self._end = log.end
                accepted = (one.accepted for some in self._versions.values() for one in some)
                if _size(self._output) and not any(accepted):  # It was not made from the history.
                    if not log.end:
                        self._history.unlink()
                    about = f"exists already, and {self._history.name} is not next to it or "
                    hint = "name another --output; to go on from this file, give it as --data"
                    raise DataError(f"{about}accepts nothing", path=self._output, hint=hint)
                try:
                    yield log
                finally:
                    self._end = log.end

    def _take(self, found: Version, line: int | None = None) -> None:
        """Add a version, unless another with this number came first."""
        versions = self._versions.setdefault(found.session_id, [found])
        if {item.id for item in found.items} != {item.id for item in versions[0].items}:
            problem = f"session {found.session_id!r} has other items in the data"
            raise DataError(problem, path=self._history, line=line, hint="name another --output")
        found.items = versions[0].items  # Kept once for all versions.
        if found.version == 0:
            versions[0] = found
        elif found.version == len(versions):
            versions.append(found)

    def _write_gold(self) -> None:
        newest = (versions[-1] for versions in self._versions.values())
        write_jsonl_records(self._output, (one.gold() for one in newest if one.accepted))


def _size(path: Path) -> int:
    """Size of a file in bytes; 0 if it is missing."""
    return path.stat().st_size if path.exists() else 0


def _undone(versions: list[Version]) -> Version:
    """The version before the last edit that is not undone."""
    made: list[Version] = []
    for version in versions:
        if version.change == "undo":
            made.pop()
        else:
            made.append(version)
    if len(made) < 2:
        raise DataError("there is nothing to undo")
    return made[-2]
