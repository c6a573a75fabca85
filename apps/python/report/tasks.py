"""What a model makes of its task: momentum, background rejection, classes."""
import html
from collections import defaultdict
from functools import partial

import numpy as np

from report.drawing import error_bars, legend_below, spread_of
from report.page import missing
from report.reading import having
from report.style import OPEN_MATRICES, plain, strategy_name, style, task_name


def draw_momentum(page, evals):
    body = ""
    for task, group in having(evals, "momentum", "pt_low").items():
        panels = [(f"momentum_{task}_{q}", f"{q} in bins of true momentum", partial(draw_bins, page, task, group, q, label)) for q, label in
                  (("response", "response, median of $p_T$ / $p_T^\\mathrm{true}$"), ("resolution", "resolution, IQR / median"))]
        body += page.figures(panels, "Response and resolution in bins of the true visible transverse momentum. Response: closer to one is "
                             "better; resolution: lower is better. Bars are statistical, bands the standard deviation over seeds; "
                             "points of one bin stand side by side.")
    return (body or missing("momentum bins", "eval/TASK__METHOD__STRATEGY__seedK.json: momentum")) + draw_response(page, evals)


def draw_bins(page, task, group, quantity, label):
    figure, ax = page.panel(len(group), 4.0)
    for i, (key, runs) in enumerate(group.items()):
        draw_bin_points(ax, runs, quantity, key, (i + 0.5) / len(group) - 0.5)
    edges = {e for runs in group.values() for r in runs for e in r["pt_low"] + r["pt_high"]}
    for edge in edges:
        ax.axvline(edge, color="#eeeeee", lw=0.8, zorder=-2)
    if quantity == "response":
        ax.axhline(1, color="#999999", lw=1, ls=":", zorder=0)
    else:
        ax.set_ylim(bottom=0)
    ax.set(xlabel="true visible $p_T$ / GeV", ylabel=label, xlim=(min(edges), max(edges)))
    page.stamp(ax, task_name(task))
    legend_below(figure, ax)
    return figure


def draw_bin_points(ax, runs, quantity, key, shift):
    """Points of a strategy: averaged over the seeds that filled the bin, shifted sideways so that bars stay apart."""
    bins = defaultdict(list)
    for r in runs:
        errors = r.get(f"{quantity}_error") or [0] * len(r["pt_low"])
        for low, high, value, error in zip(r["pt_low"], r["pt_high"], r[quantity], errors):
            bins[low, high].append((value, error))
    x = np.array([(a + b) / 2 + 0.8 * shift * (b - a) for a, b in sorted(bins)])
    values = [np.array(bins[k], float) for k in sorted(bins)]  # (seeds, 2)
    mean, bars = np.array([v.mean(0) for v in values]).T
    spread = np.array([spread_of(v)[0] for v in values])
    look = style(key)
    ax.plot(x, mean, marker="o", ms=2.6, lw=0.9, **look)
    error_bars(ax, x, mean, bars, look["color"])
    ax.fill_between(x, mean - spread, mean + spread, color=look["color"], alpha=0.1, lw=0)


def draw_response(page, evals):
    body = ""
    for task, group in having(evals, "response_histogram", "edges").items():
        panels = [(f"response_{task}_{scale}", f"predicted over true momentum, {scale} axis", partial(draw_response_panel, page, task, group, scale))
                  for scale in ("linear", "log")]
        inside = [np.mean([np.sum(r["counts"]) for r in runs]) / (runs[0]["n_all"] or np.sum(runs[0]["counts"]) or 1) for runs in group.values()]
        body += page.figures(panels, "Predicted over true transverse momentum, mean over seeds, on a linear and a logarithmic axis; the band is "
                             f"statistical. Narrower and centred on one is better. {100 * min(inside):.1f} to {100 * max(inside):.1f} % of the "
                             "jets lie in the drawn range.")
    return body


def draw_response_panel(page, task, group, scale):
    figure, ax = page.panel(len(group), 4.0)
    for key, runs in group.items():
        draw_response_histogram(ax, runs, key)
    ax.axvline(1, color="#999999", lw=1, ls=":", zorder=0)
    ax.set(xlabel="$p_T$ / $p_T^\\mathrm{true}$", ylabel="share of jets / bin width", yscale=scale)
    ax.margins(x=0)
    ax.set_ylim(bottom=0 if scale == "linear" else least_density(group))
    page.stamp(ax, task_name(task))
    legend_below(figure, ax)
    return figure


def least_density(group):
    """One jet in a bin; of weighted jets one of typical weight."""
    r = next(iter(group.values()))[0]
    one = sum(r["squares"]) / sum(r["counts"]) if "squares" in r and sum(r["counts"]) > 0 else 1
    return one / (r["n_all"] or sum(r["counts"]) or 1) / (r["edges"][1] - r["edges"][0])


def draw_response_histogram(ax, runs, key):
    """All seeds see the same test jets, so the error is that of one."""
    counts, edges = np.mean([r["counts"] for r in runs], 0), np.asarray(runs[0]["edges"], float)
    jets = runs[0]["n_all"] or counts.sum() or 1
    error = np.sqrt(np.mean([r.get("squares", r["counts"]) for r in runs], 0))
    scale, look = 1 / jets / np.diff(edges), style(key)
    ax.stairs((counts + error) * scale, edges, baseline=(counts - error) * scale, fill=True, color=look["color"], alpha=0.13, lw=0)
    ax.stairs(counts * scale, edges, lw=1.3, **look)


def draw_roc(page, evals):
    body = ""
    for task, group in having(evals, "roc", "signal_efficiency").items():
        body += page.figures([(f"roc_{task}", "background rejection against signal efficiency", partial(draw_roc_panel, page, task, group))],
                             f"{html.escape(task_name(task))}, mean of the logarithm over seeds with the band of their standard deviation. Higher is better; a "
                             "rejection of 100 at 0.8 means that one background jet in a hundred passes where four signal jets in five do. The "
                             "grey line marks 80 % efficiency. A curve begins where some background is left in every seed.")
    return body or missing("ROC curves", "eval/TASK__METHOD__STRATEGY__seedK.json: roc")


def draw_roc_panel(page, task, group):
    figure, ax = page.panel(len(group) + 1, 4.4)
    top = max(draw_rejection(ax, runs, key) for key, runs in group.items())
    grid = np.linspace(0.02, 1, 99)
    ax.plot(grid, 1 / grid, color="#aaaaaa", lw=1, ls=":", label="no discrimination")
    ax.axvline(0.8, color="#cccccc", lw=0.8, zorder=0)
    ax.set(xlabel="signal efficiency", ylabel="background rejection, 1 / background eff.", yscale="log", xlim=(0, 1), ylim=(1, 2 * top))
    page.stamp(ax, task_name(task))
    legend_below(figure, ax)
    return figure


def draw_rejection(ax, runs, key):
    """Returns the largest rejection drawn."""
    grid = np.linspace(0.02, 1, 197)
    rows = np.array([log_rejection(r, grid) for r in runs])
    mean, spread = rows.mean(0), spread_of(rows)
    ax.plot(grid, 10 ** mean, **style(key))
    ax.fill_between(grid, 10 ** (mean - spread), 10 ** (mean + spread), color=style(key)["color"], alpha=0.16, lw=0)
    return np.nanmax(10 ** mean, initial=1)


def log_rejection(roc, grid):
    """log10 of 1 / background efficiency; NaN below the first point with any background, where there is no measurement."""
    background = np.array(roc["background_efficiency"], float)
    at = np.interp(grid, np.array(roc["signal_efficiency"], float), background)
    least = background[background > 0].min(initial=1)
    return -np.log10(np.where(at >= least, at, np.nan))


def draw_confusion(page, evals):
    body = ""
    for task, group in having(evals, "confusion", "classes").items():
        shown = [k for k in OPEN_MATRICES if k in group] or list(group)
        image = lambda key: (f"confusion_{task}_{key.replace(' ', '_')}", f"confusion matrix, {strategy_name(key)}", partial(draw_matrix, page, group[key], key))
        body += f"<h3>{html.escape(task_name(task))}</h3>" + page.figures(
            [image(k) for k in shown], "Share of each true class (row) that is given each predicted class (column), in per cent, mean over seeds. "
            "Rows add up to 100; the diagonal is right.")
        rest = [k for k in group if k not in shown]
        if rest:
            names = html.escape("; ".join(strategy_name(k) for k in rest))
            body += f"<details><summary>Other strategies: {names}</summary>{page.figures([image(k) for k in rest], 'As above.')}</details>"
    return body or missing("confusion matrices", "eval/TASK__METHOD__STRATEGY__seedK.json: confusion")


def draw_matrix(page, runs, key):
    classes, counts = runs[0]["classes"], np.array([r["counts"] for r in runs], float)
    rows = counts.sum(2, keepdims=True)
    share = (counts / np.where(rows > 0, rows, 1)).mean(0)
    figure, ax = page.panel(height=5.2)
    ax.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="#ffffff", linewidth=0.6)
    for (i, j), v in np.ndenumerate(share):
        if share[i].sum() > 0:
            ax.text(j + 0.5, i + 0.5, f"{100 * v:.0f}", ha="center", va="center", color="white" if v > 0.55 else "#222222",
                    fontsize=9.5 if len(classes) > 6 else 12)
    at = np.arange(len(classes)) + 0.5
    classes = [plain(c) for c in classes]
    ax.set_xticks(at, classes, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(at, classes)
    ax.tick_params(which="both", length=0)
    ax.minorticks_off()
    ax.set(xlabel="predicted", ylabel="true", aspect="equal")
    ax.invert_yaxis()
    page.stamp(ax, strategy_name(key))
    return figure
