"""Metrics: pure functions of arrays, what is known of each, and how they become skill."""

from bench.metrics.exact import (
    EPSILON,
    METRICS,
    Array,
    Metric,
    auc,
    check,
    compute,
    ece,
    gauc,
    hit_rate,
    log_loss,
    log_loss_multiclass,
    mae,
    mrr,
    ndcg,
    rmse,
    skill,
    top_k,
    xauc,
)
