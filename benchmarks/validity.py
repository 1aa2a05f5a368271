"""Answers of a student with random weights under the grammar: are all of them valid?

    python -m benchmarks.validity --generations 10000 --json FILE

Prompts are random tokens, sessions have 2 to 10 items, or 20 if no thought is written, and
decoding is greedy or sampled at temperatures 1, 1.5 and 3, in all answer forms. Exits with 1 if an
answer is not valid.
"""

import json
import random
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.command import run_command
from routedk.adapters.engine.generator import Generator
from routedk.adapters.engine.grammar import (
    INTENT_CHARACTERS,
    MAX_BUNDLES,
    THOUGHT_CHARACTERS,
    BundleList,
    ItemIntent,
)
from routedk.adapters.engine.writing import Writing
from routedk.adapters.prompts import EncodedPrompt
from routedk.adapters.student import Student
from routedk.adapters.training.examples import encode_head
from routedk.programs.prompting.item_intents import ITEM_INTENT_CHARACTERS
from routedk.programs.prompting.layout import NO_BUNDLE, THOUGHT_PREFIX, instruction

SIZES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 20)
TEMPERATURES = (0.0, 1.0, 1.5, 3.0)
FORMS = ("bundles", "thought, then bundles", "item-intents")
_BATCH = 50
# A random student ends its thought only when it must, which takes 40 tokens per item.
_MOST_THOUGHT_ABOUT = 10


def tiny_student(seed: int) -> Student:
    """A student with random weights, its tokenizer trained on the instruction and a few answers."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=seed % 2 == 0)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    lines = [f"{n} {n + 1} | none\n{THOUGHT_PREFIX} 1 tea; 12 tea" for n in range(10, 20)]
    tokenizer.train_from_iterator([instruction(), *lines * 3], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template="{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}",
        clean_up_tokenization_spaces=False,
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return Student(model, fast, f"random-{seed}", f"random-{seed}")


def faults(text: str, size: int, *, thinks: bool = False) -> list[str]:
    """What is wrong with an answer of bundles, found without the grammar's help.

    Args:
        text: The answer.
        size: Items of the session.
        thinks: Whether a thought may come first.
    """
    found = []
    if thinks and text.startswith(THOUGHT_PREFIX):
        thought, _, text = text.partition("\n")
        if len(thought) > len(THOUGHT_PREFIX) + THOUGHT_CHARACTERS * size:
            found.append("a thought that is too long")
    if text == NO_BUNDLE:
        return found
    bundles = []
    for line in text.split("\n"):
        numbers, bar, intent = line.partition(" | ")
        words = numbers.split(" ")
        if not all(word.isascii() and word.isdecimal() for word in words):
            return [*found, "a line that is no bundle"]
        items = list(map(int, words))
        bundles.append(frozenset(items))
        if not all(1 <= item <= size for item in items):
            found.append("an item that is not there")
        if len(set(items)) < 2 or len(set(items)) < len(items):
            found.append("less than two distinct items, or one twice")
        if len(intent) > INTENT_CHARACTERS or (bar and not intent.strip()):
            found.append("an intent that is empty or too long")
    if len(set(bundles)) < len(bundles):
        found.append("a bundle twice")
    if len(bundles) > MAX_BUNDLES:
        found.append("too many bundles")
    return found


def generate(generator: Generator, rng: random.Random, form: str, count: int) -> Counter[str]:
    """Generate answers in one batch and count them by outcome.

    Args:
        generator: Generator of a student.
        rng: Draws prompts, sizes and temperatures.
        form: One of ``FORMS``.
        count: How many answers.
    """
    thinks = form == "thought, then bundles"
    allowed = [size for size in SIZES if not thinks or size <= _MOST_THOUGHT_ABOUT]
    sizes = [rng.choice(allowed) for _ in range(count)]
    jobs = [job(generator, rng, form, size) for size in sizes]
    outcome: Counter[str] = Counter()
    for size, lines in zip(sizes, generator.write(jobs), strict=True):
        texts = [branch.text for branch in lines]
        if form == "item-intents":
            fits = all(
                text.strip() and len(text) <= ITEM_INTENT_CHARACTERS and text.isprintable()
                for text in texts
            )
            wrong = [] if fits else ["an intent that is empty or too long"]
        else:
            wrong = faults(texts[0], size, thinks=thinks)
            outcome["of them no bundle"] += not wrong and texts[0].endswith(NO_BUNDLE)
        outcome.update(wrong or ["valid"])
    return outcome


def job(generator: Generator, rng: random.Random, form: str, size: int) -> Writing:
    """The request for one answer about a session of ``size`` items."""
    words = range(3, generator.base.model.config.vocab_size)
    prompt = EncodedPrompt(tuple(rng.choices(words, k=rng.randint(2, 12))), (0, 1))
    temperature, seed = rng.choice(TEMPERATURES), rng.randrange(2**32)
    if form != "item-intents":
        grammar = BundleList(size, thinks=form != "bundles")
        return Writing(
            prompt=prompt, grammar=grammar, limit=8 * size, temperature=temperature, seed=seed
        )
    lines = [f"{number} thing" for number in range(1, size + 1)]
    return Writing(
        prompt=prompt,
        heads=tuple(encode_head(generator.tokenizer, f"{line} |") for line in lines),
        grammar=ItemIntent(),
        limit=12,
        temperature=temperature,
        seed=seed,
    )


def run(generations: int, seed: int = 0) -> dict[str, int]:
    """Generate answers of several students and count them by outcome."""
    rng = random.Random(seed)
    outcome: Counter[str] = Counter()
    generators = [Generator(tiny_student(seed + k)) for k in range(2)]
    for number, first in enumerate(range(0, generations, _BATCH)):
        generator = generators[number % len(generators)]
        form = FORMS[number // len(generators) % len(FORMS)]
        outcome += generate(generator, rng, form, min(_BATCH, generations - first))
    return {"valid": 0, **outcome}


def main(
    generations: Annotated[int, typer.Option(min=1)] = 10_000,
    seed: int = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Writes the counts here.")
    ] = None,
) -> None:
    """Print how many answers are valid, as JSON."""
    started = perf_counter()
    outcome = run(generations, seed)
    seconds = round(perf_counter() - started, 1)
    text = json.dumps({"generations": generations, **outcome, "seconds": seconds}, indent=2)
    typer.echo(text)
    if json_file is not None:
        json_file.write_text(text, encoding="utf-8")
    raise typer.Exit(int(outcome["valid"] != generations))


if __name__ == "__main__":
    run_command(main)
