"""The tokenizer, and the jets that a model draws."""
import html
from collections import defaultdict
from functools import partial

import numpy as np

from report.drawing import error_bars, histogram
from report.page import grouped, missing, table_html
from report.style import QUANTITIES, RESIDUALS, axis_unit, plain


def draw_tokenizer(page, tokens):
    if not tokens:
        return missing("tokenizer evaluation", "eval/tokenizer.json")
    counts = np.sort(np.asarray(tokens.get("code_counts") or [], float))[::-1]
    panels = [("tokens_usage", "token usage", partial(draw_usage, page, counts))] if counts.sum() else []
    for name, h in (tokens.get("residuals") or {}).items():
        panels.append((f"tokens_residual_{name}", f"residuals of {name}", partial(draw_residual, page, name, h)))
    body = token_facts(tokens, counts)
    if panels:
        body += page.figures(panels, "How often each code is used, and what coding costs each particle. A flat usage and narrow residuals are "
                             "better; &sigma;<sub>68</sub> is half the width of the central 68 % inside the drawn range.")
    return body


def token_facts(tokens, counts):
    rows = [("codes used", f"{np.count_nonzero(counts)} of {len(counts)}") if len(counts) else None,
            ("tokens counted", grouped(counts.sum())) if len(counts) else None,
            ("perplexity", f"{tokens['perplexity']:.1f}") if "perplexity" in tokens else None,
            ("unigram entropy", f"{tokens['token_entropy']:.3f} nat") if "token_entropy" in tokens else None,
            ("reconstruction, mean square in transformed units", f"{tokens['reconstruction_mse']:.4f}") if "reconstruction_mse" in tokens else None]
    return table_html(("on held-out jets", "value"), [("", r) for r in rows if r])


def draw_usage(page, counts):
    figure, ax = page.panel()
    floor = 0.5 * max(counts[-1], 1)  # unused codes end below one token
    ax.stairs(np.maximum(counts, floor), np.arange(len(counts) + 1) + 0.5, baseline=floor, fill=True, color="#56b4e9")
    ax.axhline(counts.mean(), color="k", ls=":", lw=1.2, label="equal use")
    ax.set(xlabel="code, by falling use", ylabel="tokens", yscale="log", ylim=(floor, None), xlim=(0.5, len(counts) + 0.5))
    ax.legend(loc="upper right")
    page.stamp(ax, "token usage")
    return figure


def draw_residual(page, name, h):
    figure, ax = page.panel()
    counts, edges = np.asarray(h["counts"], float), np.asarray(h["edges"], float)
    histogram(ax, counts, edges, np.sqrt(counts), color="#0072b2")
    ax.axvline(0, color="#999999", lw=1, ls=":", zorder=0)
    if counts.sum():
        share = np.concatenate([[0], np.cumsum(counts) / counts.sum()])
        low, high = np.interp((0.16, 0.84), share, edges)
        ax.annotate(rf"$\sigma_{{68}}$ = {(high - low) / 2:.3g}", (0.05, 0.9), xycoords="axes fraction")
    ax.set(xlabel=RESIDUALS.get(name, plain(name)) + axis_unit(h), ylabel="particles", ylim=(0, None), xlim=(edges[0], edges[-1]))
    ax.locator_params(axis="x", nbins=5)
    page.stamp(ax, "reconstruction")
    return figure


def draw_generation(page, generation):
    histograms = generation.get("histograms") or {}
    if not histograms:
        return missing("generated jets", "eval/generation.json")
    panels = [(f"generation_{name}", f"generated and true {name}", partial(draw_ratio, page, name, h)) for name, h in histograms.items()]
    body = page.figures(panels, "Generated jets against held-out simulated jets; reconstructed ones went through the tokenizer only, "
                        "so that they are the best that generation can reach. The lower panel is the ratio to truth; grey is the statistical "
                        "uncertainty of the truth, bars that of the other sample, triangles point to values outside.")
    return body + metric_table(generation.get("metrics") or {})


def metric_table(metrics):
    """A row for each NAME, a column for what stands beside it."""
    cells = defaultdict(dict)
    for name, value in metrics.items():
        if isinstance(value, (int, float)):
            base, _, beside = name.partition(", ")
            cells[base][beside] = value
    beside = list(dict.fromkeys(b for row in cells.values() for b in row if b))
    text = lambda v: f"{v:.4g}" if v is not None else "&ndash;"
    rows = [("", [html.escape(name.replace("_", " ")), *(text(row.get(b)) for b in ["", *beside])]) for name, row in cells.items()]
    return table_html(["measure", "generated", *map(html.escape, beside)], rows) if rows else ""


def draw_ratio(page, name, h):
    figure, (top, low) = page.panel(height=4.6, nrows=2, sharex=True, height_ratios=(3, 1))
    edges, truth = np.asarray(h["edges"], float), np.asarray(h["truth"], float)
    scale = 1 / max(truth.sum(), 1) / np.diff(edges)
    relative = np.where(truth > 0, 1 / np.sqrt(np.maximum(truth, 1)), 0)
    top.stairs(truth * scale, edges, fill=True, color="#d0d7de", label="truth")
    low.stairs(1 + relative, edges, baseline=1 - relative, fill=True, color="#d0d7de")
    low.axhline(1, color="k", lw=0.8)
    highest = (truth * scale).max()
    for kind, colour in (("reconstructed", "#0072b2"), ("generated", "#d55e00")):
        if h.get(kind):
            highest = max(highest, draw_sample(top, low, edges, truth * scale, np.asarray(h[kind], float), kind, colour))
    top.set(ylabel="density", ylim=(0, 1.35 * highest or 1))
    top.legend(fontsize=9, ncols=3, loc="upper center", columnspacing=1.2)
    low.set(xlabel=QUANTITIES.get(name, plain(name)) + axis_unit(h), ylabel="ratio", ylim=(0.5, 1.5), xlim=(edges[0], edges[-1]))
    page.stamp(top)
    return figure


def draw_sample(top, low, edges, truth, counts, kind, colour):
    """Density above, ratio to the truth below. Returns the largest density."""
    scale = 1 / max(counts.sum(), 1) / np.diff(edges)
    top.stairs(counts * scale, edges, color=colour, lw=1.4, label=kind)
    good, centre = truth > 0, (edges[1:] + edges[:-1]) / 2
    ratio, error = (counts * scale)[good] / truth[good], (np.sqrt(counts) * scale)[good] / truth[good]
    low.plot(centre[good], ratio, "o", ms=2.5, color=colour)
    error_bars(low, centre[good], ratio, error, colour)
    for outside, edge, marker in ((ratio > 1.5, 1.46, "^"), (ratio < 0.5, 0.54, "v")):
        low.plot(centre[good][outside], np.full(outside.sum(), edge), marker, ms=4, color=colour)
    return (counts * scale).max()
