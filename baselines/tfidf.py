"""Content-based: the cosine of an item's TF-IDF vector and the mean one of the history (Lops et al., 2011)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from optuna.distributions import IntDistribution
from torch import Tensor

from baselines._one_score import OneScore
from bench.api import Batch, Schema
from bench.nn import MakeInputs

if TYPE_CHECKING:
    from scipy.sparse import csr_array

WORD = r"\b\w+\b"
ROWS = 16384  # of the training part scored at a time


class Tfidf(OneScore):
    """s = cos(v_i, mean over the history of v_h), 0 if either is empty; v = tf * idf, scaled to length 1.

    idf_w = 1 + ln((1 + n) / (1 + n_w)) over the n items that the training part shows or has in histories, n_w of them
    with the word w, 0 where n_w = 0. The ``vocabulary`` most frequent words of all texts are kept, or the most frequent
    sequences of up to ``ngram`` words.
    """

    space = {"vocabulary": IntDistribution(1000, 100_000, log=True), "ngram": IntDistribution(1, 2)}

    def __init__(self, schema: Schema, inputs: MakeInputs, *, vocabulary: int = 20_000, ngram: int = 1) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        super().__init__(schema)
        counter = CountVectorizer(max_features=vocabulary, ngram_range=(1, ngram), token_pattern=WORD, dtype=np.float32)
        self.counts: csr_array = counter.fit_transform(schema.texts)  # [items, words]; follows from the schema
        self.register_buffer("idf", torch.zeros(self.counts.shape[1]))

    @classmethod
    def declines(cls, schema: Schema) -> str:
        """It needs words and histories."""
        if not schema.history:
            return "no histories"
        return "" if any(re.search(WORD, text) for text in schema.texts) else "items have no text"

    def on_start(self, train: Any) -> None:
        """Weighs the words, then calibrates."""
        seen = np.unique(torch.cat([train.item, train.history.flatten()]).numpy())
        shown = self.counts[seen[seen > 0]]
        having = np.bincount(shown.indices, minlength=shown.shape[1])
        idf = np.where(having > 0, 1 + np.log((1 + shown.shape[0]) / (1 + having)), 0.0)
        self.get_buffer("idf").copy_(torch.from_numpy(idf))
        score = torch.cat([self.score(batch).cpu() for batch in train.inputs(ROWS)])
        self.calibrate(score, train.labels, train.labels)

    def vectors(self, items: np.ndarray) -> csr_array:
        """v of rows of the item table, [items, words]; row 0, the padding, is empty."""
        from sklearn.preprocessing import normalize

        return normalize(self.counts[items].multiply(self.get_buffer("idf").cpu().numpy()[None]).tocsr())

    def score(self, batch: Batch) -> Tensor:
        """The cosine of every row."""
        from scipy.sparse import csr_array
        from sklearn.preprocessing import normalize

        ids, place = np.unique(torch.cat([batch.item, batch.history.flatten()]).cpu().numpy(), return_inverse=True)
        item, history = place[: len(batch.item)], place[len(batch.item) :]
        vectors = self.vectors(ids)
        groups, length = batch.history.shape
        mean = csr_array((np.ones(len(history)), history, np.arange(groups + 1) * length), (groups, len(ids)))
        profile = normalize(mean @ vectors)  # the length of a vector is no matter to its cosine
        cosine = profile[batch.group.cpu().numpy()].multiply(vectors[item]).sum(axis=1)
        return torch.from_numpy(np.asarray(cosine, dtype=np.float32).ravel()).to(batch.item.device)
