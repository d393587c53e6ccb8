"""CLIP's tokenizer: lower-case, byte-level byte-pair encoding with a mark at the end of a word.

Sennrich et al. 2016 (arXiv 1508.07909), over bytes as in GPT-2, split and joined as CLIP does. The
Rust library ``tokenizers`` does the work, here and behind transformers' ``CLIPTokenizer``; used
directly it loads in a twentieth of the time. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from shared.errors import UserError
from shared.files import whole_file
from shared.vocabulary import WORDS_FILE, count_words, write_words

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
_SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def build(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """CLIP's pipeline (normalize, split, merge, add start and end) around a vocabulary."""
    tokenizer = Tokenizer(
        BPE(
            vocab,
            merges,
            end_of_word_suffix=END_OF_WORD,
            continuing_subword_prefix="",
            unk_token=EOS,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if BOS in vocab and EOS in vocab:
        tokenizer.add_special_tokens([BOS, EOS])
        tokenizer.post_processor = processors.RobertaProcessing(
            (EOS, vocab[EOS]), (BOS, vocab[BOS]), trim_offsets=False, add_prefix_space=False
        )
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a CLIP tokenizer folder; it pads and truncates to the length the folder states.

    Takes ``tokenizer.json``, or ``vocab.json`` with ``merges.txt`` as older models have.

    Raises:
        UserError: a file missing or not what it should be.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            tokenizer = _from_vocab_and_merges(folder)
        settings = _read_settings(folder)
        pad = settings["pad_token"]
        length = int(settings["model_max_length"])
        pad_id = tokenizer.token_to_id(pad)
        if pad_id is None:
            raise ValueError(f"the padding token {pad!r} is not in the vocabulary")
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length, pad_id=pad_id, pad_token=pad)
    except Exception as error:  # the Rust side raises bare Exception for a broken tokenizer.json
        raise UserError(f"{folder}: not a CLIP tokenizer folder ({error})") from error
    return tokenizer


def max_length(tokenizer: Tokenizer) -> int:
    """How many tokens a loaded tokenizer pads and truncates every text to."""
    if tokenizer.truncation is None:
        raise ValueError("this tokenizer has no greatest length")
    return tokenizer.truncation["max_length"]


def train_tokenizer(
    captions: Iterable[str], vocab_size: int | None, max_length: int, out: Path
) -> int:
    """Learn a CLIP-format vocabulary from captions and write it as a tokenizer folder.

    Writes ``tokenizer.json``, ``vocab.json``, ``merges.txt``, ``tokenizer_config.json``,
    ``special_tokens_map.json`` and ``words.txt`` (every word with its count).

    Args:
        captions: the texts to learn from.
        vocab_size: the most tokens to have; None for as many as it takes to make every word of the
            captions one token. 514 of them are bytes and the two special tokens.
        max_length: tokens of an encoded text, start and end included.
        out: the folder to write, made if need be.

    Returns:
        The number of tokens; ids are bytes, bytes that end a word, merges, start, end.

    Raises:
        UserError: ``vocab_size`` below 514 or ``max_length`` below 3.
    """
    texts = list(captions)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = [*alphabet, *(char + END_OF_WORD for char in alphabet)]
    smallest = len(base) + 2
    if vocab_size is not None and vocab_size < smallest:
        raise UserError(f"a tokenizer needs at least {smallest} tokens, not {vocab_size}")
    if max_length < 3:
        raise UserError(f"max_length must be at least 3 (start, a word, end), not {max_length}")
    merges = _learn_merges(texts, alphabet, None if vocab_size is None else vocab_size - smallest)
    tokens = [*base, *("".join(pair) for pair in merges), BOS, EOS]
    # Two merges may spell one token ("a"+"bc", "ab"+"c"): it has one id.
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}

    out.mkdir(parents=True, exist_ok=True)
    build(vocab, merges).save(str(out / "tokenizer.json"))
    specials = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
    _write_json(out / "vocab.json", vocab)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    _write_text(out / "merges.txt", "\n".join(lines) + "\n")
    _write_json(out / "special_tokens_map.json", specials)
    _write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": max_length,
            "do_lower_case": True,
            "add_prefix_space": False,
            "errors": "replace",
            **specials,
        },
    )
    write_words(count_words(texts), out / WORDS_FILE)
    return len(vocab)


def _learn_merges(texts: list[str], alphabet: list[str], most: int | None) -> list[tuple[str, str]]:
    """The merges in the order they are learnt; at most ``most``."""
    learner = build({EOS: 0}, [])
    # The trainer has only those word-ending bytes it saw, we all 256: ask for the most, cut after.
    trainer = BpeTrainer(
        vocab_size=10_000_000,
        min_frequency=0,
        initial_alphabet=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges][:most]


def _from_vocab_and_merges(folder: Path) -> Tokenizer:
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    return build(vocab, [(left, right) for left, right in pairs])


def _read_settings(folder: Path) -> dict[str, Any]:
    """Padding token and greatest length, which are spread over two files in older models."""
    settings: dict[str, Any] = {"pad_token": EOS, "model_max_length": 77}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings |= json.loads((folder / name).read_text(encoding="utf-8"))
    if isinstance(settings["pad_token"], dict):  # a serialized AddedToken
        settings["pad_token"] = settings["pad_token"]["content"]
    return settings


def _write_text(path: Path, text: str) -> None:
    with whole_file(path, overwrite=True) as file:
        file.write(text.encode())


def _write_json(path: Path, value: object) -> None:
    _write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
