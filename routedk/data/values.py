"""Values of sessions as people write them: one treatment of texts, prices and categories."""

import html
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from routedk.data.validation import as_number, shown

_LOG = logging.getLogger(__name__)
# What exports write where a text is missing.
NO_TEXT = frozenset({"#n/a", "<na>", "n/a", "na", "nan", "none", "null", "undefined"})
_ENTITY = re.compile(r"&#?\w{1,32};")
_TWICE_ESCAPED = re.compile(r"&(?:amp;)+")
_LONGEST_PRICE = 40
_IMAGE = re.compile(r"https?://[A-Za-z0-9_.-]+(:\d{1,5})?/[^\x00-\x1f\x7f]{,2000}")
# An amount with its currency before or after it. A point after letters ends these: "Rs.500".
_AMOUNT = re.compile(
    r"[^\d\-−(]{0,12}?((?:(?<![^\W\d_])[.,])?\d[\d.,'’\s]*)(?![kKmM]\b)[-–—]{0,2}"
    r"[^\d\-−)%½¼¾⅓⅔]{0,12}"
)
_GROUPED = re.compile(r"\d*|\d{1,3}(?:[.,'’\s]\d{2,3})*[.,'’\s]\d{3}")


class MissingValues:
    """What reading takes as missing because it cannot be read, and what it leaves out, counted.

    Args:
        strict: Whether such a value is an error instead.

    Attributes:
        counts: How many there are, by what they should be.
        left_out: How many lines or sessions are left out, by what they are.
        read: What was read of order lines, for the message.
        place: Where reading is, for the message.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.read = ""
        self.place = ""
        self._first: dict[str, str] = {}

    def add(self, name: str, value: object) -> None:
        """Count a value.

        Raises:
            ValueError: If strict.
        """
        if self.strict:
            raise ValueError(f"not a {name}")
        self.counts[name] += 1
        self._first.setdefault(name, f"{shown(value)} in {self.place}")

    def leave_out(self, name: str) -> None:
        """Count a line or a session."""
        self.left_out[name] += 1
        self._first.setdefault(name, self.place.rpartition("/")[2])

    def shown_left_out(self) -> str:
        """The counts of what is left out, with the first place of each."""
        first, counts = self._first, self.left_out.items()
        shown_counts = (f"{count:,} {name} (first: {first[name]})" for name, count in counts)
        return f"left out: {', '.join(shown_counts) or 'nothing'}"

    def report(self) -> None:
        """Log what was read, and a warning per kind of value, with the first one and its place."""
        if self.read:
            level = logging.WARNING if self.left_out else logging.INFO
            _LOG.log(level, "read %s; %s", self.read, self.shown_left_out())
        for name, count in self.counts.items():
            first = self._first[name]
            _LOG.warning(
                "%d values that are no %s count as missing, the first is %s", count, name, first
            )


def as_text(value: object, name: str, missing: MissingValues) -> str:
    """A text on the way in: entities are unescaped, and "nan" and the like are no text.

    Args:
        value: A text, its bytes, a number, or nothing.
        name: What it should be, e.g. ``title``.
        missing: Counts what is not.
    """
    if (value := _plain(value)) is None:
        return ""
    # Of what is neither text nor number, "None".
    text = value if isinstance(value, str) else str(as_number(value))
    if text.strip().casefold() in NO_TEXT:
        missing.add(name, value)
        return ""
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), _TWICE_ESCAPED.sub("&", text))
    # Half a surrogate pair, as a cut text may end in, can be neither written nor tokenized.
    return text.encode(errors="replace").decode()


def as_price(value: object, missing: MissingValues) -> float | None:
    """A price: a number, or a text such as ``19,99 €`` or ``$1,299.00``.

    A point or comma before exactly three digits separates thousands, else cents.

    Args:
        value: What should be one.
        missing: Counts what is not.
    """
    value, price = _plain(value), math.nan
    if value is None or value == "":
        return None
    if isinstance(value, str):
        price = _amount(value)
    elif (number := as_number(value)) is not None:
        with suppress(OverflowError):
            price = float(number)
    if 0 <= price < math.inf:
        return price
    missing.add("price", value)
    return None


def as_categories(value: object, missing: MissingValues) -> tuple[str, ...]:
    """A category path: a list of names, a text such as ``Kitchen > Kettles``, or a list of paths.

    Of several paths the first is kept.

    Args:
        value: What should be one.
        missing: Counts what is not.
    """
    value = as_list(value)
    if isinstance(value, str):
        value = [name.strip() for name in as_text(value, "category", missing).split(" > ")]
    elif isinstance(value, list) and value and isinstance(first := as_list(value[0]), list):
        value = first
    elif value is None:
        return ()
    if not isinstance(value, list):
        missing.add("category", value)
        return ()
    return tuple(filter(None, (as_text(name, "category", missing) for name in value)))


def as_image(value: object) -> str | None:
    """The URL of a picture, http or https with a plain host; what is none is no picture."""
    return value if isinstance(value, str) and _IMAGE.fullmatch(value) else None


def as_list(value: Any) -> Any:
    """A list, where a value is another kind of one: a tuple, an array, or a dict of equal lists.

    The last is what ``datasets`` makes of a list of dicts.
    """
    value = _plain(value)
    if isinstance(value, Mapping) and value:
        columns = [as_list(column) for column in value.values()]
        if all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
            return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(value, tuple):
        return list(value)
    # Of NumPy, which this module does not import.
    return value.tolist() if hasattr(value, "tolist") and value.ndim else value


def _amount(text: str) -> float:
    """The amount of a price with its currency; NaN where it is none."""
    found = _AMOUNT.fullmatch(" ".join(text.split())) if len(text) <= _LONGEST_PRICE else None
    if found is None:
        return math.nan
    amount = found[1].rstrip(" .,'’")
    whole, *cents = re.split(r"[.,](?=[^.,]*$)", amount)
    both = "." in amount and "," in amount and amount.count(amount[len(whole)]) == 1
    if cents and len(cents[0]) == 3 and whole not in ("", "0") and not both:
        whole, cents = amount, []
    digits = cents[0] if cents else "0"
    if not (_GROUPED.fullmatch(whole) and digits.isdecimal()):
        return math.nan
    return float(re.sub(r"\D", "", whole or "0") + f".{digits}")


def _plain(value: Any) -> Any:
    """The value; bytes as text, and NaN, as pandas writes nothing, as None."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    number = as_number(value)
    return value if number is None or number == number else None
