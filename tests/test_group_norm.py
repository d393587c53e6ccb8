"""Group normalization: torch's numbers, whatever the order in memory and the precision."""

import pytest
import torch
import torch.nn.functional as F

from shared.layers import GroupNorm

SHAPES = [(2, 64, 16, 16), (2, 128, 8, 8), (1, 176, 4, 4), (2, 32, 40, 40), (2, 64, 10)]


def made(channels: int, dtype: torch.dtype) -> GroupNorm:
    norm = GroupNorm(16, channels)
    torch.manual_seed(1)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm.to(dtype)


def exact(norm: GroupNorm, x: torch.Tensor) -> torch.Tensor:
    weight, bias = norm.weight.double(), norm.bias.double()
    return F.group_norm(x.double().contiguous(), 16, weight, bias, norm.eps)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "off"),
    [(torch.float64, 1e-12), (torch.float32, 3e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
def test_equals_torch(shape: tuple[int, ...], dtype: torch.dtype, off: float) -> None:
    x = 2 + 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    norm, x = made(shape[1], dtype), x.to(dtype)
    result = norm(x)
    assert result.dtype == dtype and result.stride() == x.stride()
    expected = exact(norm, x)
    assert ((result.double() - expected).abs() / (1 + expected.abs())).max() < off


def test_autocast_keeps_its_dtype_and_gives_gradients() -> None:
    norm = made(64, torch.float32)
    x = torch.randn(2, 64, 16, 16, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        result = norm(x)
    assert result.dtype == torch.bfloat16
    result.float().square().sum().backward()
    assert x.grad is not None and norm.weight.grad is not None
    assert x.grad.isfinite().all() and norm.weight.grad.abs().max() > 0
