"""Samplers: plain functions that walk a noisy state down a grid of sigmas.

All share one signature, ``(denoise, x, sigmas, *, noise=None, callback=None, ...) -> x0``:

* ``denoise``: a ``DenoiseFn``, (x (b c h w), sigma (b,)) -> denoised (b c h w).
* ``x``: (b c h w), the state at ``sigmas[0]``; from nothing, ``sigmas[0] * noise``. Its dtype is
  kept throughout, so pass float32.
* ``sigmas``: (n + 1,), descending, for n steps. The last is 0 as a rule; if it is not, the result
  is the state at that level. Image-to-image starts from ``sigmas[k:]``.
* ``noise``: a ``NoiseFn``, number -> fresh unit noise (b c h w). Samplers that add noise need it.
  Those that add it once a step ask for ``noise(step)``; those that draw more often number their
  draws 0, 1, 2, ... through the whole run (:func:`shared.samplers.common.in_turn`). Either way no
  number is asked for twice, so all draws are independent.
* ``callback``: called each step with (step, x, sigma, denoised), before x moves on.

Each raises a ``UserError`` if sigmas are not descending, or if it needs noise and there is none.

Files by kind: ``ode``, ``multistep`` and ``adaptive`` are deterministic, ``ancestral``, ``sde``
and ``renoise`` add noise, ``langevin`` runs Markov chains; ``table`` has them all by name.
"""

from shared.samplers.adaptive import sample_adaptive
from shared.samplers.ancestral import (
    DDPM_VARIANCES,
    sample_ddim,
    sample_ddpm,
    sample_dpm2_ancestral,
    sample_dpmpp_2s_ancestral,
    sample_euler_ancestral,
)
from shared.samplers.common import Callback, Sampler, SamplerFn
from shared.samplers.langevin import sample_annealed_langevin, sample_predictor_corrector
from shared.samplers.multistep import (
    sample_deis,
    sample_dpmpp_2m,
    sample_lms,
    sample_plms,
    sample_unipc,
)
from shared.samplers.ode import invert_ddim, sample_dpm2, sample_euler, sample_heun
from shared.samplers.renoise import (
    DEFAULT_RESTARTS,
    RestartInterval,
    sample_lcm,
    sample_restart,
)
from shared.samplers.sde import sample_dpmpp_2m_sde, sample_dpmpp_3m_sde, sample_dpmpp_sde
from shared.samplers.table import SAMPLERS

__all__ = [
    "DDPM_VARIANCES",
    "DEFAULT_RESTARTS",
    "SAMPLERS",
    "Callback",
    "RestartInterval",
    "Sampler",
    "SamplerFn",
    "invert_ddim",
    "sample_adaptive",
    "sample_annealed_langevin",
    "sample_ddim",
    "sample_ddpm",
    "sample_deis",
    "sample_dpm2",
    "sample_dpm2_ancestral",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_sde",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_heun",
    "sample_lcm",
    "sample_lms",
    "sample_plms",
    "sample_predictor_corrector",
    "sample_restart",
    "sample_unipc",
]
