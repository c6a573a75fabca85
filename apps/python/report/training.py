"""Loss curves."""
from functools import partial

import numpy as np

from report.drawing import band, legend_below, log_if_wide
from report.page import missing
from report.style import LOSS_COLOURS, STAGES, plain, style, task_name


def running_mean(step, values, points=160):
    """At `points` steps the mean of a window of a 20th of the curve, narrower at its steep beginning. Not the median: losses of
    batches of several samples have several peaks, between which it would jump."""
    step, values = finite(step, values)
    total = np.concatenate([[0], np.cumsum(values)])
    at = np.unique(np.linspace(0, len(step) - 1, points).astype(int))
    half = np.minimum(at, max(len(step) // 40, min(10, len(step) // 10)))
    low, high = at - half, np.minimum(at + half + 1, len(step))
    return step[at], (total[high] - total[low]) / (high - low)


def finite(step, values):
    good = np.isfinite(values)
    return step[good], values[good]


def thin(step, values, points=400):
    every = -(-len(step) // points)
    return step[::every], values[::every]


def loss_keys(curve):
    """The losses of a training; not the total where its parts are there."""
    skip = {"step", "lr", "gradient_norm", "epoch", "tokens", "jets", "usage", "perplexity"}
    if "ntp" in curve or "reconstruction" in curve:
        skip |= {"loss", "val_loss"}
    return [k for k in curve if k not in skip and np.isfinite(curve[k]).any()]


def draw_curve(ax, curve):
    """Raw values faint, their running mean on top; validation as points."""
    names = {"ntp": "next token", "mpm": "masked particle"}
    for k, colour in zip(loss_keys(curve), LOSS_COLOURS * 2):
        step, values = finite(curve["step"], curve[k])
        if k.startswith("val_"):
            ax.plot(step, values, "o", ms=3.5, color=colour, label=f"{names.get(k[4:], plain(k[4:]))}, validation")
            continue
        ax.plot(*thin(step, values), color=colour, alpha=0.22, lw=0.7)
        ax.plot(*running_mean(step, values), color=colour, label=names.get(k, plain(k.replace("_", " "))))
    ax.set(xlabel="step", ylabel="loss / nat" if "ntp" in loss_keys(curve) else "loss")
    log_if_wide(ax)
    ax.margins(x=0)


def draw_entropy(ax, entropy):
    ax.axhline(entropy, color="k", ls=":", lw=1.3)
    ax.annotate("unigram entropy of the tokens", (0.98, entropy), xycoords=("axes fraction", "data"), ha="right",
                xytext=(0, 4), textcoords="offset points", fontsize=9.5)


def draw_training(page, curves, entropy):
    panels = []
    for name, curve in curves.items():
        if not loss_keys(curve):
            continue
        panels.append((f"training_{name}", f"Training curves of the {STAGES[name]}", partial(draw_training_panel, page, name, curve, entropy)))
    if not panels:
        return missing("pre-training curves", "tokenizer/metrics.jsonl, pretrain/metrics.jsonl")
    return page.figures(panels, "Training losses of the tokenizer and the backbone. Faint: every step; line: running mean. A "
                        "next-token loss below the dotted line means that the model has learnt more than how often each token occurs.")


def draw_training_panel(page, name, curve, entropy):
    figure, ax = page.panel()
    draw_curve(ax, curve)
    if "ntp" in curve and entropy:
        draw_entropy(ax, entropy)
    ax.legend(loc="upper right" if name == "tokenizer" else "best")
    page.stamp(ax, STAGES[name])
    return figure


def draw_finetuning(page, studies):
    panels = []
    for task, group in studies.items():
        for key, label in (("loss", "training loss"), ("val_loss", "validation loss")):
            curves = {k: [r for r in runs if np.isfinite(r.get(key, np.nan)).any()] for k, runs in group.items()}
            curves = {k: runs for k, runs in curves.items() if runs}
            if curves:
                panels.append((f"finetuning_{task}_{key}", f"{task_name(task)}: {label}", partial(draw_losses, page, task, curves, key, label)))
    if not panels:
        return missing("fine-tuning curves", "finetune/TASK__METHOD__STRATEGY__seedK/metrics.jsonl")
    return "<h3>Fine-tuning</h3>" + page.figures(panels, "Losses of every task, mean over seeds; the band is their standard deviation. "
           "Training losses are running means. A vertical line is where a strategy releases its backbone. "
           "A pre-trained start shows as a lower loss at the same number of steps.")


def draw_losses(page, task, curves, key, label):
    figure, ax = page.panel(len(curves))
    for strategy, runs in curves.items():
        points = [running_mean(r["step"], r[key]) if key == "loss" else finite(r["step"], r[key]) for r in runs]
        steps = min((x for x, _ in points), key=lambda x: x[-1])  # as far as every seed went
        band(ax, steps, [np.interp(steps, *p) for p in points], strategy, **({} if key == "loss" else {"marker": "o", "ms": 3}))
        for boundary in {r["boundary"] for r in runs if "boundary" in r}:
            ax.axvline(boundary, color=style(strategy)["color"], lw=0.9, ls=":", zorder=0)
    last = max(r["step"][-1] for runs in curves.values() for r in runs)
    ax.set(xlabel="step", ylabel=label, xlim=(0, 1.02 * last))
    log_if_wide(ax)
    page.stamp(ax, task_name(task))
    legend_below(figure, ax)
    return figure
