"""Our dropout is PyTorch's with other random numbers."""

import math

import pytest
import torch

from conftest import small_model
from peft_study.training.dropout import RANGE, Dropout, use_fast_dropout


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_elements_are_dropped_with_probability_p_and_the_rest_scaled(p: float) -> None:
    torch.manual_seed(0)
    n = 1_000_000
    y = Dropout(p)(torch.ones(n))
    # The expected value stays 1 to the bit, though p is rounded.
    rounded = round(p * RANGE) / RANGE
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / (1 - rounded)).item()}
    dropped = (y == 0).float().mean().item()
    assert abs(dropped - p) < 4 * math.sqrt(p * (1 - p) / n)  # four standard errors
    pairs = ((y[:-1] == 0) & (y[1:] == 0)).float().mean().item()
    assert abs(pairs - p * p) < 4 * math.sqrt(p * p / n)  # neighbours are independent


def test_gradients_pass_where_elements_did() -> None:
    x = torch.randn(100, 7, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0)
    torch.testing.assert_close(x.grad.max(), torch.tensor(1 / 0.7), atol=1e-4, rtol=0)


def test_it_depends_on_the_seed_and_rests_in_evaluation() -> None:
    x, dropout = torch.randn(50, 20), Dropout(0.1)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(dropout(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_every_dropout_of_a_model_is_replaced() -> None:
    model = small_model("bert")
    before = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    use_fast_dropout(model)
    after = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert [m.p for m in after] == before
    assert all(type(m) is Dropout for m in after)
