"""Students: networks that begin as their teacher, and the conditionings of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shared.conditioning import Conditioning, concatenate
from shared.denoiser import DenoiseFn, Denoiser
from shared.errors import UserError
from shared.guidance import plain, with_scale
from shared.layers import channels_last
from shared.low_rank import make_low_rank, plain_state
from shared.parameterization import CONSISTENCY_SCHEDULER, parameterization_from_config
from shared.prompt_guidance import Emphasis
from shared.schedules import schedule_from_config
from shared.text import TextEncoder
from shared.unet import UNet

NEW_WEIGHT = "time_embedding.cond_proj.weight"

Bind = Callable[[Tensor, Tensor, Tensor | None], tuple[Conditioning, DenoiseFn]]
"""(token ids (b n), guidance scales (b,), concat (b k h w)) -> what the student is told, and the
teacher told the same."""


def student_network(teacher: UNet, guidance_dim: int | None, rank: int) -> UNet:
    """A U-Net with its teacher's weights, ready to be trained.

    Args:
        guidance_dim: length of a guidance scale's embedding, if the student is to take one and the
            teacher does not; new weights are 0, so that it begins as the teacher all the same.
        rank: of the difference that is trained; 0 trains all weights.

    Raises:
        UserError: the teacher's vector means something else already.
    """
    config = dict(teacher.config)
    new = guidance_dim is not None and teacher.guidance_dim is None
    if new:
        if teacher.hyper.has_class_embedding:
            raise UserError("a model with a class embedding cannot take a guidance scale as well")
        config["time_cond_proj_dim"] = guidance_dim
    student = UNet.from_config(config)
    student.load_state_dict(teacher.state_dict(), strict=not new)
    student = channels_last(student.float())
    if new:
        nn.init.zeros_(student.get_parameter(NEW_WEIGHT))
    if rank > 0:
        make_low_rank(student, rank, whole=(NEW_WEIGHT,) if student.guidance_dim else ())
    return student


def plain_network(student: UNet) -> UNet:
    """A network of its own with the student's weights, a low-rank difference added to them."""
    plain = UNet.from_config(student.config)
    plain.load_state_dict(plain_state(student))
    return plain


def student_scheduler(teacher: Mapping[str, Any], consistency: bool) -> dict[str, Any]:
    """The student's ``scheduler_config.json``: its teacher's noise levels and prediction type.

    diffusers takes the student's steps by it: DDIM's, or those of consistency models.
    """
    name = CONSISTENCY_SCHEDULER if consistency else "DDIMScheduler"
    return {**teacher, "_class_name": name, "timestep_spacing": "trailing"}


def student_denoiser(network: UNet, scheduler: Mapping[str, Any]) -> Denoiser:
    """The network with what the scheduler's config says of its output."""
    schedule = schedule_from_config(scheduler)
    return Denoiser(network, parameterization_from_config(scheduler, schedule), schedule)


def guided_by(
    denoiser: Denoiser,
    cond: Conditioning,
    uncond: Conditioning,
    scale: Tensor,
    emphases: Sequence[Emphasis] = (),
) -> DenoiseFn:
    """Classifier-free guidance (arXiv 2207.12598) by a scale (b,) of each sample's own.

    With emphases, which count as :class:`shared.prompt_guidance.Emphasis` says.
    """
    both = concatenate([uncond, cond])
    by = scale[:, None, None, None]
    fewer = [_where_other(one.without(cond), cond) for one in emphases]

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        without, with_cond = denoiser(x, sigma, both, copies=2).chunk(2)
        guided = without + by * (with_cond - without)
        for one, (rows, less) in zip(emphases, fewer, strict=True):
            if len(rows):  # the others' difference is 0
                more = with_cond[rows] - denoiser(x[rows], sigma[rows], less)
                amount = one.share * (by[rows] - 1).clamp(min=0)
                guided = guided.index_add(0, rows, amount * more)
        return guided

    return denoise


def _where_other(less: Conditioning, cond: Conditioning) -> tuple[Tensor, Conditioning]:
    """Which samples (rows,) of a conditioning are other than in ``cond``, and those of them."""
    other = [
        (a != b).flatten(1).any(1)
        for a, b in ((less.context, cond.context), (less.concat, cond.concat))
        if a is not None and b is not None
    ]
    rows = torch.stack(other).any(0).nonzero()[:, 0]
    return rows, less[rows]


def binder(
    student_dim: int | None,
    teacher: Denoiser,
    text: TextEncoder,
    emphases: Sequence[Emphasis] = (),
) -> Bind:
    """What tells teacher and student the same words, controls and guidance.

    A plain function, for what is trained must not own the teacher: its weights would be averaged,
    kept in checkpoints and counted.

    Args:
        student_dim: length of the guidance scale's embedding that the student takes, if it does.
        emphases: what a teacher that is guided follows more than the rest.
    """
    empty = text.tokenize([""])

    def bind(ids: Tensor, scale: Tensor, concat: Tensor | None) -> tuple[Conditioning, DenoiseFn]:
        with torch.no_grad():
            cond = Conditioning(context=text(ids), concat=concat)
            if teacher.guidance_dim is not None:
                teach = plain(teacher, with_scale(cond, scale, teacher.guidance_dim))
            elif student_dim is not None:
                nothing = text(empty.to(ids.device)).expand(len(ids), -1, -1)
                # As the pipelines guide: away from what neither words nor controls tell.
                unknown = None if concat is None else torch.zeros_like(concat)
                uncond = Conditioning(context=nothing, concat=unknown)
                teach = guided_by(teacher, cond, uncond, scale, emphases)
            else:
                teach = plain(teacher, cond)
        return cond if student_dim is None else with_scale(cond, scale, student_dim), teach

    return bind
