"""Keep an intent from naming what is not in its bundle.

A student trained on a few hundred intents names one of them for anything it is shown.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

import numpy as np
import regex

from routedk.programs.prompting.item_intents import clean_intent
from routedk.similarity.encoders import TitleEncoder
from routedk.similarity.words import DENSE, RUN, WORD, is_latin, may_name, terms

# Least cosine with the nearest title at which an intent counts as being about it: 95% of the
# intents that a teacher named on held-out sessions reach it.
LEAST_ALIKE = 0.32
# Weight of a student's intent; those of ten labelled bundles have a total weight of 1.
_STUDENT = 0.3
_LONGEST_PHRASE = 4
_PHRASE_END = re.compile(r"[,;:(|/，、；：（،]|\s[-–—]\s|\b(?:for|with|by|in)\b")
_WORD_OR_NUMBER = regex.compile(rf"{WORD.pattern}|\d+")
# The common beginning of two words of one meaning, in scripts that the encoder does not know.
_ROOT = regex.compile(
    rf"{DENSE}{{2}}|\p{{Emoji_Presentation}}|[\p{{Arabic}}\p{{Hebrew}}]{{3,}}|\w{{4}}"
)
# Languages in these scripts usually say first what an item is.
_HEAD_FIRST = regex.compile(r"[\p{Arabic}\p{Cyrillic}\p{Greek}\p{Hebrew}\p{Thai}]")
_LONGEST_RUN = 12
# Colours, units and remarks of sellers: what an item is like, and not what it is.
_ATTRIBUTES = frozenset(
    """beige black blue brown gray green grey navy pink purple red white yellow azul bianco blanc
    blanco bleu negro nero noir rojo rouge vert wit zwart
    cm feet gram inch inches kg liter litre meter metre ml mm oz pair pcs volt watt zoll
    free http https large medium sealed shipping sku small www""".split()  # noqa: SIM905
) | {
    colour + ending
    for colour in "blau braun gelb grau grün lila rosa rot schwarz weiß".split()  # noqa: SIM905
    for ending in ("", "e", "er", "es", "en")
}
# Words that say nothing about what a bundle holds.
_EMPTY = _ATTRIBUTES | frozenset(
    """accessories accessory and assorted bundle collection count essentials everyday for from
    gear general gift good great große größe item items kit new of other pack packs part parts
    piece pieces product products set sets shopping size stuff stück style teilig the thing
    things tin to und use various with your
    aus das der die ein eine mit oder von zum zur avec für de des du en et la le les pour sur une
    con da del della di el gli il las los para per por een het met op voor för med och på
    dla do na ile ve için για και με του της от для из на при за
    من في على مع إلى של עם על את के का की में और लिए""".split()  # noqa: SIM905
)
# For whom items are made, by stem: alone these words name no item.
_WEARERS = {
    **dict.fromkeys(("dame", "damen", "lady", "woman", "women"), "women"),
    **dict.fromkeys(("herren", "man", "men"), "men"),
    **dict.fromkeys(("child", "children", "junior", "kid", "kinder"), "children"),
    **{"boy": "boys", "girl": "girls", "unisex": "all"},
}
_AND = re.compile(r"\s+(?:and|with|und|mit)\s+|\s*[,&+]\s*")
# Words that a sentence may use without naming a thing: they are in no title, and claim no fact.
_RELATIONS = frozenset(
    """a alike all alternative an are as at be because been being belong between both but by can
    carry charge choice choose clean close combine compare complement complete connect cook
    cover do each easy either every fit give go good has have help hold in into is it its keep
    kind like make match mean mount need off on one onto or out over pair play power protect
    ready run same serve share shopper similar sit so store suit support take than that their
    them then there these they this those tie together too under up used useful want was way we
    wear when where which while who will work would""".split()  # noqa: SIM905
)


def ranked_intents(
    stated: str, known: Mapping[str, float], titles: Sequence[str], encoder: TitleEncoder
) -> list[str]:
    """Rank the candidate intents of a bundle: the student's, and the known ones.

    Each is scored by how much it is about the titles, and by how much it agrees with the others:
    its mean cosine with the titles plus its weighted mean cosine with all candidates. A student's
    own mistakes agree with nothing else.

    Args:
        stated: What the student wrote; may be empty.
        known: The intents of labelled bundles like this one, with weights that sum to 1.
        titles: Titles of the bundle's items; untitled ones are empty.
        encoder: Embeds intents and titles.
    """
    if not known or not any(titles):
        return [stated]
    votes = Counter({stated: _STUDENT} if stated else {})
    votes.update(known)
    rows = encoder.encode([*votes, *filter(None, titles)])
    intents, shown = rows[: len(votes)], rows[len(votes) :]
    weights = np.array([*votes.values()])
    scores = (intents @ shown.T).mean(axis=1) + intents @ intents.T @ weights / weights.sum()
    best = np.argsort(-scores, kind="stable")
    return [[*votes][place] for place in best]


def grounded(intents: Sequence[str], titles: Sequence[str], encoder: TitleEncoder) -> str:
    """The first intent that the titles support, else one in the titles' own words.

    An intent is supported if it names something, repeats no word, and each of its parts, such as
    the two of "jeans and shorts", is supported: all its words occur in the titles, perhaps
    inflected or as part of a compound, or it is about one of the titles, by embeddings or, in a
    script that the encoder does not know, by a word in common. For whom the items are, such as
    "women's", is left out unless a title says so and none says otherwise.

    Args:
        intents: At least one, best first; each may be empty.
        titles: Titles of the bundle's items; untitled ones are empty.
        encoder: Embeds intents and titles; used only if some word is not in the titles.

    Returns:
        If no title has usable words either, the first intent unchanged.
    """
    known = [title for title in titles if title.strip()]
    written = {stem(word) for title in known for word in _words(title)}
    said = [found for title in known if (found := _wearers(title))]

    def is_supported(part: str) -> bool:
        new = [word for word in _words(part) if not _stands(stem(word), written)]
        return not new or (bool(known) and _about(part, known, encoder))

    for stated in intents:
        wearers = _wearers(stated)
        fits = wearers <= set().union(*said) and all(wearers & one for one in said if wearers)
        intent = stated if fits else _without_wearers(stated)
        named = _words(intent)
        repeated = len({stem(word) for word in named}) < len(named)
        parts = _AND.split(intent)
        if _names_item(named) and not repeated and all(map(is_supported, parts)):
            return intent
    return _own_words(known) or intents[0]


def _names_item(words: Iterable[str]) -> bool:
    return any(stem(word) not in _WEARERS for word in words)


def _wearers(text: str) -> set[str]:
    return {_WEARERS[name] for word in _words(text) if (name := stem(word)) in _WEARERS}


def _without_wearers(text: str) -> str:
    words = (word for word in text.split() if not _wearers(word))
    return re.sub(r"^(?:and|with|&)\s+", "", " ".join(words))


def _stands(word: str, written: Iterable[str]) -> bool:
    """Whether a stem is one of those written or, unless it is short, a part of one."""
    return any(word == other or (len(word) > 3 and word in other) for other in written)


def _about(intent: str, titles: Sequence[str], encoder: TitleEncoder) -> bool:
    """Whether an intent is about one of the titles."""
    if not is_latin(intent):
        return bool(_roots(intent) & _roots(" ".join(titles)))
    rows = encoder.encode([intent, *titles])
    return bool((rows[1:] @ rows[0]).max() >= LEAST_ALIKE)


def _roots(text: str) -> set[str]:
    """The beginnings of words in non-Latin scripts, without most inflections."""
    return {found[0] for term in terms(text) if not is_latin(term) and (found := _ROOT.match(term))}


def _own_words(titles: Sequence[str]) -> str:
    """The phrase that most titles share, else the head words of the first two titles.

    A title usually ends its first phrase with what the item is: ``Fellow kettle, 1 l, black``. Of
    shared phrases, one that ends so is better than a brand or a material.
    """
    starts = [phrases_of(title)[0] or title for title in titles]
    named = [[*filter(may_name, _words(start))] for start in starts]
    heads = [next(filter(_HEAD_FIRST.match, words), words[-1]) for words in named if words]
    ends = Counter(map(stem, heads))
    counts: Counter[str] = Counter()
    for title in titles:
        # Not a set: its order, which breaks ties, differs from process to process.
        counts.update([*dict.fromkeys(_phrases(title))])
    # Two letters are more often a unit than a thing.
    shared = [
        (count, ends[stem(words[-1])], len(words), len(phrase), phrase)
        for phrase, count in counts.items()
        if count > 1 and may_name(phrase) and _names_item(words := _words(phrase))
    ]
    if shared:
        return clean_intent(max(shared, key=itemgetter(0, 1, 2, 3))[-1])
    return clean_intent(" & ".join(dict.fromkeys(heads[:2]))) if heads else ""


def _phrases(title: str) -> Iterator[str]:
    words = regex.findall(r"\w+(?:['’]\w+)*|\p{Emoji_Presentation}", title.lower())
    for first in range(len(words)):
        for length in range(1, _LONGEST_PHRASE + 1):
            phrase = words[first : first + length]
            if _words(phrase[0]) and _words(phrase[-1]):
                yield " ".join(phrase)
    for run in RUN.finditer(title):
        signs, least = regex.findall(r"\X", run[0]), 2 if run["pairs"] else 4
        for first in range(len(signs)):
            for end in range(first + least, min(len(signs), first + _LONGEST_RUN) + 1):
                yield "".join(signs[first:end])


def phrases_of(title: str) -> list[str]:
    """The phrases of a title; the first one usually says what the item is."""
    return _PHRASE_END.split(title)


def _words(text: str) -> list[str]:
    return [word for word in WORD.findall(text.lower()) if word not in _EMPTY]


def stem(word: str) -> str:
    """A lower-case word without its plural ending."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def supported(sentence: str, titles: Sequence[str]) -> bool:
    """Whether a sentence about a bundle names nothing but what its titles say.

    Each of its words and numbers occurs in a title, perhaps inflected, or is one of the few words
    that relate items without naming a thing, such as "belong" and "together".

    Args:
        sentence: As a language model wrote it; an empty one is not supported.
        titles: Titles of the bundle's items.
    """
    said, known = (
        {_root(word) for word in _WORD_OR_NUMBER.findall(text.lower())}
        for text in (sentence, " ".join([*titles, *_RELATIONS, *_EMPTY - _ATTRIBUTES]))
    )
    return bool(said) and said <= known


def shared_words(text: str, titles: Iterable[str]) -> int:
    """How many words, perhaps inflected, a text shares with titles; 0 if with one title only."""
    named = _compared(text)
    shared = [found for title in titles if (found := named & _compared(title))]
    return len(frozenset().union(*shared)) if len(shared) > 1 else 0


def _compared(text: str) -> set[str]:
    return {_root(word) for word in _words(text) if is_latin(word)} | _roots(text)


def _root(word: str) -> str:
    """A word without its inflection: ``charger``, ``charging`` and ``charges`` are the same."""
    bare = re.sub(r"(?<=..)(ings?|ers?|ed|e?(?<!s)s|(?<=s)es|e)$", "", word)
    return re.sub(r"(\D)\1$", r"\1", re.sub("y$", "i", bare))
