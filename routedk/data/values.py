"""Values of sessions as people write them: how texts, prices and categories are read."""

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
# What exports write for a missing text.
NO_TEXT = frozenset({"#n/a", "<na>", "n/a", "na", "nan", "none", "null", "undefined"})
_ENTITY = re.compile(r"&#?\w{1,32};")
_TWICE_ESCAPED = re.compile(r"&(?:amp;)+")
_LONGEST_PRICE = 40
_IMAGE = re.compile(r"https?://[A-Za-z0-9_.-]+(:\d{1,5})?/[^\x00-\x1f\x7f]{,2000}")
# An amount with its currency before or after it. In "Rs.500" the point is the currency's.
_AMOUNT = re.compile(
    r"[^\d\-−(]{0,12}?((?:(?<![^\W\d_])[.,])?\d[\d.,'’\s]*)(?![kKmM]\b)[-–—]{0,2}"
    r"[^\d\-−)%½¼¾⅓⅔]{0,12}"
)
_GROUPED = re.compile(r"\d*|\d{1,3}(?:[.,'’\s]\d{2,3})*[.,'’\s]\d{3}")


class MissingValues:
    """Counts values that are missing because they cannot be read, and what is left out.

    Args:
        strict: Whether an unreadable value is an error instead.

    Attributes:
        counts: Number of unreadable values, by what they should be.
        left_out: Number of lines or sessions left out, by what they are.
        read: What was read from order lines, for the message.
        place: The place being read, for the message.
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
            ValueError: ``strict`` is set.
        """
        if self.strict:
            raise ValueError(f"not a {name}")
        self.counts[name] += 1
        self._first.setdefault(name, f"{shown(value)} in {self.place}")

    def leave_out(self, name: str) -> None:
        """Count a line or a session that is left out."""
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
    """Read a text: HTML entities are unescaped, and "nan" and the like count as missing.

    Args:
        value: A text, its bytes, a number, or nothing.
        name: What it should be, e.g. ``title``.
        missing: Counts values that are not text.
    """
    if (value := _plain(value)) is None:
        return ""
    # "None" for what is neither text nor number.
    text = value if isinstance(value, str) else str(as_number(value))
    if text.strip().casefold() in NO_TEXT:
        missing.add(name, value)
        return ""
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), _TWICE_ESCAPED.sub("&", text))
    # A lone surrogate, as a truncated text may end in, can be neither written nor tokenized.
    return text.encode(errors="replace").decode()


def as_price(value: object, missing: MissingValues) -> float | None:
    """A price: a number, or a text such as ``19,99 €`` or ``$1,299.00``.

    A point or comma before exactly three digits separates thousands, else cents.

    Args:
        value: The value to read.
        missing: Counts values that are not prices.
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

    Of several paths, the first is kept.

    Args:
        value: The value to read.
        missing: Counts values that are not category paths.
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
    """The URL of a picture, http or https with a plain host; None for anything else."""
    return value if isinstance(value, str) and _IMAGE.fullmatch(value) else None


def as_list(value: Any) -> Any:
    """Convert a tuple, an array, or a dict of lists of equal length to a list.

    The last is what ``datasets`` makes of a list of dicts.
    """
    value = _plain(value)
    if isinstance(value, Mapping) and value:
        columns = [as_list(column) for column in value.values()]
        if all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
            return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(value, tuple):
        return list(value)
    # NumPy's, which this module does not import.
    return value.tolist() if hasattr(value, "tolist") and value.ndim else value


def _amount(text: str) -> float:
    """The amount of a price with its currency; NaN if it is not a price."""
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
    """The value; bytes as text, and NaN, pandas' missing value, as None."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    number = as_number(value)
    return value if number is None or number == number else None
