"""Composes texts of the simulated data sets from the words and sentence patterns in ``wording.yaml``.

Each topic has two vocabularies, ``seen`` and ``shift``: other words of the same topic. Within a domain no word (nor its
stem) is in two of them, and none is a connecting word. So a model that counts words learns nothing about `shift`
texts from `seen` ones; a model that knows what words mean does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

TITLE_WORDS, ABSTRACT_WORDS = 3, 5  # topic words in a title and in an abstract, all different


@dataclass(frozen=True)
class Wording:
    """Composes texts of one domain.

    topics: (seen words, shift words) by name. titles, abstracts: patterns with numbered slots for topic words.
    """

    topics: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    titles: tuple[str, ...]
    abstracts: tuple[str, ...]

    def compose(
        self, topic: NDArray[np.int64], shifted: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[list[str], list[str]]:
        """Returns titles (5-9 words) and abstracts (15-20 words) of N items of topic [N].

        shifted: [N], which items have `shift` words. The number of draws depends on N alone, so the texts of other
        items stay when one becomes shifted.
        """
        n = len(topic)
        vocabularies = list(self.topics.values())
        smallest = min(len(words) for pair in vocabularies for words in pair)
        chosen = rng.random((n, smallest)).argsort(axis=1)[:, : TITLE_WORDS + ABSTRACT_WORDS]
        title = rng.integers(len(self.titles), size=n)
        abstract = rng.integers(len(self.abstracts), size=n)
        titles, abstracts = [], []
        for i in range(n):
            vocabulary = vocabularies[topic[i]][int(shifted[i])]
            words = [vocabulary[j] for j in chosen[i]]
            titles.append(_sentence(self.titles[title[i]].format(*words[:TITLE_WORDS])))
            abstracts.append(_sentence(self.abstracts[abstract[i]].format(*words[TITLE_WORDS:])))
        return titles, abstracts


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _read(domain: Mapping[str, Any]) -> Wording:
    vocabularies = {topic: (words["seen"], words["shift"]) for topic, words in domain["topics"].items()}
    topics = {topic: (tuple(seen.split()), tuple(shift.split())) for topic, (seen, shift) in vocabularies.items()}
    return Wording(topics, tuple(domain["titles"]), tuple(domain["abstracts"]))


_domains = yaml.safe_load(Path(__file__).with_name("wording.yaml").read_text("utf-8"))
NEWS, SHOP, VIDEO = (_read(_domains[domain]) for domain in ("news", "shop", "video"))
