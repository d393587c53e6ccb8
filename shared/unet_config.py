"""Reading the U-Net's ``config.json``: what is supported, checked, with diffusers' defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import UserError

# Keys that change the arithmetic but of which only the listed values exist here. The first one is
# diffusers' default.
_ONLY: dict[str, tuple[Any, ...]] = {
    "_class_name": ("UNet2DConditionModel",),
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None, "timestep", "projection", "simple_projection"),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "dropout": (0.0,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
    "num_attention_heads": (None,),  # diffusers refuses it too: attention_head_dim is the number
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}

# Keys that change nothing in the arithmetic of what is supported.
_IGNORED = frozenset(
    {
        "addition_embed_type_num_heads",
        "addition_time_embed_dim",
        "sample_size",
        "upcast_attention",
    }
)

_DEFAULTS: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "use_linear_projection": False,
    "num_class_embeds": None,
    "time_embedding_dim": None,
    "time_cond_proj_dim": None,
    "projection_class_embeddings_input_dim": None,
    "class_embeddings_concat": False,
}

_DOWN_BLOCKS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
_UP_BLOCKS = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of the U-Net; the way down and the way up share all but the attention."""

    channels: int
    layers: int
    heads: int
    transformer_layers: int
    down_attention: bool
    up_attention: bool


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A checked configuration, its lists spelled out: ``levels`` from fine to coarse.

    ``context_dim`` is None where nothing attends: then the network is convolutions only.
    """

    in_channels: int
    out_channels: int
    levels: tuple[Level, ...]
    mid_attention: bool
    context_dim: int | None
    groups: int
    eps: float
    downsample_padding: int
    use_linear_projection: bool
    flip_sin_to_cos: bool
    freq_shift: float
    time_embed_dim: int
    time_cond_proj_dim: int | None
    class_embed_type: str | None
    num_class_embeds: int | None
    class_input_dim: int | None
    class_embeddings_concat: bool

    @property
    def temb_channels(self) -> int:
        """Channels of the embedding that the residual blocks get."""
        return self.time_embed_dim * (2 if self.class_embeddings_concat else 1)

    @property
    def has_class_embedding(self) -> bool:
        """Whether a vector is needed."""
        return self.class_embed_type is not None or self.num_class_embeds is not None

    @property
    def vector_dim(self) -> int | None:
        """Length of the vector that joins the time embedding; None if there is no such vector."""
        if not self.has_class_embedding:
            return self.time_cond_proj_dim
        return self.class_input_dim or 1


def parse_config(config: Mapping[str, Any]) -> UNetConfig:
    """Check a ``UNet2DConditionModel`` configuration and spell out its per-level lists.

    Raises:
        UserError: a value or a key that is not supported; the message names it and what is allowed.
    """
    _refuse_unsupported(config)
    values = _DEFAULTS | {key: config[key] for key in _DEFAULTS if key in config}
    channels = _integers(values, "block_out_channels", None)
    count = len(channels)
    down = _block_types(values, "down_block_types", _DOWN_BLOCKS, count)
    up = _block_types(values, "up_block_types", _UP_BLOCKS, count)[::-1]
    layers = _integers(values, "layers_per_block", count)
    heads = _integers(values, "attention_head_dim", count)
    context_dims = _integers(values, "cross_attention_dim", count)
    transformer_layers = _integers(values, "transformer_layers_per_block", count)
    groups = _integer(values, "norm_num_groups")
    mid_attention = config.get("mid_block_type") != "UNetMidBlock2D"
    # By diffusers' rule the middle has the last level's heads and context.
    attends = [down[i] or up[i] or (mid_attention and i == count - 1) for i in range(count)]
    for level, (width, level_heads) in enumerate(zip(channels, heads, strict=True)):
        if width % groups:
            raise UserError(
                f"U-Net config: block_out_channels[{level}] = {width} must be a multiple of "
                f"norm_num_groups = {groups}"
            )
        if width % level_heads and attends[level]:
            raise UserError(
                f"U-Net config: block_out_channels[{level}] = {width} must be a multiple of the "
                f"number of heads, attention_head_dim = {level_heads}"
            )
    attending = {dim for dim, does in zip(context_dims, attends, strict=True) if does}
    if len(attending) > 1:
        raise UserError(
            f"U-Net config: cross_attention_dim {context_dims} must have one value in all levels "
            "that attend, as there is one context"
        )
    class_embed_type = config.get("class_embed_type")
    projects = class_embed_type in ("projection", "simple_projection")
    class_input_dim = values["projection_class_embeddings_input_dim"] if projects else None
    if projects and class_input_dim is None:
        raise UserError(
            f"U-Net config: class_embed_type {class_embed_type!r} needs an integer "
            "projection_class_embeddings_input_dim"
        )
    if values["class_embeddings_concat"] and not (class_embed_type or values["num_class_embeds"]):
        raise UserError("U-Net config: class_embeddings_concat needs a class embedding")
    if values["downsample_padding"] not in (0, 1):
        raise UserError(
            f"U-Net config: downsample_padding {values['downsample_padding']!r} is not supported; "
            "allowed: 1, 0"
        )
    return UNetConfig(
        in_channels=_integer(values, "in_channels"),
        out_channels=_integer(values, "out_channels"),
        levels=tuple(
            Level(
                channels=channels[i],
                layers=layers[i],
                heads=heads[i],
                transformer_layers=transformer_layers[i],
                down_attention=down[i],
                up_attention=up[i],
            )
            for i in range(count)
        ),
        mid_attention=mid_attention,
        context_dim=next(iter(attending), None),
        groups=groups,
        eps=values["norm_eps"],
        downsample_padding=values["downsample_padding"],
        use_linear_projection=values["use_linear_projection"],
        flip_sin_to_cos=values["flip_sin_to_cos"],
        freq_shift=values["freq_shift"],
        time_embed_dim=values["time_embedding_dim"] or 4 * channels[0],
        time_cond_proj_dim=values["time_cond_proj_dim"],
        class_embed_type=class_embed_type,
        num_class_embeds=values["num_class_embeds"],
        class_input_dim=class_input_dim,
        class_embeddings_concat=values["class_embeddings_concat"],
    )


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if key in _DEFAULTS or key in _IGNORED:
            continue
        if key not in _ONLY:
            # Diffusers' bookkeeping begins with "_"; in keys of its later versions None and False
            # mean "off", by its custom.
            if key.startswith("_") or value is None or value is False:
                continue
            raise UserError(f"U-Net config: unknown key {key!r} with value {value!r}")
        value = False if isinstance(value, list | tuple) and not any(value) else value
        if value not in _ONLY[key]:
            allowed = ", ".join(map(repr, _ONLY[key]))
            raise UserError(f"U-Net config: {key} {value!r} is not supported; allowed: {allowed}")


def _integer(values: Mapping[str, Any], key: str) -> int:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"U-Net config: {key} must be a positive integer, not {value!r}")
    return value


def _integers(values: Mapping[str, Any], key: str, count: int | None) -> list[int]:
    """A list of positive integers, one a level; a single integer serves every level."""
    value = values[key]
    if isinstance(value, int) and count is not None:
        value = [value] * count
    if not isinstance(value, list | tuple) or not value or len(value) != (count or len(value)):
        raise UserError(
            f"U-Net config: {key} must be a list of positive integers, one for each of the levels "
            f"in block_out_channels, not {value!r}"
        )
    return [_integer({key: item}, key) for item in value]


def _block_types(
    values: Mapping[str, Any], key: str, allowed: Mapping[str, bool], count: int
) -> list[bool]:
    """Whether each block has cross-attention."""
    names: Sequence[str] = values[key]
    if len(names) != count or any(name not in allowed for name in names):
        raise UserError(
            f"U-Net config: {key} must be {count} (as block_out_channels) of "
            f"{', '.join(allowed)}, not {list(names)!r}"
        )
    return [allowed[name] for name in names]
