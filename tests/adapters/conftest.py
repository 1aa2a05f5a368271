"""A tiny student, its tokenizer trained on the spot, and sessions to train and ask it on."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.prompts import EncodedPrompt, encode_prompt
from routedk.adapters.student import Student, fingerprint
from routedk.adapters.train import TrainConfig
from routedk.programs.prompting.item_intents import render_item_intents
from routedk.programs.prompting.layout import build_prompt, instruction
from routedk.types import Bundle, Item, KnowledgeBase, Provenance, Rule, Session, Thought

# Tiny tensors are slower on many threads than on one, above all on a busy machine.
torch.set_num_threads(1)

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS, HIDDEN = 4, 32
# A training of seconds, in float32; tests replace what they are about.
SMALL = TrainConfig(
    answer_form="item-intents",
    r=4,
    lora_alpha=8,
    layers=2,
    epochs=4,
    learning_rate=3e-2,
    knowledge_share=1.0,
    knowledge_epochs=1,
    router_epochs=1,
    batch_size=2,
    bf16=False,
)

_INTENTS = {
    "brewing tea": ("kettle", "tea cup", "tea strainer"),
    "desk setup": ("usb hub", "usb cable", "desk lamp"),
    "rain hike": ("rain coat", "hiking boots", "wool socks"),
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with SmolLM2's chat markers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    texts = [instruction(), "Thought: none Session: Similar session: Rules: system user assistant"]
    texts += [f"{n} {name} | {intent}" for intent in _INTENTS for n, name in enumerate(_INTENTS)]
    texts += [f"{n} {name}\n" for names in _INTENTS.values() for n, name in enumerate(names)]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
        pad_token="<|im_end|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny student."""
    folder = tmp_path_factory.mktemp("student")
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # Makes the end token likelier, else every answer is cut off.
        model.get_input_embeddings().weight[tokenizer.eos_token_id] *= 3
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def loaded(student_folder: Path) -> Student:
    """The tiny student that all tests share: to change one, use `student`."""
    from transformers import AutoTokenizer

    model = LlamaForCausalLM.from_pretrained(student_folder).eval()
    model.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(student_folder)
    mark = fingerprint(student_folder)
    return Student(model, tokenizer, str(student_folder), mark, student_folder)


@pytest.fixture
def student(loaded: Student) -> Student:
    """A copy of the tiny student that the test may change."""
    return copy_of(loaded)


def copy_of(student: Student) -> Student:
    model = copy.deepcopy(student.model)
    return replace(student, model=model)


def randomise(routed: RoutedStudent, scale: float = 0.3, seed: int = 1) -> RoutedStudent:
    """Give experts and router random weights, so that every expert has an effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in routed.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        for parameter in routed.fusion.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return routed


@pytest.fixture
def routed(student: Student) -> RoutedStudent:
    """Three random experts in the upper two layers, with a random router."""
    return randomise(RoutedStudent(student, ExpertSettings(r=4, lora_alpha=8, layers=2)))


@pytest.fixture(scope="module")
def shared(loaded: Student) -> RoutedStudent:
    """The same experts, frozen, for all tests of a module."""
    settings = ExpertSettings(r=4, lora_alpha=8, layers=2)
    routed = randomise(RoutedStudent(copy_of(loaded), settings))
    routed.freeze()
    return routed


def make_session(name: str, titles: Sequence[str], groups: Sequence[tuple[int, ...]]) -> Session:
    items = tuple(Item(id=f"{name}-{n}", title=title) for n, title in enumerate(titles, start=1))
    bundles = tuple(
        Bundle(tuple(items[n - 1].id for n in group), f"intent {k}")
        for k, group in enumerate(groups)
    )
    return Session(name, items, bundles)


@pytest.fixture(scope="session")
def sessions() -> list[Session]:
    """Six sessions of 2 to 6 items, each with items of one or two intents."""
    names = list(_INTENTS.values())
    made = []
    for k in range(6):
        first, second = names[k % 3], names[(k + 1) % 3]
        titles = [*first[: 2 + k // 3], *second[: k % 4]]
        made.append(make_session(f"s{k}", titles, [(1, 2)]))
    return made


@pytest.fixture(scope="session")
def knowledge(sessions: list[Session]) -> KnowledgeBase:
    """A thought per session that names the intents of its items, and some rules."""
    intent_of = {title: intent for intent, titles in _INTENTS.items() for title in titles}
    origin = Provenance(teacher="test")
    thoughts = tuple(
        Thought(
            session_id=session.id,
            text=render_item_intents([[intent_of[item.title]] for item in session.items]),
            provenance=origin,
        )
        for session in sessions
    )
    rules = tuple(
        Rule(text=f"{', '.join(titles)}: {intent}", provenance=origin)
        for intent, titles in _INTENTS.items()
    )
    return KnowledgeBase(rules=rules, thoughts=thoughts)


def assert_same_scores(found: Tensor, wanted: Tensor) -> None:
    """Assert equality up to float32 rounding, which differs between CPUs."""
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def encoded(student: Student, session: Session) -> EncodedPrompt:
    """The prompt that asks for a session's bundles."""
    asked = build_prompt(session)
    return encode_prompt(student.tokenizer, asked.messages, asked.items)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
