"""From one latent to another."""

import torch
from torch import Tensor


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Spherical interpolation of each sample, (b ...): Shoemake 1985, as if it were one vector.

    Noise stays noise: of two independent unit Gaussian vectors, long as they are, every one on the
    way is as long. Share 0 gives ``first`` and 1 ``second``, to the bit; where the two point the
    same or opposite ways, the way is straight.
    """
    if share in (0, 1):
        return (second if share else first).clone()
    lengths = [one.flatten(1).norm(dim=1) for one in (first, second)]
    cosine = (first * second).flatten(1).sum(1) / (lengths[0] * lengths[1]).clamp(min=1e-20)
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = angle.sin()
    straight = sine < 1e-4
    safe = torch.where(straight, 1, sine)
    weights = (
        torch.where(straight, 1 - share, torch.sin((1 - share) * angle) / safe),
        torch.where(straight, share, torch.sin(share * angle) / safe),
    )
    per_sample = (-1, *[1] * (first.dim() - 1))
    return first * weights[0].reshape(per_sample) + second * weights[1].reshape(per_sample)
