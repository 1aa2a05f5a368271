"""What prompts begin with in common is computed once; answers are those computed whole."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from routedk.adapters.engine.branches import compute_prefixes
from routedk.adapters.engine.generation import Generator, Sampling
from routedk.adapters.engine.likelihoods import Continuation, scoring_job
from routedk.adapters.engine.passes import read_trees
from routedk.adapters.engine.prefixes import PrefixCache
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.export.plain_lora import fold
from routedk.adapters.prompts import EncodedPrompt, encode_prompt
from routedk.adapters.student import Student
from routedk.adapters.training.examples import training_rows
from routedk.adapters.training.lower import only_layers
from routedk.adapters.trees import grow_tree
from routedk.errors import ArtifactError, SettingError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import build_messages, render_items
from routedk.types import KnowledgeBase, Session

from .conftest import assert_same_scores, copy_of, randomise

FUSIONS = ("softmax", "single:rule", "layerwise", "sparsegen")


def routed_of(student: Student, experts_from: str, fusion: str = "softmax") -> RoutedStudent:
    settings = ExpertSettings(r=4, lora_alpha=8, layers=2, experts_from=experts_from)
    routed = randomise(RoutedStudent(copy_of(student), settings, fusion))
    routed.freeze()
    return routed


@pytest.fixture
def prompts(loaded: Student, sessions: list[Session]) -> list[EncodedPrompt]:
    return [
        encode_prompt(loaded.tokenizer, build_messages(session), render_items(session).split("\n"))
        for session in sessions
    ]


@pytest.fixture
def items(sessions: list[Session]) -> list[list[str]]:
    return [render_items(session).split("\n") for session in sessions]


def whole_logits(routed: RoutedStudent, prompt: EncodedPrompt, gates: Tensor) -> Tensor:
    """By hand: one pass, no cache, per-token gates that are 0 before the session's first token."""
    start = prompt.span[0] if routed.settings.experts_from == "session" else 0
    active_T = (torch.arange(len(prompt.ids)) >= start).float()

    class ByHand:
        def at(self, layer: int, hidden_BTH: Tensor) -> Tensor:
            assert hidden_BTH.shape[1] == len(active_T)
            return gates[:, None] * active_T[None, :, None]

    with torch.inference_mode(), routed.gate_state.use(ByHand()):
        found: Tensor = routed.student.model(torch.tensor([prompt.ids])).logits
    return found


def cached_logits(routed: RoutedStudent, prompt: EncodedPrompt, known: int) -> Tensor:
    """The first tokens from one pass, kept; the rest from another, which begins behind them."""
    model = routed.student.model
    gating = routed.gating([prompt])
    prefixes = compute_prefixes(model, [prompt.ids[:known]], [None], gating)
    (rest,) = read_trees(model, [grow_tree(prompt.ids, [])], prefixes, gating)
    with torch.inference_mode():
        found: Tensor = model.lm_head(rest.hidden_BTH)
    return found


@pytest.mark.parametrize("experts_from", ["start", "session"])
def test_a_kept_beginning_gives_the_logits_of_the_whole(
    loaded: Student, prompts: list[EncodedPrompt], experts_from: str
) -> None:
    exact = copy_of(loaded)
    exact.model.double()  # Else rounding alone is about 1e-5.
    routed = routed_of(exact, experts_from)
    for prompt in prompts[:3]:
        gates = routed.gates([prompt])
        assert isinstance(gates, Tensor)
        whole = whole_logits(routed, prompt, gates)
        for known in (prompt.span[0], prompt.span[0] // 2, prompt.span[0] + 3):
            found = cached_logits(routed, prompt, known)
            torch.testing.assert_close(found, whole[:, known:], atol=1e-9, rtol=0)


def test_before_the_session_keys_and_values_are_the_students_own(
    loaded: Student, prompts: list[EncodedPrompt]
) -> None:
    prompt = prompts[2]
    ids = prompt.ids[: prompt.span[0]]
    (plain,) = compute_prefixes(loaded.model, [ids], [None])
    for fusion in ("softmax", "single:rule", "sparsegen"):
        routed = routed_of(loaded, "session", fusion)
        gating = routed.gating([prompt])
        (found,) = compute_prefixes(routed.student.model, [ids], [None], gating)
        for mine, own in zip(found.keys + found.values, plain.keys + plain.values, strict=True):
            torch.testing.assert_close(mine, own, atol=1e-6, rtol=0)
    routed = routed_of(loaded, "start", "single:rule")
    gating = routed.gating([prompt])
    (other,) = compute_prefixes(routed.student.model, [ids], [None], gating)
    assert (other.keys[-1] - plain.keys[-1]).abs().max() > 1e-3


def test_training_and_inference_agree(
    loaded: Student, sessions: list[Session], knowledge: KnowledgeBase, tmp_path: Path
) -> None:
    """The training pass over prompt and lines against the cached prefix, to the logits."""
    from routedk.adapters.training.stages import TrainingSettings, prepare
    from routedk.adapters.training.trainer import AnswerLoss, RowCollator

    routed = routed_of(loaded, "session")
    shown = CompiledKnowledge(thoughts={t.session_id: t.text for t in knowledge.thoughts})
    rows = training_rows(loaded.tokenizer, sessions, shown, ("base",))
    prepared = prepare(routed, rows, tmp_path, TrainingSettings(bf16=False))
    batch = RowCollator(prepared)([{"row": k} for k in range(len(rows))])
    labels_BT = batch["labels"].clone()
    caught: list[Tensor] = []
    student = routed.student.model
    hook = student.lm_head.register_forward_hook(lambda *args: caught.append(args[-1]))
    loss = AnswerLoss(routed, lambda: torch.autocast("cpu", enabled=False))
    with torch.inference_mode(), only_layers(student.model, routed.first_layer, 4):
        loss(batch)
    routed.gate_state.gates = routed.gate_state.starts = None
    hook.remove()
    (trained_NV,) = caught
    learnt = (labels_BT[:, 1:] != -100).nonzero().tolist()
    assert len(learnt) == len(trained_NV)
    one_hot = torch.tensor([[1.0, 0.0, 0.0]])
    for row, asked in enumerate(rows):
        known = asked.span[0]
        tree = prepared[row].tree
        places = [place for k, place in learnt if k == row]
        mine_NV = trained_NV[[k for k, (other, _) in enumerate(learnt) if other == row]]

        def gating(_: Sequence[int], known: int = known) -> AbstractContextManager[None]:
            return routed.gate_state.use(one_hot, routed.starts([known]))

        prefixes = compute_prefixes(student, [asked.prompt[:known]], [None], gating)
        (rest,) = read_trees(student, [tree], prefixes, gating)
        with torch.inference_mode():
            used_NV = student.lm_head(rest.hidden_BTH[0, [place - known for place in places]])
        assert_same_scores(mine_NV, used_NV)


@pytest.mark.parametrize("experts_from", ["start", "session"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_answers_with_kept_beginnings_are_those_without(
    loaded: Student,
    prompts: list[EncodedPrompt],
    items: list[list[str]],
    fusion: str,
    experts_from: str,
) -> None:
    routed = routed_of(loaded, experts_from, fusion)
    keeps, forgets = Generator(routed), Generator(routed, PrefixCache(0))
    sizes = list(map(len, items))
    hot = Sampling(temperature=1.5, seed=3)
    assert keeps.item_lines(prompts, items) == forgets.item_lines(prompts, items)
    assert keeps.item_lines(prompts, items, hot) == forgets.item_lines(prompts, items, hot)
    few = slice(0, 2)
    assert keeps.bundles(prompts[few], sizes[few]) == forgets.bundles(prompts[few], sizes[few])
    per_session = fusion in ("softmax", "layerwise")
    used = experts_from == "session" or not per_session
    assert keeps.prefixes.computed == (prompts[0].span[0] if used else 0)
    assert forgets.prefixes.bytes == forgets.prefixes.computed == 0


@contextmanager
def reading(routed: RoutedStudent) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens of every pass over the student, padding included."""
    read: list[tuple[int, int]] = []
    hook = routed.student.model.model.layers[0].register_forward_pre_hook(
        lambda module, args: read.append(tuple(args[0].shape[:2]))
    )
    try:
        yield read
    finally:
        hook.remove()


@pytest.mark.parametrize("experts_from", ["start", "session"])
def test_a_prompt_is_read_once_for_answers_and_likelihoods(
    loaded: Student, prompts: list[EncodedPrompt], items: list[list[str]], experts_from: str
) -> None:
    routed = routed_of(loaded, experts_from)
    keeps, forgets = Generator(routed), Generator(routed, PrefixCache(0))
    texts = [Continuation(" tea", f"{line} |") for line in items[0]]
    job = scoring_job(loaded.tokenizer, prompts[0], texts)
    answer = keeps.item_lines(prompts[:1], items[:1])
    with reading(routed) as again:
        assert keeps.item_lines(prompts[:1], items[:1]) == answer
        (found,) = keeps.score([job])
    with reading(routed) as anew:
        assert forgets.item_lines(prompts[:1], items[:1]) == answer
        (wanted,) = forgets.score([job])
    # The last token before the completions is read again.
    saved = sum(map(math.prod, anew)) - sum(map(math.prod, again))
    assert saved >= 2 * len(prompts[0].ids) - 1
    assert found.tokens == wanted.tokens
    for mine, other in zip(found.likelihoods, wanted.likelihoods, strict=True):
        assert mine.total == pytest.approx(other.total, abs=1e-4)


def test_prompts_of_other_gates_are_not_mistaken(
    loaded: Student, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    """One cache, and fusions that differ: what is known of a prompt is known of one student."""
    shared = PrefixCache()
    for fusion in FUSIONS:
        routed = routed_of(loaded, "start", fusion)
        found = Generator(routed, shared).item_lines(prompts, items)
        assert found == Generator(routed, PrefixCache(0)).item_lines(prompts, items)


def test_experts_matter_only_from_the_session_on(
    loaded: Student, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    sizes = list(map(len, items))
    texts = {
        experts_from: [
            a.text for a in Generator(routed_of(loaded, experts_from)).bundles(prompts, sizes)
        ]
        for experts_from in ("start", "session")
    }
    assert texts["start"] != texts["session"]


def test_one_cache_serves_all_gates_of_one_student(
    loaded: Student, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    """With experts from the session on: other experts, other fusions, and the plain student."""
    shared = PrefixCache()
    sizes = list(map(len, items))
    for made in (
        routed_of(loaded, "session"),
        routed_of(loaded, "session", "single:base"),
        loaded,
    ):
        assert Generator(made, shared).bundles(prompts, sizes) == Generator(
            made, PrefixCache(0)
        ).bundles(prompts, sizes)
    assert shared.computed == prompts[0].span[0]
    routed = routed_of(loaded, "start", "single:rule")
    found = Generator(routed, shared).bundles(prompts, sizes)
    assert found == Generator(routed, PrefixCache(0)).bundles(prompts, sizes)
    assert shared.computed == 2 * prompts[0].span[0], "active experts have a family of their own"


def test_one_prompt_is_read_once_however_many_ask(
    loaded: Student, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    """Also where they fill more than one tree."""
    routed = routed_of(loaded, "start")
    for prefixes in (PrefixCache(), PrefixCache(0)):
        generator = Generator(routed, prefixes)
        (alone,) = Generator(routed).item_lines(prompts[:1], items[:1], readings=3)
        with reading(routed) as read:
            found = generator.item_lines(prompts[:1] * 16, items[:1] * 16, readings=3)
        assert found == [alone] * 16
        whole = [rows for rows, tokens in read if tokens >= len(prompts[0].ids) - 1]
        assert whole == [1]


def test_a_prompt_without_items_is_no_error_the_second_time(
    loaded: Student, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    generator = Generator(loaded)
    for _ in range(2):
        assert generator.item_lines(prompts[:2], [items[0], []])[1] == []


def test_prompts_do_not_drive_out_what_they_have_in_common(
    loaded: Student, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    (one,) = compute_prefixes(loaded.model, [prompts[0].ids], [None])
    small = Generator(loaded, PrefixCache(2 * one.bytes))
    wanted = Generator(loaded, PrefixCache(0)).item_lines(prompts, items)
    for _ in range(3):
        assert small.item_lines(prompts, items) == wanted
    assert small.prefixes.computed == prompts[0].span[0]


def test_prompts_of_other_sessions_of_the_same_tokens_are_not_mistaken(
    loaded: Student, prompts: list[EncodedPrompt], items: list[list[str]]
) -> None:
    """The router looks at the session's tokens: where they are is a part of the prompt."""
    routed = routed_of(loaded, "start")
    keeps = Generator(routed)
    start, end = prompts[0].span
    other = EncodedPrompt(prompts[0].ids, (start // 2, end))
    assert not torch.equal(routed.gates([other]), routed.gates(prompts[:1]))
    keeps.item_lines(prompts[:1], items[:1])
    found = keeps.score(
        [scoring_job(loaded.tokenizer, other, [Continuation(" tea", "1 kettle |")])]
    )
    forgets = Generator(routed, PrefixCache(0))
    wanted = forgets.score(
        [scoring_job(loaded.tokenizer, other, [Continuation(" tea", "1 kettle |")])]
    )
    assert found[0].likelihoods[0].total == pytest.approx(wanted[0].likelihoods[0].total, abs=1e-3)


def test_the_setting_is_stored(loaded: Student, tmp_path: Path) -> None:
    routed_of(loaded, "session").save(tmp_path / "experts")
    again = RoutedStudent.load(tmp_path / "experts", student=copy_of(loaded))
    assert again.settings.experts_from == "session"
    path = tmp_path / "experts" / "routing.json"
    text = path.read_text()
    path.write_text(text.replace('"experts_from": "session"', '"experts_from": "middle"'))
    message = "experts_from='middle': allowed are start, session"
    with pytest.raises(ArtifactError, match=message):
        RoutedStudent.load(tmp_path / "experts", student=copy_of(loaded))
    path.write_text(text.replace('"experts_from": "session",', ""))
    older = RoutedStudent.load(tmp_path / "experts", student=copy_of(loaded))
    assert older.settings.experts_from == "start"
    with pytest.raises(SettingError, match=message):
        ExpertSettings(experts_from="middle")


def test_experts_from_the_session_on_are_no_plain_lora(loaded: Student) -> None:
    with pytest.raises(SettingError, match="experts_from='session': a plain LoRA is active from"):
        fold(routed_of(loaded, "session"), [1.0, 0.0, 0.0])


def test_a_student_without_positions_is_refused(loaded: Student) -> None:
    routed = routed_of(loaded, "session")
    message = "experts_from='session' needs a student whose decoder"
    with (
        routed.gate_state.use(torch.ones(1, 3), torch.tensor([2])),
        pytest.raises(SettingError, match=message),
    ):
        routed.gate_state.enter(0, torch.zeros(1, 4, 32))
