import pytest
import torch
from torch import Tensor

from routedk.adapters.experts.fused import fused_layers
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.student import Student
from routedk.errors import SettingError

from .conftest import LAYERS, assert_same_scores, copy_of, randomise


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(5, 200, (3, 11))


def logits(routed: RoutedStudent, ids: Tensor, gates: Tensor | None) -> Tensor:
    if gates is None:
        return routed.model(input_ids=ids).logits
    with torch.no_grad(), routed.gate_state.use(gates):
        return routed.model(input_ids=ids).logits


def one_hot(place: int, rows: int = 3) -> Tensor:
    return torch.eye(3)[place].expand(rows, -1)


def test_fresh_experts_change_nothing(loaded: Student, student: Student, ids: Tensor) -> None:
    routed = RoutedStudent(student, ExpertSettings(r=4, layers=None))
    gates = torch.rand(3, 3)
    with torch.no_grad():
        assert_same_scores(logits(routed, ids, gates), loaded.model(ids).logits)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_hot_gates_are_plain_peft(routed: RoutedStudent, ids: Tensor, place: int) -> None:
    ours = logits(routed, ids, one_hot(place))
    routed.model.set_adapter(routed.adapters[place])
    with torch.no_grad():
        assert_same_scores(ours, logits(routed, ids, None))


def test_experts_differ(routed: RoutedStudent, ids: Tensor) -> None:
    assert not torch.allclose(
        logits(routed, ids, one_hot(0)), logits(routed, ids, one_hot(1)), atol=0.01
    )


def test_adapter_names_of_peft_are_one_hot_rows(routed: RoutedStudent, ids: Tensor) -> None:
    ours = logits(routed, ids, torch.eye(3))
    with torch.no_grad():
        theirs = routed.model(input_ids=ids, adapter_names=list(routed.adapters)).logits
    assert_same_scores(ours, theirs)


@pytest.mark.parametrize("weights", [[1 / 3] * 3, [0.7, 0.1, 0.2]])
def test_gates_are_pefts_weighted_sum(
    routed: RoutedStudent, ids: Tensor, weights: list[float]
) -> None:
    ours = logits(routed, ids, torch.tensor(weights).expand(3, -1))
    routed.model.add_weighted_adapter(
        list(routed.adapters), weights, "expert_sum", combination_type="cat"
    )
    routed.model.set_adapter("expert_sum")
    with torch.no_grad():
        assert_same_scores(ours, logits(routed, ids, None))


def test_gates_per_sample_equal_one_by_one(routed: RoutedStudent, ids: Tensor) -> None:
    gates = torch.rand(3, 3).softmax(-1)
    together = logits(routed, ids, gates)
    for row in range(3):
        alone = logits(routed, ids[row : row + 1], gates[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_frozen_equals_unfrozen(routed: RoutedStudent, ids: Tensor) -> None:
    gates = torch.rand(3, 3)
    before = logits(routed, ids, gates)
    routed.freeze()
    assert_same_scores(logits(routed, ids, gates), before)


def test_copying_and_training_forget_what_was_frozen(routed: RoutedStudent, ids: Tensor) -> None:
    routed.freeze()
    routed.copy_expert("base", ["rule"])
    assert_same_scores(logits(routed, ids, one_hot(1)), logits(routed, ids, one_hot(0)))
    routed.freeze()
    routed.train_experts()
    assert all(layer.frozen_cat is None for layer in fused_layers(routed.model))


def test_experts_sit_in_the_upper_layers_only(routed: RoutedStudent) -> None:
    names = [name for name, _ in routed.model.named_parameters() if "lora_" in name]
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in names}
    assert layers == {LAYERS - 2, LAYERS - 1}
    assert len(fused_layers(routed.model)) == 2 * 7


def test_gradients_reach_the_router_and_no_frozen_expert(
    routed: RoutedStudent, ids: Tensor
) -> None:
    routed.freeze()
    routed.fusion.requires_grad_(True)
    with routed.gate_state.use(routed.fusion(torch.randn(3, 32))):
        routed.model(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in routed.fusion.parameters())
    assert all(p.grad is None for p in routed.model.parameters())


def test_each_expert_learns_from_its_own_rows(routed: RoutedStudent, ids: Tensor) -> None:
    routed.train_experts()
    with routed.gate_state.use(one_hot(1)):
        routed.model(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in routed.model.named_parameters():
        if ".expert_rule." in name:
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0
        elif "lora_" in name:
            assert parameter.grad is None or not parameter.grad.any()
        else:
            assert parameter.grad is None


@pytest.mark.parametrize("shape", [(1, 3), (2, 3), (3, 2)])
def test_gates_of_another_batch(routed: RoutedStudent, ids: Tensor, shape: tuple[int, int]) -> None:
    with pytest.raises(SettingError, match="one row per sample, one column per expert"):
        logits(routed, ids, torch.ones(shape))


def test_disabled_adapters_are_the_student(
    loaded: Student, routed: RoutedStudent, ids: Tensor
) -> None:
    with torch.no_grad(), routed.model.disable_adapter():
        assert_same_scores(logits(routed, ids, torch.ones(3, 3)), loaded.model(ids).logits)


def test_gates_are_put_back(routed: RoutedStudent) -> None:
    outer, inner = torch.ones(1, 3), torch.zeros(1, 3)
    state = routed.gate_state
    with state.use(outer):
        with pytest.raises(KeyError), state.use(inner):
            raise KeyError
        assert state.gates is outer
    assert state.gates is None


def test_a_student_takes_experts_once(routed: RoutedStudent) -> None:
    with pytest.raises(SettingError, match="has experts already: load it again"):
        RoutedStudent(routed.student)


def test_a_student_without_decoder_layers(student: Student) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(SettingError, match="GPT2LMHeadModel, without decoder layers"):
        RoutedStudent(Student(gpt2, student.tokenizer, "gpt", "0"))


def test_two_routed_students_share_nothing(loaded: Student, ids: Tensor) -> None:
    first, second = (
        randomise(RoutedStudent(copy_of(loaded), ExpertSettings(layers=2)), seed=seed)
        for seed in (1, 2)
    )
    gates = torch.ones(3, 3) / 3
    assert not torch.allclose(logits(first, ids, gates), logits(second, ids, gates), atol=0.01)
    assert first.fingerprint() != second.fingerprint()
