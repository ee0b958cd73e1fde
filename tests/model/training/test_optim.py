import pytest
import torch

from polarmask.config import OptimConfig
from polarmask.training.optim import MovingAverage, build_optimizer, schedule, skip_step_if_nonfinite


@pytest.fixture
def uninitialised_is_nan():
    torch.use_deterministic_algorithms(True)  # which has what torch.empty() gives filled with it
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_step_that_is_not_finite_changes_no_weight(kind, uninitialised_is_nan):
    config = OptimConfig(optimizer=kind)
    skipping, other = torch.nn.Conv2d(1, 1, 3), torch.nn.Conv2d(1, 1, 3)
    other.load_state_dict(skipping.state_dict())
    optimizer, want = build_optimizer(skipping, config), build_optimizer(other, config)
    for finite in (False, True, False, True):
        for parameter in [*skipping.parameters(), *other.parameters()]:
            parameter.grad = torch.ones_like(parameter) if finite else torch.full_like(parameter, float("nan"))
        skip_step_if_nonfinite(torch.tensor(finite), optimizer)
        optimizer.step()
        if finite:
            want.step()
        assert all(torch.equal(*pair) for pair in zip(skipping.parameters(), other.parameters(), strict=True))


def test_schedule_step_rises_then_falls_at_milestones():
    config = OptimConfig(epochs=12, milestones=[8, 11], warmup_steps=30)
    factors = [schedule(step, 10, config) for step in (0, 15, 30, 79, 80, 110)]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.1, 0.01])


def test_schedule_cosine_falls_to_0():
    config = OptimConfig(epochs=10, schedule="cosine", warmup_steps=0)
    assert [schedule(step, 10, config) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])


def test_moving_average_of_known_values_is_exponential():
    model = torch.nn.BatchNorm1d(1, momentum=1.0)
    average = MovingAverage(model, decay=0.3)
    want = None
    for n, value in enumerate((4.0, 5.0, 7.0, 2.0, 3.0)):
        model.weight.data.fill_(value)
        model(torch.tensor([[value], [value + 2]]))
        average.update_parameters(model)
        decay = min(0.3, (1 + n) / (10 + n))
        want = value if want is None else decay * want + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(want)
        assert average.module.running_mean.item() == pytest.approx(want + 1)
        assert average.module.num_batches_tracked == n + 1
    again = MovingAverage(model, decay=0.3)
    again.load_state_dict(average.state_dict())
    assert again.n_averaged == 5


def test_build_optimizer_biases_have_their_own_factors():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3), torch.nn.GroupNorm(32, 32), torch.nn.Conv2d(32, 1, 1, bias=False)
    )
    model[2].requires_grad_(False)
    optimizer = build_optimizer(model, OptimConfig(bias_lr_factor=2, bias_decay_factor=0))
    others, biases = optimizer.param_groups
    assert [len(group["params"]) for group in (others, biases)] == [3, 1]  # the norm's bias is one of the others
    assert biases["params"][0] is model[0].bias
    assert (others["factor"], biases["factor"]) == (1, 2)
    assert (others["weight_decay"], biases["weight_decay"]) == (1e-4, 0)
