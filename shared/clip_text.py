"""CLIP's text transformer (Radford et al. 2021, arXiv 2103.00020, section 2.4) in plain torch.

Same configuration, ``state_dict()`` keys and arithmetic as transformers' ``CLIPTextModel``, whose
import alone takes two to four times as long as a small picture; the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.errors import UserError


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's approximation of GELU; weights trained with one do not fit the other."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True)
class CLIPTextConfig:
    """The fields of transformers' ``CLIPTextConfig`` that the forward pass needs."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> CLIPTextConfig:
        """Read ``text_encoder/config.json``; fields that are not there take CLIP's defaults.

        Raises:
            UserError: an unknown activation, or heads that do not divide the width.
        """
        known = {field.name for field in fields(cls)}
        built = cls(**{key: value for key, value in config.items() if key in known})
        if built.hidden_act not in ACTIVATIONS:
            raise UserError(
                f"text encoder: hidden_act {built.hidden_act!r} is not one of "
                + ", ".join(ACTIVATIONS)
            )
        if built.hidden_size % built.num_attention_heads:
            raise UserError(
                f"text encoder: hidden_size {built.hidden_size} is not a multiple of "
                f"num_attention_heads {built.num_attention_heads}"
            )
        return built


class CLIPAttention(nn.Module):
    """Causal self-attention: (b n d) -> (b n d)."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.heads = config.num_attention_heads
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # b n (heads d) -> b heads n d
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class CLIPMLP(nn.Module):
    """Two linear layers with an activation between: (b n d) -> (b n d)."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class CLIPEncoderLayer(nn.Module):
    """Attention and perceptron, each after a LayerNorm and added to its input."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.self_attn = CLIPAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = CLIPMLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPEmbeddings(nn.Module):
    """Token plus position: ids (b n) -> (b n d)."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class CLIPEncoder(nn.Module):
    """The stack of layers (a module of its own only for the sake of the keys)."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CLIPEncoderLayer(config) for _ in range(config.num_hidden_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class CLIPTextTransformer(nn.Module):
    """Token ids (b n) -> transformers' ``last_hidden_state`` (b n d).

    Attributes:
        config: the dict it was built from, for saving.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        hyper = CLIPTextConfig.from_dict(config)
        self.embeddings = CLIPEmbeddings(hyper)
        self.encoder = CLIPEncoder(hyper)
        self.final_layer_norm = nn.LayerNorm(hyper.hidden_size, eps=hyper.layer_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        return self.final_layer_norm(self.encoder(self.embeddings(ids)))

    def reset_parameters(self) -> None:
        """Draw CLIP's initial weights: widths and depth scale each layer's standard deviation."""
        hyper = CLIPTextConfig.from_dict(self.config)
        width = hyper.hidden_size**-0.5
        residual = width * (2 * hyper.num_hidden_layers) ** -0.5
        nn.init.normal_(self.embeddings.token_embedding.weight, std=0.02)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=0.02)
        stds = {"out_proj": width, "fc1": (2 * hyper.hidden_size) ** -0.5}
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=stds.get(name.rpartition(".")[2], residual))
                nn.init.zeros_(module.bias)


def create(
    vocab_size: int,
    hidden_size: int,
    layers: int,
    heads: int,
    max_length: int,
    *,
    hidden_act: str = "quick_gelu",
) -> CLIPTextTransformer:
    """A text transformer to be trained from scratch.

    The vocabulary's last two ids are the start and the end of a text, as
    :func:`shared.tokenizer.train_tokenizer` arranges them.
    """
    model = CLIPTextTransformer(
        {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            # What transformers computes in, though the file is in half precision.
            "dtype": "float32",
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": 4 * hidden_size,
            "projection_dim": hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "max_position_embeddings": max_length,
            "hidden_act": hidden_act,
            "layer_norm_eps": 1e-5,
            "attention_dropout": 0.0,
            "bos_token_id": vocab_size - 2,
            "eos_token_id": vocab_size - 1,
            "pad_token_id": vocab_size - 1,
        }
    )
    model.reset_parameters()
    return model
