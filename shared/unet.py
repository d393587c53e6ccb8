"""The U-Net that denoises, conditioned on text by cross-attention.

Rombach et al. 2022 (arXiv 2112.10752), on the residual U-Net of Dhariwal & Nichol 2021 (arXiv
2105.05233). Built from the ``config.json`` of diffusers' ``UNet2DConditionModel``; ``state_dict()``
keys and arithmetic are the same, so weights move either way with no conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention import Transformer2DModel
from shared.conditioning import Conditioning
from shared.layers import (
    Downsample2D,
    GroupNorm,
    ResnetBlock2D,
    TimestepEmbedding,
    Upsample2D,
    sinusoidal_embedding,
)
from shared.unet_config import Level, UNetConfig, parse_config


def copies(tensor: Tensor, batch: int) -> Tensor:
    """(b ...) -> (batch ...): the whole again and again, or itself if it is as many."""
    if len(tensor) == batch:
        return tensor
    return torch.cat([tensor] * (batch // len(tensor)))


class DownBlock(nn.Module):
    """One level on the way down: residual blocks, perhaps with transformers, then half the size."""

    def __init__(self, config: UNetConfig, level: Level, in_channels: int, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            _resnet(config, in_channels if i == 0 else level.channels, level.channels)
            for i in range(level.layers)
        )
        self.attentions = _transformers(config, level, level.layers * level.down_attention)
        self.downsamplers = nn.ModuleList(
            [] if last else [Downsample2D(level.channels, padding=config.downsample_padding)]
        )

    def forward(
        self, x: Tensor, temb: Tensor, context: Tensor | None, context_mask: Tensor | None
    ) -> list[Tensor]:
        """x (b c h w) -> the output of every layer, for the skip connections."""
        outputs = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, copies(temb, len(x)))
            if self.attentions and context is not None:
                x = self.attentions[i](copies(x, len(context)), context, context_mask)
            outputs.append(x)
        for downsample in self.downsamplers:
            outputs.append(downsample(x))
        return outputs


class MidBlock(nn.Module):
    """The coarsest level: residual block, transformer, residual block; or just the first."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        level = config.levels[-1]
        self.attentions = _transformers(config, level, 1 * config.mid_attention)
        self.resnets = nn.ModuleList(
            _resnet(config, level.channels, level.channels)
            for _ in range(2 if config.mid_attention else 1)
        )

    def forward(
        self, x: Tensor, temb: Tensor, context: Tensor | None, context_mask: Tensor | None
    ) -> Tensor:
        x = self.resnets[0](x, temb)
        if not self.attentions or context is None:
            return x
        x = self.attentions[0](x, context, context_mask)
        return self.resnets[1](x, temb)


class UpBlock(nn.Module):
    """One level on the way up: each residual block also takes a skip; then twice the size."""

    def __init__(
        self, config: UNetConfig, level: Level, in_channels: int, skip_channels: int, last: bool
    ) -> None:
        super().__init__()
        # One layer more than on the way down: the last takes what entered the level there.
        ins = [in_channels] + [level.channels] * level.layers
        skips = [level.channels] * level.layers + [skip_channels]
        self.resnets = nn.ModuleList(
            _resnet(config, i + skip, level.channels) for i, skip in zip(ins, skips, strict=True)
        )
        self.attentions = _transformers(config, level, (level.layers + 1) * level.up_attention)
        self.upsamplers = nn.ModuleList([] if last else [Upsample2D(level.channels)])

    def forward(
        self,
        x: Tensor,
        skips: list[Tensor],
        temb: Tensor,
        context: Tensor | None,
        context_mask: Tensor | None,
    ) -> Tensor:
        """x (b c h w); takes one skip a layer off the end of ``skips``."""
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, copies(skips.pop(), len(x))], dim=1), temb)
            if self.attentions and context is not None:
                x = self.attentions[i](x, context, context_mask)
        for upsample in self.upsamplers:
            # The size of the next skip, not twice this one: on the way down odd sizes round up.
            x = upsample(x, size=skips[-1].shape[2:])
        return x


class UNet(nn.Module):
    """The network F of a denoiser: (x, c_noise, cond) -> model output.

    Attributes:
        config: the configuration as given to :meth:`from_config`, for saving.
        takes_copies: it takes fewer x than contexts, see :meth:`forward`.
    """

    takes_copies = True

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.hyper = config
        channels = [level.channels for level in config.levels]
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(
            channels[0], config.time_embed_dim, config.time_cond_proj_dim
        )
        self.class_embedding = _class_embedding(config)
        last = len(channels) - 1
        self.down_blocks = nn.ModuleList(
            DownBlock(config, level, channels[max(i - 1, 0)], last=i == last)
            for i, level in enumerate(config.levels)
        )
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                config,
                config.levels[i],
                in_channels=channels[min(i + 1, last)],
                skip_channels=channels[max(i - 1, 0)],
                last=i == 0,
            )
            for i in reversed(range(len(channels)))
        )
        self.conv_norm_out = GroupNorm(config.groups, channels[0], eps=config.eps)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> UNet:
        """Build from the dict of diffusers' ``UNet2DConditionModel`` ``config.json``.

        Missing keys have diffusers' defaults. As there, ``attention_head_dim`` is the NUMBER of
        heads.

        Raises:
            UserError: an unsupported value, naming the key and the values that are allowed.
        """
        unet = cls(parse_config(config))
        unet.config = dict(config)
        return unet

    @property
    def guidance_dim(self) -> int | None:
        """Length of the embedded guidance scale that ``cond.vector`` is; None if it is not."""
        return None if self.hyper.has_class_embedding else self.hyper.time_cond_proj_dim

    def forward(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        """Run the network, in the dtype of its weights.

        Args:
            x: (b c h w) noisy latents, scaled by c_in. Without ``vector`` and ``concat``, x and
                c_noise may be fewer than the contexts, b of r * b: then each x is there r times,
                all of them after each other, and what comes before the first attention, which
                does not know the context, is computed once.
            c_noise: (b,) the network's time; it may be fractional.
            cond: ``context`` (b n d) is needed if anything attends; ``context_mask`` (b n) is True
                where a token may be attended to; ``vector`` is needed if the config has a class
                embedding, (b d) for a projection and (b,) or (b 1) for an index or a timestep;
                ``concat`` (b c h w) joins x on the channels.

        Returns:
            (b out_channels h w) raw output, one for each context, in the dtype of the weights.

        Raises:
            ValueError: a condition is missing, of the wrong size, or not one that the model takes.
        """
        dtype = self.time_embedding.linear_1.weight.dtype
        x, context = self._join(x, cond.concat).to(dtype), self._context(cond, len(x))
        context = None if context is None else context.to(dtype)
        mask = None if cond.context_mask is None else cond.context_mask.bool()[:, None, None, :]
        temb = self._embed_time(c_noise, self._vector(cond, len(x)), dtype)

        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            skips += block(skips[-1], temb, context, mask)
        batch = len(x) if context is None else len(context)
        temb = copies(temb, batch)
        x = self.mid_block(copies(skips[-1], batch), temb, context, mask)
        for block in self.up_blocks:
            x = block(x, skips, temb, context, mask)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def _embed_time(self, c_noise: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Time (b,) and vector to the residual blocks' embedding (b temb_channels), activated.

        Every residual block begins with a SiLU of it, so that is done here, once.
        """
        sinusoids = self._sinusoids(c_noise).to(dtype)
        if vector is None:
            return F.silu(self.time_embedding(sinusoids))
        if self.class_embedding is None:
            return F.silu(self.time_embedding(sinusoids, vector.to(dtype)))
        if self.hyper.class_embed_type == "timestep":
            vector = self._sinusoids(vector)
        if self.hyper.class_embed_type is not None:
            vector = vector.to(dtype)  # all but an index
        time, label = self.time_embedding(sinusoids), self.class_embedding(vector)
        if self.hyper.class_embeddings_concat:
            return F.silu(torch.cat([time, label], dim=-1))
        return F.silu(time + label)

    def _sinusoids(self, values: Tensor) -> Tensor:
        """(b,) -> (b channels) float32."""
        return sinusoidal_embedding(
            values,
            self.hyper.levels[0].channels,
            flip_sin_to_cos=self.hyper.flip_sin_to_cos,
            freq_shift=self.hyper.freq_shift,
        )

    def _join(self, x: Tensor, concat: Tensor | None) -> Tensor:
        """x with the channels of ``concat``, if there are any: (b in_channels h w)."""
        joined = x if concat is None else torch.cat([x, concat.to(x.dtype)], dim=1)
        if joined.shape[1] != self.hyper.in_channels:
            raise ValueError(
                f"this U-Net takes {self.hyper.in_channels} channels; got {x.shape[1]} of x "
                f"and {joined.shape[1] - x.shape[1]} of cond.concat"
            )
        return joined

    def _context(self, cond: Conditioning, batch: int) -> Tensor | None:
        """The context (b n d), its mask checked too; None if nothing attends."""
        dim, context, mask = self.hyper.context_dim, cond.context, cond.context_mask
        if dim is None:
            if context is not None:
                raise ValueError("this U-Net takes no cond.context: nothing in it attends")
            return None
        if context is None:
            raise ValueError(f"this U-Net needs cond.context ({batch} n {dim})")
        alone = cond.vector is None and cond.concat is None
        fits = context.ndim == 3 and (len(context) % batch == 0 if alone else len(context) == batch)
        if not fits or context.shape[2] != dim:
            raise ValueError(f"cond.context must be ({batch} n {dim}), not ({_shape(context)})")
        if mask is not None and mask.shape != context.shape[:2]:
            raise ValueError(
                f"cond.context_mask must be ({batch} {context.shape[1]}), not ({_shape(mask)})"
            )
        return context

    def _vector(self, cond: Conditioning, batch: int) -> Tensor | None:
        """The vector in the form that it is embedded from: (b d) floats, (b,) times or indices."""
        vector, dim = cond.vector, self.hyper.vector_dim
        if vector is None:
            # A guidance embedding may be left out, as in diffusers; a class embedding may not.
            if self.hyper.has_class_embedding:
                raise ValueError("this U-Net needs cond.vector: its config has a class embedding")
            return None
        if dim is None:
            raise ValueError("this U-Net takes no cond.vector: its config embeds none")
        if len(vector) != batch or vector.numel() != batch * dim:
            raise ValueError(f"cond.vector must be ({batch} {dim}), not ({_shape(vector)})")
        if not self.hyper.has_class_embedding or self.hyper.class_input_dim is not None:
            return vector
        return vector.flatten() if self.hyper.class_embed_type else vector.flatten().long()


def _shape(tensor: Tensor) -> str:
    return " ".join(map(str, tensor.shape))


def _resnet(config: UNetConfig, in_channels: int, out_channels: int) -> ResnetBlock2D:
    return ResnetBlock2D(in_channels, out_channels, config.temb_channels, config.groups, config.eps)


def _transformers(config: UNetConfig, level: Level, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        Transformer2DModel(
            level.channels,
            level.heads,
            config.context_dim or 0,
            layers=level.transformer_layers,
            groups=config.groups,
            use_linear_projection=config.use_linear_projection,
        )
        for _ in range(count)
    )


def _class_embedding(config: UNetConfig) -> nn.Module | None:
    if config.num_class_embeds is not None and config.class_embed_type is None:
        return nn.Embedding(config.num_class_embeds, config.time_embed_dim)
    vector_dim = config.vector_dim or 0
    builders = {
        None: lambda: None,
        "timestep": lambda: TimestepEmbedding(config.levels[0].channels, config.time_embed_dim),
        "projection": lambda: TimestepEmbedding(vector_dim, config.time_embed_dim),
        "simple_projection": lambda: nn.Linear(vector_dim, config.time_embed_dim),
    }
    return builders[config.class_embed_type]()
