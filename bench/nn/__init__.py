"""Blocks of which methods are made, for files in ``baselines``, ``methods`` and plugins to import."""

from bench.nn.architecture import Architecture, MakeInputs, MakeTrunk, OnTrunk, base_rate, base_rate_of
from bench.nn.history import USER_ENCODERS, HistoryAttention, HistoryTransformer
from bench.nn.layers import Experts, Gate, Mlp, mix, mlp, mlps
from bench.nn.norms import BatchNorm, Dropout
