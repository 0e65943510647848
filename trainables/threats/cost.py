"""What the defense costs: training, passes, latency and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from trainables.deployed.predictor import Predictor
from trainables.device import accelerated, backend, synchronize
from trainables.metrics import intervals
from trainables.records.value import MetricValue, Missing
from trainables.threats.threat import Findings, Threat
from trainables.trial.context import TrialContext

_REPEATS = {1: 100, 128: 80}
"""Batch size -> timed predictions."""
_WARM_UP = 3
_FEWEST, _SECONDS = 20, 1.0
"""A slow predictor is timed no longer than this, but this often at least."""
_FEWEST_CERTIFIED, _MOST_CERTIFIED = 2, 20
"""Images whose certificate is timed: of many draws, one alone may take longer than the second."""


@dataclass(frozen=True, kw_only=True)
class Cost(Threat):
    """Measure what the deployed model costs to train and to ask; times are of this machine."""

    name = "cost"
    meaning = "What the defense costs in training time, forward passes, latency and memory."
    repeatable = False
    VERSION = 4

    def metric_names(self) -> tuple[str, ...]:
        """List the costs."""
        latencies = tuple(
            f"latency_ms_{q}{suffix}" for suffix in ("", "_batch128") for q in ("p50", "p95")
        )
        return (
            "training_seconds",
            "forward_passes_per_prediction",
            *latencies,
            "peak_memory_mib",
            "certification_seconds",
        )

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Add the epochs of all trainings behind the model, and time predictions here and now."""
        phases = [intervals.total(np.array(seconds)) for seconds in ctx.phases.values()]
        metrics: dict[str, MetricValue] = {
            "training_seconds": intervals.sum_of(phases),
            "forward_passes_per_prediction": intervals.exact(
                predictor.forward_passes_per_prediction
            ),
            "peak_memory_mib": intervals.exact(_peak_memory_mib(predictor, ctx)),
            "certification_seconds": _certification_seconds(predictor, ctx),
        }
        timed = {}
        for batch, suffix in ((1, ""), (128, "_batch128")):
            times = _latencies_ms(predictor, ctx, batch)
            timed[str(batch)] = len(times)
            metrics[f"latency_ms_p50{suffix}"] = intervals.quantile(times, 0.50)
            metrics[f"latency_ms_p95{suffix}"] = intervals.quantile(times, 0.95)
        return Findings(
            metrics=metrics,
            notes={"timed_predictions": timed},
        )


def _images(ctx: TrialContext, batch: int) -> torch.Tensor:
    pool = ctx.held_out
    return pool.images(torch.arange(batch, device=pool.labels.device) % len(pool))


def _latencies_ms(predictor: Predictor, ctx: TrialContext, batch: int) -> intervals.Floats:
    x, generator = _images(ctx, batch), ctx.generator("cost")
    times: list[float] = []
    least = _WARM_UP + _FEWEST
    for _ in range(_WARM_UP + _REPEATS[batch]):
        if len(times) >= least and sum(times) > 1000 * _SECONDS:
            break
        started = time.perf_counter()
        predictor.predict(x, generator)
        synchronize(ctx.device)
        times.append(1000 * (time.perf_counter() - started))
    return np.array(times[_WARM_UP:])


def _certification_seconds(predictor: Predictor, ctx: TrialContext) -> MetricValue:
    """Time the certificates of a few images, one at a time."""
    images, generator = _images(ctx, _MOST_CERTIFIED), ctx.generator("cost", "certification")
    times: list[float] = []
    for x in torch.split(images, 1):
        if len(times) >= _FEWEST_CERTIFIED and sum(times) > _SECONDS:
            break
        started = time.perf_counter()
        if predictor.certificates(x, generator) is None:
            return Missing("the deployed model certifies nothing")
        synchronize(ctx.device)
        times.append(time.perf_counter() - started)
    return intervals.mean(np.array(times), low=0.0)


def _peak_memory_mib(predictor: Predictor, ctx: TrialContext) -> float:
    """Add the weights and the most that tensors held at once during a prediction, in MiB."""
    x, generator = _images(ctx, 128), ctx.generator("cost")
    tensors = [*predictor.model.parameters(), *predictor.model.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if accelerated(ctx.device):
        gpu = backend(ctx.device)
        gpu.reset_peak_memory_stats(ctx.device)
        before = gpu.memory_allocated(ctx.device)
        predictor.predict(x, generator)
        peak = gpu.max_memory_allocated(ctx.device) - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            predictor.predict(x, generator)
        assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
        changes = [
            event.nbytes()
            for event in profiler.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ]
        peak = int(np.cumsum([0, *changes]).max())
    return float((weights + peak) / 2**20)
