from __future__ import annotations

import pytest
import torch
from torch import nn

from momentum_bench.harness.models import onednn_weights
from momentum_bench.harness.models.onednn_weights import prepacked_weights

pytestmark = pytest.mark.skipif(
    not onednn_weights._usable(), reason="weights are laid out for oneDNN on x86 processors alone"
)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 32, bias=False))


def scores(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(), prepacked_weights(model):
        return model(inputs)


@pytest.mark.parametrize("shape", [(48,), (1, 48), (7, 48), (1, 70, 48), (3, 5, 48)])
def test_scores_are_those_of_the_plain_layers(model: nn.Module, shape: tuple[int, ...]):
    inputs = torch.randn(shape)
    torch.testing.assert_close(scores(model, inputs), model(inputs).detach(), rtol=1e-5, atol=1e-6)


def test_batches_of_other_sizes_use_the_same_weights(model: nn.Module):
    large, small = torch.randn(300, 48), torch.randn(3, 48)
    with torch.inference_mode(), prepacked_weights(model):
        found = [model(large), model(small), model(large)]
    torch.testing.assert_close(found[1], model(small).detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0], found[2])


def test_weights_that_were_trained_in_between_are_laid_out_anew(model: nn.Module):
    inputs = torch.randn(9, 48)
    before = scores(model, inputs)
    with torch.no_grad():
        model[0].weight.mul_(2)
    after = scores(model, inputs)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, model(inputs).detach(), rtol=1e-5, atol=1e-6)


def test_the_layers_are_their_own_again_also_after_an_error(model: nn.Module):
    def fail() -> None:
        with prepacked_weights(model):
            assert "forward" in vars(model[0])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any("forward" in vars(module) for module in model.modules())
    model(torch.randn(2, 48)).sum().backward()
    assert model[0].weight.grad is not None


def test_autocast_computes_as_without(model: nn.Module):
    inputs = torch.randn(9, 48)
    with torch.autocast("cpu", torch.bfloat16):
        plain = model(inputs).detach()
        assert torch.equal(scores(model, inputs), plain)


def test_products_of_less_than_full_precision_are_left_alone(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    with prepacked_weights(model):
        assert not any("forward" in vars(module) for module in model.modules())


def test_a_layer_of_another_class_is_left_alone():
    class Shifted(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) + 1

    layer = Shifted(4, 4)
    inputs = torch.randn(2, 4)
    assert torch.equal(scores(layer, inputs), layer(inputs))


def test_a_forward_that_somebody_else_gave_a_layer_stays(model: nn.Module):
    own = model[0].forward = lambda inputs: inputs.new_ones(len(inputs), 96)
    with prepacked_weights(model):
        assert model[0].forward is own
    assert model[0].forward is own
