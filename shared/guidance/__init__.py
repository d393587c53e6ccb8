"""Guidance: functions that make a ``DenoiseFn`` of a ``DenoiseFn`` and what should steer it.

All are art-free, work in the coordinate ``x = x0 + sigma * noise`` and compose: what one returns
the next one takes, by nesting or with :func:`compose`. Turned off, each returns what it was given.

* ``free``: classifier-free guidance (interval, rescale), CFG++, autoguidance.
* ``embedded``: the guidance scale told to a network that was distilled to take it.
* ``perturbed``: perturbed-attention guidance.
* ``classifier``: classifier guidance.
* ``gradient``, ``steps``: guidance gradients, any differentiable loss of the denoised estimate.
* ``measurement``: data consistency and posterior guidance for ``y = A x0``.
* ``repaint``: walks that go back to noisier levels: RePaint and time travel.
"""

from shared.guidance.classifier import classifier, label_log_prob
from shared.guidance.compose import Guidance, compose
from shared.guidance.embedded import with_scale
from shared.guidance.free import autoguidance, classifier_free, classifier_free_pp, plain
from shared.guidance.gradient import Loss, gradient, step_range
from shared.guidance.measurement import (
    LinearMap,
    average_pool,
    consistent,
    keep,
    known_region,
    posterior,
    residual_norm,
)
from shared.guidance.perturbed import (
    attending_blocks,
    perturbed,
    perturbed_attention,
    perturbed_denoiser,
)
from shared.guidance.repaint import (
    repaint_path,
    sample_path,
    sample_repaint,
    time_travel_path,
)
from shared.guidance.steps import (
    Step,
    clipped_step,
    ddim_step,
    ddpm_step,
    even_step,
    normalised_step,
    score_step,
)

__all__ = [
    "Guidance",
    "LinearMap",
    "Loss",
    "Step",
    "attending_blocks",
    "autoguidance",
    "average_pool",
    "classifier",
    "classifier_free",
    "classifier_free_pp",
    "clipped_step",
    "compose",
    "consistent",
    "ddim_step",
    "ddpm_step",
    "even_step",
    "gradient",
    "keep",
    "known_region",
    "label_log_prob",
    "normalised_step",
    "perturbed",
    "perturbed_attention",
    "perturbed_denoiser",
    "plain",
    "posterior",
    "repaint_path",
    "residual_norm",
    "sample_path",
    "sample_repaint",
    "score_step",
    "step_range",
    "time_travel_path",
    "with_scale",
]
