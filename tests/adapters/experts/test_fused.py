import pytest
import torch
from torch import Tensor

from routedk.adapters.experts.fused import fused_layers
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.student import Student
from routedk.errors import SettingError
from tests.adapters.conftest import LAYERS, assert_same_scores, copy_of, randomise


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


def test_experts_sit_in_the_upper_layers_only(routed: RoutedStudent) -> None:
    names = [name for name, _ in routed.model.named_parameters() if "lora_" in name]
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in names}
    assert layers == {LAYERS - 2, LAYERS - 1}
    assert len(fused_layers(routed.model)) == 2 * 7


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


def test_a_student_takes_experts_once_at_a_time(
    loaded: Student, routed: RoutedStudent, ids: Tensor
) -> None:
    with pytest.raises(SettingError, match="has experts already: load it again"):
        RoutedStudent(routed.student)
    student = routed.unload()
    with torch.no_grad():
        assert torch.equal(student.model(ids).logits, loaded.model(ids).logits)
    assert not any(layer._forward_pre_hooks for layer in student.model.model.layers)
    again = randomise(RoutedStudent(student, routed.settings))
    routed = randomise(RoutedStudent(copy_of(loaded), routed.settings))
    assert_same_scores(logits(again, ids, one_hot(2)), logits(routed, ids, one_hot(2)))


def test_precision_follows_the_student(loaded: Student, ids: Tensor) -> None:
    """In bfloat16, sessions with different gates in one batch, one-hot ones among them."""
    base = copy_of(loaded)
    base.model.to(torch.bfloat16)
    routed = randomise(RoutedStudent(base, ExpertSettings(r=4, layers=2)))
    gates = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    outputs = [logits(routed, ids, gates)]
    routed.freeze()
    outputs.append(logits(routed, ids, gates))
    assert outputs[0].dtype == torch.bfloat16
    assert torch.equal(*outputs)
    for row in range(3):
        alone = logits(routed, ids[[row]], gates[[row]])
        torch.testing.assert_close(outputs[0][[row]], alone, rtol=0.05, atol=0.5)
