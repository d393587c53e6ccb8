"""The text encoder and tokenizer against transformers' own, and on prompts of every sort."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from shared.clip_text import CLIPTextTransformer
from shared.errors import UserError
from shared.text import TextEncoder, create, train_tokenizer
from shared.tokenizer import load_tokenizer
from shared.vocabulary import (
    add_words,
    count_words,
    read_words,
    unknown_words,
    words_in,
    write_words,
)

CAPTIONS = [
    "a red apple on a plain blue background",
    "The astronaut's bicycle is to the left of an orange fish!",
    "photo of two hippopotamuses, naïvely painted",
] * 3

PROMPTS = [
    "a red apple",
    "",
    "  THE astronaut's   fish!! 42 ",
    "an unseen xylophone",
    "emoji 🦊👩‍👩‍👧🏽 and تفاحة حمراء and 赤いリンゴ and cafe\u0301",
    "control \x00\x07\x1b characters \u202e\u200b\ufeff",
    "x" * 10_000,
    "red apple " * 1000,
    "<|endoftext|> in <|startoftext|> words",
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A model's text half: tokenizer/ and text_encoder/, 16 tokens long."""
    root = tmp_path_factory.mktemp("model")
    train_tokenizer(CAPTIONS, None, 16, root / "tokenizer")
    torch.manual_seed(0)
    encoder = TextEncoder.from_scratch(root / "tokenizer", hidden_size=32, layers=2, heads=4)
    encoder.save(root / "text_encoder", torch.float32)
    return root


def test_every_word_of_the_captions_is_one_token(model_folder):
    tokenizer = load_tokenizer(model_folder / "tokenizer")
    for word in {word for caption in CAPTIONS for word in words_in(caption)}:
        ids = tokenizer.encode(word).ids
        assert len([i for i in ids if i != ids[-1]]) == 2, word  # the start and the word


def test_ids_equal_those_of_transformers(model_folder, tmp_path):
    encoder = TextEncoder.load(model_folder)
    theirs = CLIPTokenizer.from_pretrained(model_folder / "tokenizer")
    assert theirs.model_max_length == encoder.max_length == 16
    ids = theirs(
        PROMPTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    ).input_ids
    assert torch.equal(encoder.tokenize(PROMPTS), ids)


def test_vocab_and_merges_alone_give_the_same_ids(model_folder, tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model_folder / "tokenizer" / name).read_bytes())
    whole, parts = load_tokenizer(model_folder / "tokenizer"), load_tokenizer(tmp_path)
    for prompt in PROMPTS:
        assert whole.encode(prompt).ids == parts.encode(prompt).ids


def test_unseen_bytes_are_no_end_of_text(model_folder):
    ids = TextEncoder.load(model_folder).tokenize(["ζ𝄞 \x00"])[0].tolist()
    assert ids.index(ids[-1]) == 8  # start, 2 + 4 bytes and one for \x00, then the end


def test_a_vocabulary_of_a_given_size(tmp_path):
    assert train_tokenizer(CAPTIONS, 540, 16, tmp_path) == 540
    assert load_tokenizer(tmp_path).get_vocab_size() == 540
    with pytest.raises(UserError, match="at least 514"):
        train_tokenizer(CAPTIONS, 513, 16, tmp_path)
    with pytest.raises(UserError, match="max_length"):
        train_tokenizer(CAPTIONS, None, 2, tmp_path)


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
def test_hidden_states_equal_those_of_transformers(hidden_act, tmp_path):
    theirs = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=99,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=20,
            hidden_act=hidden_act,
        )
    ).eval()
    ours = CLIPTextTransformer(theirs.config.to_dict())
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(0, 99, (3, 20))
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).last_hidden_state).abs().max() <= 1e-5


def test_ours_saved_opens_in_transformers(model_folder):
    encoder = TextEncoder.load(model_folder)
    theirs = CLIPTextModel.from_pretrained(model_folder / "text_encoder").eval()
    with torch.no_grad():
        expected = theirs(encoder.tokenize(PROMPTS)).last_hidden_state
    assert (encoder.encode(PROMPTS) - expected).abs().max() <= 1e-5


def test_theirs_saved_loads_with_and_without_prefix(model_folder, tmp_path):
    before = TextEncoder.load(model_folder)
    model = CLIPTextModel.from_pretrained(model_folder / "text_encoder")
    model.save_pretrained(tmp_path / "text_encoder")  # transformers 5 leaves the prefix out
    (tmp_path / "tokenizer").symlink_to(model_folder / "tokenizer")
    after = TextEncoder.load(tmp_path, dtype=torch.bfloat16)
    assert after.encode(["a fish"]).dtype == torch.bfloat16
    for ours, theirs in zip(after.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs.bfloat16())


def test_fresh_weights_are_distributed_as_transformers_draws_them():
    torch.manual_seed(0)
    ours = create(300, 64, 3, 4, 16)
    theirs = CLIPTextModel(CLIPTextConfig(**ours.config))
    for (name, mine), other in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        assert mine.std(correction=0) == pytest.approx(
            other.std(correction=0).item(), rel=0.15, abs=1e-9
        ), name


def test_gradients_reach_every_parameter(model_folder):
    encoder = TextEncoder.load(model_folder).train().requires_grad_(True)
    encoder.forward_ids(encoder.tokenize(PROMPTS)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_truncated_tells_the_words_cut_off(model_folder):
    encoder = TextEncoder.load(model_folder)
    assert encoder.truncated("a red apple") is None
    assert encoder.truncated("") is None
    assert encoder.truncated("red " * 14) is None  # 14 words, start and end
    assert encoder.truncated("red " * 14 + "blue Fish!") == "blue Fish!"
    assert encoder.truncated("red " * 13 + "xylophone fish") == "xylophone fish"
    assert encoder.truncated("x" * 10_000) == "x" * 10_000


def test_lone_surrogates_are_taken(model_folder):
    encoder = TextEncoder.load(model_folder)
    assert torch.equal(encoder.tokenize(["a \udcff fish"]), encoder.tokenize(["a ? fish"]))


def test_a_broken_tokenizer_folder_is_named(model_folder, tmp_path):
    with pytest.raises(UserError, match="not a CLIP tokenizer folder"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(UserError, match="not a CLIP tokenizer folder"):
        load_tokenizer(tmp_path)


def test_unusable_configs_are_named():
    config = create(300, 64, 1, 4, 16).config
    with pytest.raises(UserError, match="quick_gelu, gelu"):
        CLIPTextTransformer({**config, "hidden_act": "relu"})
    with pytest.raises(UserError, match="num_attention_heads 5"):
        CLIPTextTransformer({**config, "num_attention_heads": 5})


def test_words_are_kept_with_the_tokenizer(model_folder):
    words = read_words(model_folder / "tokenizer" / "words.txt")
    assert words[0] == "a"
    assert {"astronaut", "naïvely"} <= set(words)
    assert not {"s", "red apple", "!"} & set(words)


def test_unknown_words_come_with_their_neighbours():
    words = ["apple", "orange", "astronaut", "a"]
    assert unknown_words("an APPEL, a zzz and orange's Appel 42", words) == [
        ("an", ["a"]),
        ("appel", ["apple"]),
        ("zzz", []),
        ("and", []),
    ]
    assert unknown_words("x" * 10_000, words) == [("x" * 10_000, [])]
    assert unknown_words("", words) == []


def test_words_of_further_captions_are_added(tmp_path):
    file = tmp_path / "words.txt"
    write_words(count_words(["a red apple", "a flute"]), file)
    add_words(["a flute alone", "flute"], file)
    assert file.read_text() == "a\t3\nflute\t3\nalone\t1\napple\t1\nred\t1\n"
