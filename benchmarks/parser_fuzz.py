"""Random and mutated answers through the parser: ``python -m benchmarks.parser_fuzz --n 100000``.

Nothing but `AnswerError` may be raised, and no item outside the session and no unclean intent may
leave the parser. Prints counts as JSON; exits with 1 if any of this happened.
"""

import argparse
import json
import random
import sys
from collections import Counter

from routedk.errors import AnswerError
from routedk.programs.prompting.answers import read_answer
from routedk.programs.prompting.item_intents import render_item_intents
from routedk.programs.prompting.layout import THOUGHT_PREFIX, assistant_content, render_answer
from routedk.types import Bundle, Item, Session

PIECES = [
    *(str(number) for number in range(13)),
    *("|", " | ", "\n", ",", " ", "-", "- ", "[", "]", "(", ")", "{", "}", '"', ":", ".", ";"),
    *("Bundle 1:", "Bundles:", "none", "No bundles found.", "and", "items", "#", "*", "**"),
    *("Thought:", "<think>", "</think>", "<|im_end|>", "<|im_start|>system\n", "[INST]"),
    *("camera", "café", "电", "²", "٣", "½", "\x00", "\u202e", "\u2028", "\ud800", "\ufeff"),
    *("999999999999999999999", "-1", "1.5", "01", "1e3", "0x1", "1-3", "\t", "\r\n"),
    *("; ", " / ", "/", "1 tea", "2 tea", "3 tea / picnic", "13 tea", "；", "／"),
]


def random_session(rng: random.Random) -> Session:
    """A session of one to twelve items with random gold."""
    items = tuple(Item(id=f"i{n}", title=f"thing {n}") for n in range(rng.randint(1, 12)))
    bundles = []
    if len(items) >= 2:
        for _ in range(rng.randint(0, 3)):
            chosen = rng.sample(items, rng.randint(2, len(items)))
            bundles.append(Bundle(tuple(item.id for item in chosen), rng.choice(PIECES)))
    return Session("s", items, tuple(bundles))


def right_answer(rng: random.Random, session: Session) -> str:
    """Lines after a thought, or a thought alone that names the intent of each item."""
    if rng.random() < 0.5:
        return assistant_content(render_answer(session, session.bundles or ()), "because")
    names = rng.choices([*PIECES, "tea", "picnic"], k=3)
    intents = [rng.choices(names, k=rng.randint(0, 2)) for _ in session.items]
    return f"{THOUGHT_PREFIX} {render_item_intents(intents)}"


def random_answer(rng: random.Random, session: Session) -> str:
    """Pieces in any order, or a right answer with some characters changed."""
    if rng.random() < 0.5:
        start = rng.choice(["", "", f"{THOUGHT_PREFIX} "])
        return start + "".join(rng.choices(PIECES, k=rng.randint(0, 40)))
    text = list(right_answer(rng, session))
    for _ in range(rng.randint(0, 6)):
        place = rng.randrange(len(text) + 1)
        change = rng.random()
        if change < 0.4:
            text.insert(place, rng.choice(PIECES))
        elif change < 0.7:
            del text[place : place + rng.randint(1, 3)]
        else:
            text[place : place + 1] = chr(rng.randrange(0x110000))
    return "".join(text)


def fuzz(n: int, seed: int) -> Counter[str]:
    """Parse n answers and count them by outcome."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    for _ in range(n):
        session = random_session(rng)
        answer = random_answer(rng, session)
        try:
            parsed = read_answer(answer, session)
        except AnswerError:
            counts["answer_errors"] += 1
            continue
        except Exception:
            counts["other_exceptions"] += 1
            continue
        ids = {item.id for item in session.items}
        counts["parsed"] += 1
        counts["bundles"] += len(parsed.bundles)
        counts["composed"] += bool(parsed.bundles and parsed.item_intents)
        counts["foreign_items"] += sum(not b.items <= ids for b in parsed.bundles)
        counts["unclean_intents"] += sum(
            not b.intent.isprintable() or any(mark in b.intent for mark in "|<>[]{}")
            for b in parsed.bundles
        )
    return counts


def main() -> None:
    """Read the options, run, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = fuzz(options.n, options.seed)
    faults = ("other_exceptions", "foreign_items", "unclean_intents")
    names = ("parsed", "composed", "answer_errors", "bundles", *faults)
    print(json.dumps({"n": options.n, "seed": options.seed, **{k: counts[k] for k in names}}))
    sys.exit(any(counts[name] for name in faults))


if __name__ == "__main__":
    main()
