"""Attention as it is spelled out for training in bfloat16 on a CPU."""

import pytest
import torch
import torch.nn.functional as F

from shared.attention import attend


@pytest.mark.parametrize("masked", [False, True])
def test_spelled_out_attention_is_torchs_own(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator) for n in (5, 7, 7))
    mask = (torch.arange(7) < 4).expand(2, 1, 1, 7) if masked else None
    inputs = [tensor.bfloat16().requires_grad_() for tensor in (q, k, v)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    made = attend(inputs[0], inputs[1], inputs[2], mask)
    wanted = F.scaled_dot_product_attention(exact[0], exact[1], exact[2], attn_mask=mask)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.double(), wanted, rtol=0, atol=0.03)
    made.float().square().sum().backward()
    wanted.square().sum().backward()
    for one, other in zip(inputs, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        error = (one.grad.double() - other.grad).norm() / other.grad.norm()
        assert error < 0.03
