"""The embedded demo set: synthetic sessions generated from a catalogue by a seed."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from routedk.types import Bundle, Item, Session

# Share of each plan: (themes that form a bundle, whether they share an item, share).
_PLANS = ((0, False, 0.09), (1, False, 0.55), (2, False, 0.24), (2, True, 0.12))
_BUNDLE_SIZES = (2, 3, 3, 3, 4, 4)
_MIN_ITEMS, _MAX_ITEMS = 4, 8
_SAME_CATEGORY = 0.6


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of product, e.g. "Gooseneck Kettle": where it lies, what it is for, its products."""

    name: str
    categories: tuple[str, ...]
    themes: tuple[str, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """A part of the catalogue: wordings of the intent by theme, and kinds of product."""

    name: str
    intents: Mapping[str, tuple[str, ...]]
    kinds: tuple[Kind, ...]


def demo_sessions(*, count: int = 300, seed: int = 0) -> list[Session]:
    """Synthetic sessions of 4 to 8 items of one domain, the same on every platform.

    A session's bundles are, by construction, all sets of at least two of its items whose kinds
    serve the same theme; the other items are distractors. See ``demo.md`` beside this module.

    Args:
        count: How many sessions.
        seed: Seed of the generator; ``load_sessions("demo")`` uses the defaults.
    """
    rng = random.Random(seed)
    return [_session(f"demo-{number:03d}", rng) for number in range(count)]


@cache
def catalogue() -> tuple[Domain, ...]:
    """The demo catalogue; item ids are numbered through."""
    text = resources.files("routedk.data").joinpath("demo_catalogue.json").read_text("utf-8")
    domains = []
    number = 0
    for domain in json.loads(text)["domains"]:
        kinds = []
        for kind in domain["kinds"]:
            path = tuple(kind["categories"])
            items = tuple(
                Item(f"item-{number + place:03d}", product["title"], path, float(product["price"]))
                for place, product in enumerate(kind["products"])
            )
            number += len(items)
            kinds.append(Kind(kind["name"], path, tuple(kind["themes"]), items))
        intents = {theme["name"]: tuple(theme["intents"]) for theme in domain["themes"]}
        domains.append(Domain(domain["name"], intents, tuple(kinds)))
    return tuple(domains)


def _session(session_id: str, rng: random.Random) -> Session:
    size, overlapping, _ = rng.choices(_PLANS, [share for *_, share in _PLANS])[0]
    while True:
        domain = rng.choice(catalogue())
        themes = _themes(domain, size, overlapping, rng)
        kinds: list[Kind] = []
        for theme in themes:
            kinds += _bundle_kinds(domain, theme, kinds, rng)
        kinds += _distractors(domain, kinds, max(_MIN_ITEMS - len(kinds), rng.randint(1, 3)), rng)
        groups = _groups(kinds)
        shared = len(groups) == 2 and bool(set.intersection(*map(set, groups.values())))
        fits = _MIN_ITEMS <= len(kinds) <= _MAX_ITEMS
        if fits and groups.keys() == set(themes) and shared == overlapping:
            break
    chosen = {kind.name: rng.choice(kind.items) for kind in kinds}
    items = list(chosen.values())
    rng.shuffle(items)
    bundles = tuple(
        Bundle(
            tuple(item.id for item in items if item.id in {chosen[name].id for name in names}),
            rng.choice(domain.intents[theme]),
        )
        for theme, names in sorted(groups.items())
    )
    return Session(session_id, tuple(items), bundles)


def _themes(domain: Domain, size: int, overlapping: bool, rng: random.Random) -> list[str]:
    if overlapping:
        return list(rng.choice([kind for kind in domain.kinds if len(kind.themes) > 1]).themes)
    return rng.sample(list(domain.intents), size)


def _bundle_kinds(
    domain: Domain, theme: str, taken: Sequence[Kind], rng: random.Random
) -> list[Kind]:
    """Kinds of one theme, of different categories as far as that goes."""
    wanted = rng.choice(_BUNDLE_SIZES)
    pool = [kind for kind in domain.kinds if theme in kind.themes]
    rng.shuffle(pool)
    # Kinds already in the session come first: that is how two bundles overlap.
    pool.sort(key=lambda kind: kind not in taken)
    picked: list[Kind] = []
    for kind in pool:
        if len(picked) < wanted and kind.categories not in {other.categories for other in picked}:
            picked.append(kind)
    return [kind for kind in picked if kind not in taken]


def _distractors(
    domain: Domain, kinds: Sequence[Kind], wanted: int, rng: random.Random
) -> list[Kind]:
    """Kinds of themes the session does not have yet, mostly of categories it has."""
    picked: list[Kind] = []
    for _ in range(wanted):
        present = [*kinds, *picked]
        used = {theme for kind in present for theme in kind.themes}
        pool = [kind for kind in domain.kinds if used.isdisjoint(kind.themes)]
        near = [kind for kind in pool if kind.categories in {k.categories for k in present}]
        if near and rng.random() < _SAME_CATEGORY:
            pool = near
        if pool:
            picked.append(rng.choice(pool))
    return picked


def _groups(kinds: Iterable[Kind]) -> dict[str, list[str]]:
    """Names of the kinds by theme, for themes that at least two of them serve."""
    groups: dict[str, list[str]] = {}
    for kind in kinds:
        for theme in kind.themes:
            groups.setdefault(theme, []).append(kind.name)
    return {theme: names for theme, names in groups.items() if len(names) > 1}
