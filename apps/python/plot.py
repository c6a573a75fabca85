#!/usr/bin/env python3
"""Draws the report of a run: RUN/report.html, one page without network references, and RUN/figures/*.{pdf,png}.

  plot.py RUN_DIRECTORY

Reads only files of the run directory. Each may be absent, then its section says so; one that cannot be parsed is
left out and named on the page and on stderr.
  run.json                  {"name", "seed", "simd", "threads", "version", "simulated", "data": {DIRECTORY: hash},
                            "stages": {NAME: {"seconds", "weights"}}}
  table.csv                 task,method,strategy,n_train,metric,value,error,seeds
  tokenizer/metrics.jsonl, pretrain/metrics.jsonl, finetune/TASK__METHOD__STRATEGY__seedK/metrics.jsonl
                            one object a step: {"step", "loss", ..., "gradient_norm", "lr"}, now and then "val_loss";
                            a torn last line is skipped. A first phase with a frozen backbone lies in head/ below.
  eval/TASK__METHOD__STRATEGY__seedK.json, any of
      roc        {signal_efficiency[], background_efficiency[]}
      momentum   {pt_low[], pt_high[], response[], resolution[], response_error[], resolution_error[], n[]}, GeV
      response_histogram  {edges[], counts[]} of pT predicted / true; n is the number of jets beside it
      confusion  {classes[], counts[true][predicted]}
  eval/tokenizer.json       code_counts[], usage, perplexity, token_entropy (nat), reconstruction_mse,
                            residuals {FEATURE: {edges[], counts[], unit}}
  eval/pretrain.json        token_entropy (nat), ntp, mpm
  eval/generation.json      {histograms: {NAME: {edges[], truth[], reconstructed[] (or none), generated[], unit}},
                            metrics: {NAME: value, "NAME, WHAT STANDS BESIDE IT": value}}
Exit codes: 0 done, 64 usage, 66 no run there or no matplotlib, 74 the page cannot be written.
"""
import csv
import html
import io
import json
import math
import pathlib
import re
import sys
import urllib.parse
from collections import defaultdict

EXIT_USAGE, EXIT_MISSING, EXIT_IO = 64, 66, 74

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
except ImportError as error:
    print(f"plot.py: {error}; pip install -r apps/python/requirements-report.txt", file=sys.stderr)
    sys.exit(EXIT_MISSING)
try:
    import mplhep
except ImportError:  # histograms are then drawn with matplotlib alone
    mplhep = None

# Colours of Okabe and Ito, told apart by colour-blind readers; the order is the order of the table.
STYLES = {
    "raw-jet": ("#000000", ":", "raw jet"), "constant": ("#000000", ":", "constant"),
    "deepsets scratch": ("#7f7f7f", "--", "DeepSets, individual"),
    "part scratch": ("#8c510a", "--", "ParT, individual"),
    "tessera scratch": ("#e69f00", "-", "from scratch"),
    "tessera random-frozen": ("#cc79a7", "-.", "random, frozen"),
    "tessera frozen": ("#56b4e9", "-", "pre-trained, frozen"),
    "tessera lpft": ("#009e73", "-", "pre-trained, probe then all"),
    "tessera delayed": ("#d55e00", "-.", "pre-trained, delayed"),
    "tessera full": ("#0072b2", "-", "pre-trained, fine-tuned"),
}
LOSS_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TASKS = {"tau-pt": "Tau momentum", "tau-id": "Tau identification", "tau-dm": "Tau decay mode", "tag": "Jet tagging"}
STAGES = {"tokenizer": "tokenizer", "pretrain": "pre-training", "generate": "generation"}
# metric: (name, does more count as better, None where the target is one)
METRICS = {"resolution": ("resolution", False), "response": ("response", None),
           "misid@80": ("mis-id. at 80 % eff.", False), "auc": ("AUC", True), "accuracy": ("accuracy", True)}
RESIDUALS = {"pt": r"$p_T^\mathrm{reco}$ / $p_T$ $-$ 1", "deta": r"reconstructed $-$ original $\Delta\eta$",
             "dphi": r"reconstructed $-$ original $\Delta\phi$"}
QUANTITIES = {"jet_pt": "jet $p_T$", "jet_mass": "jet mass", "n_constituents": "constituents", "width": "jet width",
              "tau21": r"$\tau_{21}$", "tau32": r"$\tau_{32}$", "constituent_log_pt": "ln (constituent $p_T$ / GeV)",
              "constituent_deta": r"constituent $\Delta\eta$", "constituent_dphi": r"constituent $\Delta\phi$"}
# The matrices that are open at once: an individual method, no pre-training, pre-training. The others unfold.
OPEN_MATRICES = ("part scratch", "tessera scratch", "tessera frozen", "tessera full")

plt.rcParams.update({
    "font.family": "sans-serif", "font.size": 11, "axes.labelsize": 12, "axes.linewidth": 1.0,
    "legend.frameon": False, "legend.fontsize": 9.5, "xtick.direction": "in", "ytick.direction": "in",
    "xtick.top": True, "ytick.right": True, "xtick.minor.visible": True, "ytick.minor.visible": True,
    "xtick.major.size": 6, "ytick.major.size": 6, "xtick.minor.size": 3, "ytick.minor.size": 3, "xtick.major.pad": 6, "ytick.major.pad": 5,
    "lines.linewidth": 1.7, "svg.fonttype": "path", "svg.hashsalt": "tessera",
    "savefig.bbox": "tight", "savefig.pad_inches": 0.08, "figure.constrained_layout.use": True,
})


class ReportError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


# ---- reading ------------------------------------------------------------------------------------------------
class Run:
    """The files of a run directory. What cannot be parsed counts as absent and is remembered in `damaged`."""

    def __init__(self, directory):
        self.directory, self.damaged = directory, []

    def json(self, name):
        path = self.directory / name
        try:
            content = json.loads(path.read_text())
            if isinstance(content, dict):
                return content
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            pass
        self.damaged.append(name)
        return {}

    def curve(self, name):
        path = self.directory / name
        lines = parse_lines(path.read_text(errors="replace")) if path.is_file() else []
        if path.is_file() and not lines and path.stat().st_size:
            self.damaged.append(name)
        return columns(lines)

    def study_curve(self, study):
        """Both phases of a study in a row; where the second one begins stands in "boundary"."""
        whole, head = self.curve(f"finetune/{study}/metrics.jsonl"), self.curve(f"finetune/{study}/head/metrics.jsonl")
        return join_phases(head, whole) if head and whole else whole or head

    def table(self):
        try:
            with (self.directory / "table.csv").open() as f:
                rows = [typed_row(row) for row in csv.DictReader(f)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError):
            self.damaged.append("table.csv")
            return []
        return rows

    def studies(self, pattern, read):
        """{task: {"method strategy": [content of each seed]}} of names TASK__METHOD__STRATEGY__seedK."""
        found = defaultdict(lambda: defaultdict(list))
        for path in sorted(self.directory.glob(pattern)):
            parts = path.name.removesuffix(".json").split("__")
            content = read(path) if len(parts) == 4 else None
            if content:
                found[parts[0]][f"{parts[1]} {parts[2]}"].append(content)
        return {t: dict(sorted(found[t].items(), key=lambda kv: rank(kv[0]))) for t in sorted(found, key=task_rank)}


def parse_lines(text):
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def columns(lines):
    """{key: values}; a key that some lines lack, or hold no number for, is NaN there."""
    keys = dict.fromkeys(k for line in lines for k, v in line.items() if isinstance(v, (int, float)))
    number_of = lambda v: float(v) if isinstance(v, (int, float)) else math.nan
    return {k: np.array([number_of(line.get(k)) for line in lines]) for k in keys}


def join_phases(first, second):
    end = first["step"][-1]
    second = {**second, "step": second["step"] + end}
    gap = lambda c: np.full(len(c["step"]), np.nan)
    joined = {k: np.concatenate([first.get(k, gap(first)), second.get(k, gap(second))]) for k in {**first, **second}}
    return {**joined, "boundary": end}


def typed_row(row):
    numbers = {k: float(row[k] or 0) for k in ("n_train", "value", "error", "seeds")}
    return {"task": row["task"], "key": (row["method"], row["strategy"], numbers["n_train"]), "metric": row["metric"], **numbers}


def rank(key):
    return list(STYLES).index(key) if key in STYLES else len(STYLES)


def task_rank(task):
    return (list(TASKS) + [task]).index(task)


def style(key):
    colour, line, name = STYLES.get(key, ("#666666", "-", key))
    return {"color": colour, "ls": line, "label": name}


def having(studies, part, needed):
    """Of each task and strategy the parts of that name, where at least one seed has one with `needed` in it."""
    chosen = {t: {k: [{**r[part], "n_all": r.get("n")} for r in runs if (r.get(part) or {}).get(needed)]
                  for k, runs in group.items()} for t, group in studies.items()}
    chosen = {t: {k: runs for k, runs in group.items() if runs} for t, group in chosen.items()}
    return {t: group for t, group in chosen.items() if group}


# ---- page ---------------------------------------------------------------------------------------------------
class Page:
    """Collects sections; saves each panel beside the page as PDF and PNG and inlines it as SVG."""

    def __init__(self, run, simulated):
        self.folder, self.simulated, self.sections = run / "figures", simulated, []
        self.folder.mkdir(exist_ok=True)

    def section(self, anchor, title, body):
        self.sections.append((anchor, title, body))

    def panel(self, entries=0, height=3.7, **options):
        """Axes of one panel with room below for a legend of so many entries. One figure a panel: they flow into one
        column on a phone."""
        figure, axes = plt.subplots(figsize=(5.6, height + 0.21 * -(-entries // 2)), **options)
        return figure, axes

    def stamp(self, ax, right=""):
        ax.set_title(r"$\bf{Tessera}$" + (" simulation" if self.simulated else ""), loc="left", fontsize=11)
        ax.set_title(right, loc="right", fontsize=10, color="#444444")

    def figures(self, panels, caption):
        """`panels`: (name, what it shows, figure)."""
        images = "".join(self.image(*panel) for panel in panels)
        return f'<figure><div class="grid">{images}</div><figcaption>{caption}</figcaption></figure>'

    def image(self, name, alt, figure):
        figure.canvas.draw()
        figure.set_layout_engine("none")  # laid out once, not at every save
        for kind, metadata in (("pdf", {"CreationDate": None}), ("png", None)):
            figure.savefig(self.folder / f"{name}.{kind}", dpi=160, metadata=metadata)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        plt.close(figure)
        return f'<img alt="{html.escape(alt, quote=True)}" src="{data_uri(compact(buffer.getvalue()))}">'


def compact(svg):
    """Less than half of the size: no comments, indentation, names and repeated tick styles; a hundredth of a point."""
    svg = re.sub(r"<\?xml.*?\?>|<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE.*?>", "", svg, flags=re.S)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg).replace("DejaVuSans-", "f")
    svg = re.sub(r'(<use [^>]*?) style="stroke: #000000; stroke-width: [\d.]+"', r"\1", svg)  # as in its definition
    svg = re.sub(r"scale\([^)]*\)|(\.\d\d)\d+", lambda m: m.group(1) or m.group(), svg)
    return re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", svg)).strip()


def data_uri(svg):
    """For an attribute in double quotes; base64 would add a third."""
    encoded = urllib.parse.quote(svg.replace('"', "'"), safe=" /:;,='()<>&+*")
    return "data:image/svg+xml," + encoded.replace("&", "&amp;")


def missing(what, path):
    return f'<p class="missing">No {html.escape(what)} in this run: <code>{html.escape(path)}</code> is absent or empty.</p>'


def table_html(head, rows):
    """`rows`: (class, cells); every column but the first holds numbers."""
    line = lambda tag, cells: "".join(f"<{tag}{' class=n' if i else ''}>{c}</{tag}>" for i, c in enumerate(cells))
    body = "".join(f"<tr{f' class={kind}' if kind else ''}>{line('td', cells)}</tr>" for kind, cells in rows)
    return f'<div class="scroll"><table><thead><tr>{line("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


# ---- drawing ------------------------------------------------------------------------------------------------
def legend_below(figure, ax):
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9, handlelength=2.6, columnspacing=1.4)


def spread_of(rows):
    return rows.std(0, ddof=1) if len(rows) > 1 else np.zeros(rows.shape[1:])


def band(ax, x, rows, key, **options):
    """Mean over seeds with the band of their standard deviation."""
    rows = np.array(rows, dtype=float)
    mean, spread = rows.mean(0), spread_of(rows)
    ax.plot(x, mean, **style(key), **options)
    if spread.any():
        ax.fill_between(x, mean - spread, mean + spread, color=style(key)["color"], alpha=0.18, lw=0)


def histogram(ax, counts, edges, errors, **options):
    if mplhep:
        mplhep.histplot(counts, edges, yerr=errors, ax=ax, **options)
    else:
        ax.stairs(counts, edges, **{k: v for k, v in options.items() if k in ("color", "label")})


def error_bars(ax, x, y, error, colour):
    """As one path: a twentieth of the size of a path for each bar."""
    gap = np.full(len(x), np.nan)
    ax.plot(np.stack([x, x, gap], 1).ravel(), np.stack([y - error, y + error, gap], 1).ravel(), color=colour, lw=0.9)


def axis_unit(h):
    unit = h.get("unit")
    return f" / {unit}" if unit and not unit.startswith("ln ") else ""  # a logarithm names its unit itself


# ---- training -----------------------------------------------------------------------------------------------
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
            ax.plot(step, values, "o", ms=3.5, color=colour, label=f"{names.get(k[4:], k[4:])}, validation")
            continue
        ax.plot(*thin(step, values), color=colour, alpha=0.22, lw=0.7)
        ax.plot(*running_mean(step, values), color=colour, label=names.get(k, k.replace("_", " ")))
    ax.set(xlabel="step", ylabel="loss / nat" if "ntp" in loss_keys(curve) else "loss")
    log_if_wide(ax)
    ax.margins(x=0)


def log_if_wide(ax):
    """A logarithmic axis where the drawn values are positive and span more than a factor of 20."""
    values = np.concatenate([line.get_ydata() for line in ax.lines])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")


def draw_entropy(ax, entropy):
    ax.axhline(entropy, color="k", ls=":", lw=1.3)
    ax.annotate("unigram entropy of the tokens", (0.98, entropy), xycoords=("axes fraction", "data"), ha="right",
                xytext=(0, 4), textcoords="offset points", fontsize=9.5)


def draw_training(page, curves, entropy):
    panels = []
    for name, curve in curves.items():
        if not loss_keys(curve):
            continue
        figure, ax = page.panel()
        draw_curve(ax, curve)
        if "ntp" in curve and entropy:
            draw_entropy(ax, entropy)
        ax.legend(loc="upper right" if name == "tokenizer" else "best")
        page.stamp(ax, STAGES[name])
        panels.append((f"training_{name}", f"Training curves of the {STAGES[name]}", figure))
    if not panels:
        return missing("pre-training curves", "tokenizer/metrics.jsonl, pretrain/metrics.jsonl")
    return page.figures(panels, "Training losses of the tokenizer and the backbone. Faint: every step; line: running mean. A "
                        "next-token loss below the dotted line means that the model has learnt more than how often each token occurs.")


def draw_finetuning(page, studies):
    panels = []
    for task, group in studies.items():
        for key, label in (("loss", "training loss"), ("val_loss", "validation loss")):
            curves = {k: [r for r in runs if np.isfinite(r.get(key, np.nan)).any()] for k, runs in group.items()}
            curves = {k: runs for k, runs in curves.items() if runs}
            if curves:
                panels.append((f"finetuning_{task}_{key}", f"{TASKS.get(task, task)}: {label}", draw_losses(page, task, curves, key, label)))
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
    page.stamp(ax, TASKS.get(task, task))
    legend_below(figure, ax)
    return figure


# ---- tasks --------------------------------------------------------------------------------------------------
def draw_momentum(page, evals):
    body = ""
    for task, group in having(evals, "momentum", "pt_low").items():
        panels = [(f"momentum_{task}_{q}", f"{q} in bins of true momentum", draw_bins(page, task, group, q, label)) for q, label in
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
    page.stamp(ax, TASKS.get(task, task))
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
        panels, inside = [], []
        for scale in ("linear", "log"):
            figure, ax = page.panel(len(group), 4.0)
            inside = [draw_response_histogram(ax, runs, key) for key, runs in group.items()]
            ax.axvline(1, color="#999999", lw=1, ls=":", zorder=0)
            ax.set(xlabel="$p_T$ / $p_T^\\mathrm{true}$", ylabel="share of jets / bin width", yscale=scale)
            ax.margins(x=0)
            ax.set_ylim(bottom=0 if scale == "linear" else least_density(group))
            page.stamp(ax, TASKS.get(task, task))
            legend_below(figure, ax)
            panels.append((f"response_{task}_{scale}", f"predicted over true momentum, {scale} axis", figure))
        body += page.figures(panels, "Predicted over true transverse momentum, mean over seeds, on a linear and a logarithmic axis; the band is "
                             f"statistical. Narrower and centred on one is better. {100 * min(inside):.1f} to {100 * max(inside):.1f} % of the "
                             "jets lie in the drawn range.")
    return body


def least_density(group):
    """One jet in a bin."""
    r = next(iter(group.values()))[0]
    return 1 / (r["n_all"] or sum(r["counts"]) or 1) / (r["edges"][1] - r["edges"][0])


def draw_response_histogram(ax, runs, key):
    """Returns the share of jets inside the edges. All seeds see the same test jets, so the error is that of one."""
    counts, edges = np.mean([r["counts"] for r in runs], 0), np.asarray(runs[0]["edges"], float)
    jets = runs[0]["n_all"] or counts.sum() or 1
    scale, error, look = 1 / jets / np.diff(edges), np.sqrt(counts), style(key)
    ax.stairs((counts + error) * scale, edges, baseline=(counts - error) * scale, fill=True, color=look["color"], alpha=0.13, lw=0)
    ax.stairs(counts * scale, edges, lw=1.3, **look)
    return counts.sum() / jets


def draw_roc(page, evals):
    body = ""
    for task, group in having(evals, "roc", "signal_efficiency").items():
        figure, ax = page.panel(len(group) + 1, 4.4)
        top = max(draw_rejection(ax, runs, key) for key, runs in group.items())
        grid = np.linspace(0.02, 1, 99)
        ax.plot(grid, 1 / grid, color="#aaaaaa", lw=1, ls=":", label="no discrimination")
        ax.axvline(0.8, color="#cccccc", lw=0.8, zorder=0)
        ax.set(xlabel="signal efficiency", ylabel="background rejection, 1 / background eff.", yscale="log", xlim=(0, 1), ylim=(1, 2 * top))
        page.stamp(ax, TASKS.get(task, task))
        legend_below(figure, ax)
        body += page.figures([(f"roc_{task}", "background rejection against signal efficiency", figure)],
                             f"{TASKS.get(task, task)}, mean of the logarithm over seeds with the band of their standard deviation. Higher is better; a "
                             "rejection of 100 at 0.8 means that one background jet in a hundred passes where four signal jets in five do. The "
                             "grey line marks 80 % efficiency. A curve begins where some background is left in every seed.")
    return body or missing("ROC curves", "eval/TASK__METHOD__STRATEGY__seedK.json: roc")


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
        image = lambda key: (f"confusion_{task}_{key.replace(' ', '_')}", f"confusion matrix, {style(key)['label']}", draw_matrix(page, group[key], key))
        body += f"<h3>{html.escape(TASKS.get(task, task))}</h3>" + page.figures(
            [image(k) for k in shown], "Share of each true class (row) that is given each predicted class (column), in per cent, mean over seeds. "
            "Rows add up to 100; the diagonal is right.")
        rest = [k for k in group if k not in shown]
        if rest:
            names = html.escape("; ".join(style(k)["label"] for k in rest))
            body += f"<details><summary>Other strategies: {names}</summary>{page.figures([image(k) for k in rest], 'As above.')}</details>"
    return body or missing("confusion matrices", "eval/TASK__METHOD__STRATEGY__seedK.json: confusion")


def draw_matrix(page, runs, key):
    classes, counts = runs[0]["classes"], np.array([r["counts"] for r in runs], float)
    share = (counts / np.maximum(counts.sum(2, keepdims=True), 1)).mean(0)
    figure, ax = page.panel(height=5.2)
    ax.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="#ffffff", linewidth=0.6)
    for (i, j), v in np.ndenumerate(share):
        if share[i].sum() > 0:
            ax.text(j + 0.5, i + 0.5, f"{100 * v:.0f}", ha="center", va="center", color="white" if v > 0.55 else "#222222",
                    fontsize=9.5 if len(classes) > 6 else 12)
    at = np.arange(len(classes)) + 0.5
    ax.set_xticks(at, classes, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(at, classes)
    ax.tick_params(which="both", length=0)
    ax.minorticks_off()
    ax.set(xlabel="predicted", ylabel="true", aspect="equal")
    ax.invert_yaxis()
    page.stamp(ax, style(key)["label"])
    return figure


# ---- tokenizer and generation -------------------------------------------------------------------------------
def draw_tokenizer(page, tokens):
    if not tokens:
        return missing("tokenizer evaluation", "eval/tokenizer.json")
    counts = np.sort(np.asarray(tokens.get("code_counts") or [], float))[::-1]
    panels = [("tokens_usage", "token usage", draw_usage(page, counts))] if counts.sum() else []
    for name, h in (tokens.get("residuals") or {}).items():
        panels.append((f"tokens_residual_{name}", f"residuals of {name}", draw_residual(page, name, h)))
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
    ax.set(xlabel=RESIDUALS.get(name, name) + axis_unit(h), ylabel="particles", ylim=(0, None), xlim=(edges[0], edges[-1]))
    ax.locator_params(axis="x", nbins=5)
    page.stamp(ax, "reconstruction")
    return figure


def draw_generation(page, generation):
    histograms = generation.get("histograms") or {}
    if not histograms:
        return missing("generated jets", "eval/generation.json")
    panels = [(f"generation_{name}", f"generated and true {name}", draw_ratio(page, name, h)) for name, h in histograms.items()]
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
    low.set(xlabel=QUANTITIES.get(name, name) + axis_unit(h), ylabel="ratio", ylim=(0.5, 1.5), xlim=(edges[0], edges[-1]))
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


# ---- tables -------------------------------------------------------------------------------------------------
def draw_labels(page, table):
    """Metric against the number of training jets, where the table holds more than one."""
    series = defaultdict(lambda: defaultdict(list))
    for r in table:
        method, strategy, n = r["key"]
        if strategy != "-" and n > 0:
            series[r["task"], r["metric"]][f"{method} {strategy}"].append((n, r["value"], r["error"]))
    series = {k: v for k, v in series.items() if any(len(points) > 1 for points in v.values())}
    panels = [(f"labels_{task}_{metric.replace('@', '')}", f"{metric} against labels", draw_label_panel(page, task, metric, group))
              for (task, metric), group in series.items()]
    return page.figures(panels, "Label efficiency: what each strategy reaches with so many labelled jets. Bands are the standard "
                        "deviation over seeds.") if panels else ""


def draw_label_panel(page, task, metric, group):
    figure, ax = page.panel(len(group))
    for key, points in sorted(group.items(), key=lambda kv: rank(kv[0])):
        n, value, error = np.array(sorted(points)).T
        ax.plot(n, value, marker="o", ms=4, **style(key))
        ax.fill_between(n, value - error, value + error, color=style(key)["color"], alpha=0.18, lw=0)
    ax.set(xscale="log", xlabel="labelled training jets", ylabel=METRICS.get(metric, (metric,))[0])
    page.stamp(ax, TASKS.get(task, task))
    legend_below(figure, ax)
    return figure


def summary(table, evals):
    """One block per task: baselines, then a row per strategy; a column per metric, its best row marked."""
    if not table:
        return missing("results", "table.csv")
    body = ""
    for task in sorted({r["task"] for r in table}, key=task_rank):
        parameters = {k: runs[0].get("parameters") for k, runs in evals.get(task, {}).items()}
        body += f"<h3>{html.escape(TASKS.get(task, task))}</h3>" + task_table([r for r in table if r["task"] == task], parameters)
    return body


def task_table(rows, parameters):
    metrics = sorted({r["metric"] for r in rows}, key=lambda m: (list(METRICS) + [m]).index(m))
    cell = {(r["key"], r["metric"]): r for r in rows}
    keys = sorted({r["key"] for r in rows}, key=lambda k: (k[1] != "-", rank(f"{k[0]} {k[1]}"), k[2]))
    best = {m: best_row(m, {k: cell[k, m] for k in keys if (k, m) in cell}) for m in metrics}
    head = ["strategy", *(f"{html.escape(METRICS.get(m, (m,))[0])} {arrow(m)}" for m in metrics), "training jets", "parameters", "seeds"]
    lines = []
    for key in keys:
        name = style(key[0] if key[1] == "-" else f"{key[0]} {key[1]}")
        seeds = max(int(r["seeds"]) for r in rows if r["key"] == key)
        lines.append(("base" if key[1] == "-" else "", [
            f'<i style="background:{name["color"]}"></i>{html.escape(name["label"]).replace("-", "&#8209;")}', *(number(cell.get((key, m)), best[m] == key) for m in metrics),
            grouped(key[2]), grouped(parameters.get(f"{key[0]} {key[1]}")), "&ndash;" if key[1] == "-" else str(seeds)]))
    return table_html(head, lines)


def best_row(metric, cells):
    better = METRICS.get(metric, (metric, True))[1]
    score = lambda r: -abs(r["value"] - 1) if better is None else r["value"] * (1 if better else -1)
    return max((k for k in cells if math.isfinite(cells[k]["value"])), key=lambda k: score(cells[k]), default=None)


def arrow(metric):
    better = METRICS.get(metric, (metric, True))[1]
    return "&rarr;1" if better is None else "&uarr;" if better else "&darr;"


def number(row, is_best):
    if row is None or not math.isfinite(row["value"]):
        return "&ndash;"
    text = f"{row['value']:.4f}" + (f" <small>&plusmn;&nbsp;{row['error']:.4f}</small>" if row["seeds"] > 1 else "")
    return f"<b>{text}</b>" if is_best else text


def grouped(count):
    return f"{count:,.0f}".replace(",", "&#8239;") if count else "&ndash;"


def how_to_read(table):
    seeds = sorted({int(r["seeds"]) for r in table if r["key"][1] != "-"})
    count = " to ".join(str(s) for s in sorted({seeds[0], seeds[-1]})) if seeds else "no"
    errors = "one seed has no error" if seeds == [1] else "&plusmn; is their standard deviation, not the error of the mean"
    return f"""<p>Each block is one task on held-out jets, each row one way to learn it. First the baseline without a network. <b>Individual</b> is
a network built for this task alone; <b>from scratch</b> is the foundation model's network without pre-training; <b>random, frozen</b> is the
control: its backbone was never trained at all; <b>pre-trained</b> rows start from the backbone that saw unlabelled jets.</p>
<p>Numbers are the mean over <b>{count} seed{"" if seeds == [1] else "s"}</b>; {errors}. Arrows say which way is better, the best row of each column,
baselines included, is <b class="mark">marked</b>. A gain counts when it exceeds both errors and the control does not show it too.</p>"""


def duration(seconds):
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def facts(run_json):
    if not run_json:
        return missing("facts", "run.json")
    scalars = [(k, v) for k, v in run_json.items() if isinstance(v, (int, float, str)) and k not in ("name", "seconds")]
    rows = [(html.escape(k), html.escape("yes" if v is True else "no" if v is False else str(v))) for k, v in scalars]
    rows += [(f"data {html.escape(k)}", html.escape(str(v))) for k, v in (run_json.get("data") or {}).items()]
    return table_html(("fact", "value"), [("", r) for r in rows]) + stage_table(run_json.get("stages") or {})


def stage_table(stages):
    """The seeds of a study in one row."""
    seconds = defaultdict(list)
    for name, entry in stages.items():
        seconds[stage_title(name)].append(float(entry.get("seconds", 0)))
    if not seconds:
        return ""
    rows = [("", (html.escape(k), str(len(v)), duration(sum(v)))) for k, v in seconds.items()]
    total = sum(map(sum, seconds.values()))
    return "<h3>Time</h3>" + table_html(("stage", "runs", "time"), rows + [("total", ("all", str(len(stages)), duration(total)))])


def stage_title(name):
    parts = name.split("__")
    if len(parts) != 4:
        return STAGES.get(name, name)
    return f"{TASKS.get(parts[0], parts[0])}: {style(f'{parts[1]} {parts[2]}')['label']}"


# ---- the whole page -----------------------------------------------------------------------------------------
CSS = """
:root{color-scheme:light}*{box-sizing:border-box}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;color:#1f2328;background:#f6f8fa;margin:0}
main,header>div{max-width:1120px;margin:0 auto;padding:0 20px}header{background:#fff;border-bottom:1px solid #d8dee4;padding:26px 0 20px}
h1{margin:0 0 4px;font-size:30px;letter-spacing:-.01em;overflow-wrap:anywhere}header p{margin:0;color:#57606a}
nav{padding:16px 0}nav ol{display:flex;flex-wrap:wrap;gap:4px 28px;margin:4px 0 0;padding-left:20px}nav li{padding-right:6px}
a{color:#0550ae;text-decoration:none}a:hover{text-decoration:underline}
section{background:#fff;border:1px solid #d8dee4;border-radius:10px;padding:8px 26px 20px;margin:0 0 22px}
h2{font-size:22px;margin:14px 0 8px}h3{font-size:17px;margin:22px 0 6px}p{max-width:860px}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:15px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;color:#57606a;border-bottom:2px solid #d8dee4;padding:6px 14px 6px 0;vertical-align:bottom}
td{border-bottom:1px solid #eaeef2;padding:6px 14px 6px 0;white-space:nowrap}.n{text-align:right}td small{color:#57606a}
td i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:9px;print-color-adjust:exact;-webkit-print-color-adjust:exact}
td b,.mark{display:inline-block;background:#dff3e4;border-radius:4px;padding:1px 5px;margin:0 -5px;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.mark{margin:0;line-height:1.3}tr.base td{color:#57606a}tr.total td{font-weight:600;border-bottom:0}
figure{margin:14px 0 4px}.grid{display:flex;flex-wrap:wrap;justify-content:center;gap:14px 26px}.grid img{width:calc(50% - 13px);min-width:0;height:auto}
.grid img:only-child{width:min(100%,600px)}figcaption{color:#57606a;font-size:14px;max-width:860px;margin:8px auto 12px}
summary{cursor:pointer;color:#0550ae;margin:4px 0 8px}
.missing{color:#57606a;background:#f6f8fa;border-left:3px solid #d8dee4;padding:8px 12px}.damaged{border-left:3px solid #d55e00;padding:8px 12px;background:#fff4ec}
code{font-size:.9em;background:#eff2f5;padding:1px 4px;border-radius:4px;overflow-wrap:anywhere}
@media(max-width:700px){main,header>div{padding:0 10px}section{padding:4px 12px 14px;border-radius:8px}h1{font-size:24px}body{font-size:15px}
.grid img,.grid img:only-child{width:100%}table{font-size:13px}td,th{padding-right:10px}td:first-child{white-space:normal;min-width:118px;overflow-wrap:anywhere}
td small{display:block}nav ol{display:block;columns:2}#run table td{white-space:normal;overflow-wrap:anywhere}}
@media print{body{background:#fff;font-size:10pt}header{border:0;padding:0}nav{padding:4px 0}section{border:0;padding:0;margin:0 0 12px}
main,header>div{max-width:none;padding:0}.grid img{width:calc(50% - 13px)}.grid img:only-child{width:60%}table{font-size:9pt}td,th{padding:3px 10px 3px 0}
img,tr{break-inside:avoid}h2,h3,thead{break-after:avoid}figcaption{break-before:avoid}.scroll{overflow:visible}details{display:none}}
"""


def render(page, run, name):
    links = "".join(f'<li><a href="#{a}">{html.escape(t)}</a></li>' for a, t, _ in page.sections)
    body = "".join(f'<section id="{a}"><h2>{html.escape(t)}</h2>{b}</section>' for a, t, b in page.sections)
    origin = "Simulated collisions" if page.simulated else "Collision data"
    damaged = f'<p class="damaged">Left out, because they cannot be read: {html.escape(", ".join(run.damaged))}.</p>' if run.damaged else ""
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>Tessera: {html.escape(name)}</title><style>{CSS}</style></head><body><header><div><h1>Tessera &middot; {html.escape(name)}</h1>"
            f"<p>{origin}. Everything below is drawn from the files of this run.</p></div></header>"
            f"<main><nav><b>Contents</b><ol>{links}</ol></nav>{damaged}{body}</main></body></html>\n")


def fill(page, run, run_json):
    table = run.table()
    evals = run.studies("eval/*__*.json", lambda p: run.json(f"eval/{p.name}"))
    curves = {name: run.curve(f"{name}/metrics.jsonl") for name in ("tokenizer", "pretrain")}
    finetuning = run.studies("finetune/*__*", lambda p: run.study_curve(p.name))
    tokens, pretrain = run.json("eval/tokenizer.json"), run.json("eval/pretrain.json")
    entropy = pretrain.get("token_entropy") or tokens.get("token_entropy")
    page.section("results", "Results", how_to_read(table) + summary(table, evals) + draw_labels(page, table))
    page.section("training", "Training", draw_training(page, curves, entropy) + draw_finetuning(page, finetuning))
    page.section("momentum", "Tau momentum", draw_momentum(page, evals))
    page.section("roc", "Signal against background", draw_roc(page, evals))
    page.section("confusion", "Classes", draw_confusion(page, evals))
    page.section("tokenizer", "Tokenizer", draw_tokenizer(page, tokens))
    page.section("generation", "Generated jets", draw_generation(page, run.json("eval/generation.json")))
    page.section("run", "This run", facts(run_json))


def report(directory):
    parts = ("run.json", "table.csv", "eval", "tokenizer", "pretrain", "finetune")
    if not any((directory / part).exists() for part in parts):
        raise ReportError(EXIT_MISSING, f"{directory}: expected a run directory with one of {', '.join(parts)}, got none")
    run = Run(directory)
    run_json = run.json("run.json")
    page = Page(directory, run_json.get("simulated", True))
    fill(page, run, run_json)
    if run.damaged:
        print(f"plot.py: {directory}: left out, cannot be read: {', '.join(run.damaged)}", file=sys.stderr)
    out = directory / "report.html"
    out.write_text(render(page, run, str(run_json.get("name", directory.resolve().name))))
    return out


def main(arguments):
    try:
        if len(arguments) != 1:
            raise ReportError(EXIT_USAGE, f"usage: plot.py RUN_DIRECTORY, got {len(arguments)} arguments")
        print(report(pathlib.Path(arguments[0])))
        return 0
    except ReportError as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return EXIT_IO


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
