"""`Desk`: the sessions under review, in the order and with the filters that a person chose."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from routedk.errors import DataError
from routedk.eval import session_confidence
from routedk.programs.prompting.text import visible
from routedk.review.draft import Version, accept, merge, move, proposed, reject, rename
from routedk.review.log import ReviewLog
from routedk.rules import BundleRules
from routedk.types import Answer, Kind, Session

_ROWS = 100
_LONGEST = 200


class View(BaseModel):
    """What a person looks at: the query of the page's URL."""

    session: str = ""
    show: Literal["todo", "accepted", "all"] = "todo"
    kind: Literal["", "complements", "alternatives", "mixed", "none"] = ""
    intent: str = ""
    order: Literal["unsure", "file"] = "unsure"

    def url(self, **changes: str) -> str:
        """The page's URL with these changes."""
        return f"?{urlencode(self.model_dump() | changes)}"

    def passes(self, found: Version) -> bool:
        """Whether the filters let a session through."""
        if self.show != "all" and found.accepted != (self.show == "accepted"):
            return False
        kinds: list[str] = [one.kind or "" for one in found.bundles] or ["none"]
        if self.kind and self.kind not in kinds:
            return False
        wanted = self.intent.casefold().strip()
        return not wanted or any(wanted in one.intent.casefold() for one in found.bundles)


class Change(BaseModel):
    """An edit, as the page sends it."""

    session: str
    base: int
    do: Literal["move", "merge", "rename", "reject", "accept", "undo"]
    items: list[str] = []
    bundle: int = 0
    to: int = 0
    intent: str = Field("", max_length=_LONGEST)
    kind: Kind | None = None
    user: str = Field("", max_length=_LONGEST)

    def edit(self, draft: Version) -> Version:
        """Apply the edit to a version."""
        edits: dict[str, Callable[[], Version]] = {
            "move": lambda: move(draft, self.items, self.to),
            "merge": lambda: merge(draft, self.bundle, self.to),
            "rename": lambda: rename(draft, self.bundle, self.intent, self.kind),
            "reject": lambda: reject(draft, self.bundle),
            "accept": lambda: accept(draft),
        }
        return edits[self.do]()


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows.

    Args:
        rows: The part of the list around the session.
        found: How many sessions the filters let through.
        accepted: How many of all sessions are accepted.
        total: How many sessions there are.
        current: The session shown; None if the filters let none through.
        before: The session before it in the list; empty if it is the first.
        after: The session after it; empty if it is the last.
    """

    rows: Sequence[Version]
    found: int
    accepted: int
    total: int
    current: Version | None
    before: str
    after: str


class Desk:
    """The sessions, what was proposed for them, and what people made of it.

    Args:
        sessions: The data set.
        answers: The proposed bundles; a session without an answer starts with none.
        output: The gold file; see `ReviewLog`.
        rules: The catalogue's; people are told which of them a bundle breaks.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        answers: Iterable[Answer],
        output: Path,
        rules: BundleRules | None = None,
    ) -> None:
        self.rules = rules or BundleRules()
        self.sessions = {session.id: session for session in sessions}
        found = {name: Answer(name) for name in self.sessions}
        found |= {answer.session_id: answer for answer in answers}
        self.confidence = {name: session_confidence(one) for name, one in found.items()}
        # Unknown confidence counts as the lowest.
        unsure = sorted(self.sessions, key=lambda name: self.confidence[name] or 0.0)
        self._orders = {"file": [*self.sessions], "unsure": unsure}
        self._log = ReviewLog(output, (proposed(one, found[one.id].bundles) for one in sessions))

    def page(self, view: View) -> Page:
        """The page that a view shows.

        Raises:
            DataError: There is no such session.
        """
        self._log.refresh()
        names = self._orders[view.order]
        order = [self._log.newest(name) for name in names]
        numbers = [number for number, one in enumerate(order) if view.passes(one)]
        here = names.index(self._known(view.session)) if view.session else min(numbers, default=-1)
        before = [number for number in numbers if number < here]
        after = [number for number in numbers if number > here]
        first = max(0, min(len(before) - _ROWS // 2, len(numbers) - _ROWS))
        return Page(
            rows=[order[number] for number in numbers[first : first + _ROWS]],
            found=len(numbers),
            accepted=sum(one.accepted for one in order),
            total=len(order),
            current=order[here] if here >= 0 else None,
            before=names[before[-1]] if before else "",
            after=names[after[0]] if after else "",
        )

    def broken(self, found: Version) -> list[list[str]]:
        """The rules that each bundle of a version breaks."""
        session = self.sessions[found.session_id]
        return [self.rules.broken(session, one.items, one.kind) for one in found.bundles]

    def save(self, change: Change, by: str) -> bool:
        """Save an edit; see `ReviewLog.save`.

        Raises:
            DataError: There is no such session, or the edit is not possible.
        """
        edit = None if change.do == "undo" else change.edit
        return self._log.save(self._known(change.session), change.base, change.do, edit, by)

    def _known(self, name: str) -> str:
        if name not in self.sessions:
            raise DataError(f"there is no session {name!r}")
        return name


def one_visible_line(text: str) -> str:
    """Any text as the page shows it: without invisible characters, on one line."""
    return " ".join(visible(text).split())
