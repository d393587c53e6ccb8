"""Text to cross-attention context: a CLIP tokenizer and text transformer behind one door."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from shared.clip_text import CLIPTextTransformer, create
from shared.tokenizer import load_tokenizer, max_length, train_tokenizer
from shared.weights import TRANSFORMERS, load_into, load_state, read_config, save_component

__all__ = ["TextEncoder", "create", "train_tokenizer"]


class TextEncoder(nn.Module):
    """Prompts -> context (b n d), the last hidden state, padding included and unmasked.

    That is what Stable Diffusion's U-Net cross-attends to: every prompt fills all ``max_length``
    tokens, start, words, end, and ends again as padding.

    Attributes:
        model: the trainable transformer.
        tokenizer: the ``tokenizers.Tokenizer``, set to pad and truncate to ``max_length``.
        max_length: tokens of an encoded prompt (n), start and end included.
    """

    def __init__(self, model: CLIPTextTransformer, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length(tokenizer)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> TextEncoder:
        """Read ``text_encoder/`` and ``tokenizer/`` of a model folder in diffusers' layout.

        Raises:
            UserError: a file missing, truncated or not fitting its config.
        """
        root = Path(folder) / "text_encoder"
        config = read_config(root)
        # transformers 5 saves the keys without `text_model.`, earlier ones with it; the oldest
        # saved the position ids 0, 1, 2, ... too.
        state = {
            key.removeprefix("text_model."): tensor
            for key, tensor in load_state(root, TRANSFORMERS).items()
            if not key.endswith("position_ids")
        }
        model = load_into(
            lambda: CLIPTextTransformer(config), state, root, device=device, dtype=dtype
        )
        return cls(model, load_tokenizer(Path(folder) / "tokenizer"))

    @classmethod
    def from_scratch(
        cls, tokenizer: Path, *, hidden_size: int, layers: int, heads: int
    ) -> TextEncoder:
        """A new transformer for the vocabulary and length of the tokenizer folder."""
        loaded = load_tokenizer(tokenizer)
        model = create(loaded.get_vocab_size(), hidden_size, layers, heads, max_length(loaded))
        return cls(model, loaded)

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write ``folder`` (a model's ``text_encoder/``) so that transformers opens it too."""
        # With the prefix, for transformers before 5; later ones take both.
        save_component(self.model, folder, dtype, basename=TRANSFORMERS, prefix="text_model.")

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Ids (b n), n = ``max_length``, on the CPU; what does not fit is cut off."""
        encodings = self.tokenizer.encode_batch([_utf8(prompt) for prompt in prompts])
        return torch.tensor([encoding.ids for encoding in encodings], dtype=torch.long)

    def truncated(self, prompt: str) -> str | None:
        """What the limit cuts off the prompt's end, in whole words; None if all of it fits."""
        text = _utf8(prompt)
        encoding = self.tokenizer.encode(text)
        if not encoding.overflowing:
            return None
        rest = encoding.overflowing[0]
        first = rest.special_tokens_mask.index(0)
        start = rest.offsets[first][0]
        # A word of several tokens may be cut in its midst: tell the whole word.
        while start > 0 and text[start - 1].isalpha() and text[start].isalpha():
            start -= 1
        return text[start:].strip()

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (b n) -> context (b n d); trainable."""
        return self.model(ids)

    def forward_ids(self, ids: Tensor) -> Tensor:
        """Token ids (b n), on any device -> context (b n d); trainable."""
        return self(ids.to(self.model.embeddings.token_embedding.weight.device))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> context (b n d), without gradients."""
        return self.forward_ids(self.tokenize(prompts))


def _utf8(text: str) -> str:
    """``text`` with "?" for lone surrogates, which a command line may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
