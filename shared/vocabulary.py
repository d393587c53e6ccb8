"""The words a model was trained on, and the words of a prompt that were not among them.

A model's ``tokenizer/words.txt`` holds one "word<TAB>count" a line, most frequent first.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

WORDS_FILE = "words.txt"

# Letters only, as CLIP's tokenizer splits text; its clitics ('s, 't, ...) are no words.
_WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)(?![^\W\d_])|([^\W\d_]+)")


def words_in(text: str) -> list[str]:
    """The words of ``text`` in their order, in lower case, without digits and punctuation."""
    lowered = unicodedata.normalize("NFC", text).lower()
    return [match[1] for match in _WORD.finditer(lowered) if match[1]]


def count_words(captions: Iterable[str]) -> Counter[str]:
    """How often each word occurs in the captions."""
    return Counter(word for caption in captions for word in words_in(caption))


def write_words(counts: Counter[str], path: Path) -> None:
    """Write the words with their counts, most frequent first, then by alphabet."""
    lines = (f"{word}\t{n}\n" for word, n in sorted(counts.items(), key=lambda i: (-i[1], i[0])))
    path.write_text("".join(lines), encoding="utf-8")


def read_words(path: Path) -> list[str]:
    """The words of a file that :func:`write_words` made, most frequent first."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [line.split("\t")[0] for line in lines if line]


def add_words(captions: Iterable[str], path: Path) -> None:
    """Count the words of further captions into a file that :func:`write_words` made."""
    lines = path.read_text(encoding="utf-8").split("\n")
    before = Counter({word: int(n) for word, n in (line.split("\t") for line in lines if line)})
    write_words(before + count_words(captions), path)


def unknown_words(
    prompt: str, words: Iterable[str], nearest: int = 3
) -> list[tuple[str, list[str]]]:
    """The prompt's words that are not among ``words``, each once, with the nearest known ones.

    Nearness is of spelling (difflib); a word that looks like none of them comes with an empty list.
    """
    known = dict.fromkeys(words)
    strange = [word for word in dict.fromkeys(words_in(prompt)) if word not in known]
    candidates = list(known)
    # difflib is quadratic in length: a 10,000-letter "word" has no neighbours anyway.
    longest = max(map(len, candidates), default=0) * 2
    return [
        (word, get_close_matches(word, candidates, n=nearest) if len(word) <= longest else [])
        for word in strange
    ]
