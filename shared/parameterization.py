"""What a network predicts, told by four coefficients and nothing else.

A network never sees the state ``x = x0 + sigma * noise`` itself, and rarely answers with the clean
signal. Karras et al. 2022 (arXiv 2206.00364, Eq. 7) write every case as

    denoised = c_skip(sigma) * x + c_out(sigma) * network(c_in(sigma) * x, c_noise(sigma))

so that whatever comes after (samplers, guidance) knows only ``(x, sigma) -> denoised``. Here is a
``Parameterization`` for each kind in use:

    kind  network's answer          c_skip           c_out                c_in              c_noise
    eps   noise                     1                -s                   1/sqrt(s^2+1)     t(s)
    v     a*noise - sqrt(1-a^2)*x0  1/(s^2+1)        -s/sqrt(s^2+1)       1/sqrt(s^2+1)     t(s)
    x0    x0                        0                1                    1/sqrt(s^2+1)     t(s)
    flow  noise - x0                1/(1+s)          -s/(1+s)             1/(1+s)           s/(1+s)
    edm   F of the paper            d^2/(s^2+d^2)    s*d/sqrt(s^2+d^2)    1/sqrt(s^2+d^2)   ln(s)/4

with s = sigma, d = sigma_data, a = sqrt(alphas_cumprod) = 1/sqrt(s^2+1), and t(s) the trained step
of that noise level (fractional between two).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shared.naming import choose
from shared.schedules import NoiseSchedule


class Scalings(NamedTuple):
    """The four coefficients of one parameterization at given noise levels, each (b,)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


Parameterization = Callable[[Tensor], Scalings]
"""sigma (b,) -> its four coefficients."""


def eps(schedule: NoiseSchedule) -> Parameterization:
    """The network predicts the noise (DDPM, Ho et al. 2020, arXiv 2006.11239, Eq. 14)."""

    def scalings(sigma: Tensor) -> Scalings:
        return Scalings(
            c_skip=torch.ones_like(sigma),
            c_out=-sigma,
            c_in=1 / (sigma.square() + 1).sqrt(),
            c_noise=schedule.sigma_to_t(sigma),
        )

    return scalings


def v(schedule: NoiseSchedule) -> Parameterization:
    """The network predicts v (progressive distillation, Salimans & Ho 2022, arXiv 2202.00512)."""

    def scalings(sigma: Tensor) -> Scalings:
        c_in = 1 / (sigma.square() + 1).sqrt()
        return Scalings(
            c_skip=c_in.square(),
            c_out=-sigma * c_in,
            c_in=c_in,
            c_noise=schedule.sigma_to_t(sigma),
        )

    return scalings


def x0(schedule: NoiseSchedule) -> Parameterization:
    """The network predicts the clean signal ("sample" in diffusers)."""

    def scalings(sigma: Tensor) -> Scalings:
        return Scalings(
            c_skip=torch.zeros_like(sigma),
            c_out=torch.ones_like(sigma),
            c_in=1 / (sigma.square() + 1).sqrt(),
            c_noise=schedule.sigma_to_t(sigma),
        )

    return scalings


def flow() -> Parameterization:
    """The network predicts the velocity noise - x0 of a straight path (Lipman et al. 2022,
    arXiv 2210.02747; Liu et al. 2022, arXiv 2209.03003).

    The path's state is ``(1 - t) * x0 + t * noise``, so ``t = sigma / (1 + sigma)`` in [0, 1) is
    the network's time. t = 1 is an infinite sigma: start at t = 0.999, sigma = 999, at most.
    """

    def scalings(sigma: Tensor) -> Scalings:
        c_in = 1 / (1 + sigma)
        return Scalings(c_skip=c_in, c_out=-sigma * c_in, c_in=c_in, c_noise=sigma * c_in)

    return scalings


def edm(sigma_data: float = 0.5) -> Parameterization:
    """The preconditioning of Karras et al. 2022 (arXiv 2206.00364, Table 1, last column).

    ``sigma_data`` is the standard deviation of the data.
    """

    def scalings(sigma: Tensor) -> Scalings:
        c_in = 1 / (sigma.square() + sigma_data**2).sqrt()
        return Scalings(
            c_skip=(sigma_data * c_in).square(),
            c_out=sigma_data * sigma * c_in,
            c_in=c_in,
            c_noise=sigma.log() / 4,
        )

    return scalings


CONSISTENCY_SCHEDULER = "LCMScheduler"
SIGMA_DATA_LCM = 0.5  # what diffusers' LCMScheduler has, and no config changes it
TIMESTEP_SCALING = 10.0


def consistency(
    base: Parameterization, schedule: NoiseSchedule, timestep_scaling: float = TIMESTEP_SCALING
) -> Parameterization:
    """A network of kind ``base`` as a consistency function: at the cleanest level it is identity.

    Consistency models (Song et al. 2023, arXiv 2303.01469, Eq. 5) need c_skip = 1 and c_out = 0 at
    sigma_min, which holds exactly here, whatever the network says. The scalings are those of latent
    consistency models (Luo et al. 2023, arXiv 2310.04378, appendix D) as diffusers' LCMScheduler
    has them, with ``s = timestep_scaling * t(sigma)`` and d = 0.5:

        denoised = d^2 / (s^2 + d^2) * x + s / sqrt(s^2 + d^2) * base(x, sigma)

    at the trained levels. From the second on, base has 0.9988 of it and more, so that a student
    that begins with its teacher's weights begins as its teacher. Between the first two both factors
    are linear in t: their sum, 1 to a thousandth at trained levels, would rise to 1.2. (x enters,
    as there, in its variance-preserving scale; the factor that this is at sigma_min is taken out.)
    """

    def scalings(sigma: Tensor) -> Scalings:
        c_skip, c_out, c_in, c_noise = base(sigma)
        s = timestep_scaling * c_noise.clamp(min=1)
        total = s.square() + SIGMA_DATA_LCM**2
        share = c_noise.clamp(max=1)
        kept = 1 + share * (SIGMA_DATA_LCM**2 / total - 1)
        taken = share * s / total.sqrt()
        cleanest = torch.full_like(sigma, schedule.sigma_min)
        to_vp = ((1 + cleanest.square()) / (1 + torch.maximum(sigma, cleanest).square())).sqrt()
        return Scalings(taken * c_skip + kept * to_vp, taken * c_out, c_in, c_noise)

    return scalings


# Names as ``prediction_type`` has them in diffusers' scheduler_config.json.
PREDICTION_TYPES: dict[str, Callable[[NoiseSchedule], Parameterization]] = {
    "epsilon": eps,
    "v_prediction": v,
    "sample": x0,
    "flow_prediction": lambda schedule: flow(),
}


def parameterization_from_config(
    config: Mapping[str, Any], schedule: NoiseSchedule
) -> Parameterization:
    """Read ``prediction_type`` (default "epsilon") out of diffusers' ``scheduler_config.json``.

    The config of a ``LCMScheduler`` is a consistency model's, see :func:`consistency`.

    Raises:
        UserError: an unknown ``prediction_type``.
    """
    name = config.get("prediction_type", "epsilon")
    base = choose("prediction_type", name, PREDICTION_TYPES)(schedule)
    if config.get("_class_name") != CONSISTENCY_SCHEDULER:
        return base
    return consistency(base, schedule, float(config.get("timestep_scaling", TIMESTEP_SCALING)))
