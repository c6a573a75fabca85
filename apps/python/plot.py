#!/usr/bin/env python3
"""Draws the report of a run: RUN/report.html, one page without network references, and RUN/figures/*.{pdf,png}.

  plot.py RUN_DIRECTORY

Reads only files of the run directory; every one may be absent, then its section says so.
  table.csv                 task,method,strategy,n_train,metric,value,error,seeds
  run.json                  {"name", "seed", "seconds", "simd", "threads", "version", "simulated": true, ...}; scalars are shown
  tokenizer/metrics.jsonl, pretrain/metrics.jsonl, finetune/TASK__METHOD__STRATEGY__seedK/metrics.jsonl
                            one object a step: {"step": 10, "loss": 3.2, "val_loss": 3.3, ...}; a torn last line is skipped
  eval/TASK__METHOD__STRATEGY__seedK.json, any of
      roc        {signal_efficiency[], background_efficiency[]}
      momentum   {pt_low[], pt_high[], response[], resolution[], response_error[], resolution_error[], n[]}, GeV
      response_histogram  {edges[], counts[]} of pT predicted / true
      confusion  {classes[], counts[true][predicted]}
  eval/tokenizer.json       code_counts[], usage, perplexity, token_entropy (nat), reconstruction_mse,
                            residuals {FEATURE: {edges[], counts[], unit}}, reconstruction [{quantity, value, unit}]
  eval/pretrain.json        token_entropy (nat), ntp, mpm
  eval/generation.json      {histograms: {NAME: {edges[], truth[], generated[], unit}}, metrics: {NAME: value}}
Bands are the standard deviation over seeds; bars are statistical.
"""
import base64
import csv
import html
import io
import json
import pathlib
import sys
from collections import defaultdict

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

try:
    import mplhep
except ImportError:  # histograms are then drawn with matplotlib alone
    mplhep = None

# Colours of Okabe and Ito, told apart by colour-blind readers; the order is the order of the table.
STYLES = {
    "raw-jet": ("#000000", ":", "raw jet"), "constant": ("#000000", ":", "constant"),
    "deepsets scratch": ("#7f7f7f", "--", "DeepSets, individual"), "part scratch": ("#a0522d", "--", "ParT, individual"),
    "tessera scratch": ("#e69f00", "-", "from scratch"), "tessera random-frozen": ("#cc79a7", "-.", "random, frozen"),
    "tessera frozen": ("#56b4e9", "-", "pre-trained, frozen"), "tessera lora": ("#f0e442", "-", "pre-trained, LoRA"),
    "tessera lpft": ("#009e73", "-", "pre-trained, probe then all"), "tessera delayed": ("#0072b2", "-.", "pre-trained, delayed"),
    "tessera full": ("#0072b2", "-", "pre-trained, fine-tuned"),
}
TASKS = {"tau-pt": "Tau momentum", "tau-id": "Tau identification", "tau-dm": "Tau decay mode", "tag": "Jet tagging"}
# metric: (name, does more count as better, None where the target is one)
METRICS = {"resolution": ("resolution", False), "response": ("response", None), "misid@80": ("mis-id. at 80 % eff.", False),
           "auc": ("AUC", True), "accuracy": ("accuracy", True)}
FEATURES = {"pt": "ln $p_T$", "deta": r"$\Delta\eta$", "dphi": r"$\Delta\phi$"}
QUANTITIES = {"pt": "jet $p_T$", "mass": "jet mass", "eta": r"jet $\eta$", "phi": r"jet $\phi$", "n_const": "constituents",
              "tau21": r"$\tau_{21}$", "tau32": r"$\tau_{32}$"}

plt.rcParams.update({
    "font.family": "sans-serif", "font.size": 11, "axes.labelsize": 12, "axes.linewidth": 1.0, "legend.frameon": False,
    "legend.fontsize": 9.5, "xtick.direction": "in", "ytick.direction": "in", "xtick.top": True, "ytick.right": True,
    "xtick.minor.visible": True, "ytick.minor.visible": True, "xtick.major.size": 6, "ytick.major.size": 6,
    "xtick.minor.size": 3, "ytick.minor.size": 3, "lines.linewidth": 1.7, "svg.fonttype": "path", "svg.hashsalt": "tessera",
    "savefig.bbox": "tight", "savefig.pad_inches": 0.08, "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.12, "figure.constrained_layout.w_pad": 0.1,
})


# ---- reading ------------------------------------------------------------------------------------------------
def read_json(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def read_curve(path):
    """{key: values}; a key that some lines lack is NaN there. A torn or foreign line is skipped."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    keys = dict.fromkeys(k for line in lines for k, v in line.items() if isinstance(v, (int, float)))
    return thin({k: np.array([line[k] if isinstance(line.get(k), (int, float)) else np.nan for line in lines]) for k in keys})


def thin(curve, points=200):
    """Means over blocks of steps, at most `points` of them: single steps are noise. NaN counts for nothing."""
    n = len(curve.get("step", ()))
    if n <= points:
        return curve
    blocks = np.array_split(np.arange(n), points)
    means = {k: np.array([np.mean(v[b][np.isfinite(v[b])]) if np.isfinite(v[b]).any() else np.nan for b in blocks]) for k, v in curve.items()}
    return {**means, "step": np.array([curve["step"][b[-1]] for b in blocks])}


def name_of(path):
    """TASK__METHOD__STRATEGY__seedK, tokenizer, ...: the folder of a metrics.jsonl, else the file."""
    return path.parent.name if path.name == "metrics.jsonl" else path.stem


def by_task(paths, read):
    """{task: {"method strategy": [content of each seed]}} from names TASK__METHOD__STRATEGY__seedK."""
    found = defaultdict(lambda: defaultdict(list))
    for path in sorted(paths):
        parts = name_of(path).split("__")
        content = read(path) if len(parts) == 4 else None
        if content:
            found[parts[0]][f"{parts[1]} {parts[2]}"].append(content)
    return {t: dict(sorted(found[t].items(), key=lambda kv: rank(kv[0]))) for t in sorted(found, key=task_rank)}


def read_table(path):
    try:
        with path.open() as f:
            return [row for row in csv.DictReader(f) if row.get("task") and row.get("metric") and row.get("value")]
    except OSError:
        return []


def rank(key):
    return list(STYLES).index(key) if key in STYLES else len(STYLES)


def task_rank(task):
    return (list(TASKS) + [task]).index(task)


def style(key):
    colour, line, name = STYLES.get(key, ("#666666", "-", key))
    return {"color": colour, "ls": line, "label": name}


# ---- drawing ------------------------------------------------------------------------------------------------
class Page:
    """Collects sections; saves each figure beside the page as PDF and PNG and inlines it as SVG."""

    def __init__(self, run):
        self.run, self.sections = run, []
        (run / "figures").mkdir(exist_ok=True)

    def section(self, anchor, title, body):
        self.sections.append((anchor, title, body))

    def figure(self, name, figure, caption):
        for kind in ("pdf", "png"):
            figure.savefig(self.run / "figures" / f"{name}.{kind}", dpi=160, metadata={"CreationDate": None} if kind == "pdf" else None)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        wide = figure.get_figwidth() > 8
        plt.close(figure)
        data = base64.b64encode(buffer.getvalue()).decode()
        alt = html.escape(caption.split(".")[0], quote=True)
        image = f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'
        return f'<figure><div class="scroll{" wide" if wide else ""}">{image}</div><figcaption>{caption}</figcaption></figure>'


def missing(what, path):
    return f'<p class="missing">No {html.escape(what)} in this run: <code>{html.escape(path)}</code> is absent or empty.</p>'


def stamp(ax, right=""):
    ax.set_title(r"$\bf{Tessera}$ simulation", loc="left", fontsize=11)
    if right:
        ax.set_title(right, loc="right", fontsize=10, color="#444444")


def band(ax, x, rows, key, **options):
    """Mean over seeds with the band of their standard deviation."""
    rows = np.array(rows, dtype=float)
    mean, spread = rows.mean(0), rows.std(0, ddof=1) if len(rows) > 1 else np.zeros(rows.shape[1])
    look = {**style(key), **options}
    ax.plot(x, mean, **look)
    if spread.any():
        ax.fill_between(x, mean - spread, mean + spread, color=look["color"], alpha=0.18, lw=0)


def histogram(ax, counts, edges, errors, **options):
    if mplhep:
        mplhep.histplot(counts, edges, yerr=errors, ax=ax, **options)
    else:
        ax.stairs(counts, edges, **{k: v for k, v in options.items() if k in ("color", "label")})


def draw_training(page, curves, evaluations):
    body = ""
    names = [n for n in ("tokenizer", "pretrain") if n in curves and loss_keys(curves[n])]
    if names:
        figure, axes = plt.subplots(1, len(names), figsize=(5.6 * len(names), 4.1), squeeze=False)
        for ax, name in zip(axes[0], names):
            draw_curve(ax, curves[name])
            stamp(ax, {"tokenizer": "tokenizer", "pretrain": "pre-training"}[name])
            entropy = (evaluations or {}).get("token_entropy")
            if name == "pretrain" and entropy:
                ax.axhline(entropy, color="k", ls=":", lw=1.3)
                ax.annotate("unigram entropy of the tokens", (0.98, entropy), xycoords=("axes fraction", "data"), ha="right",
                            xytext=(0, 4), textcoords="offset points", fontsize=9.5)
                ax.set_ylabel("loss / nat")
            ax.legend()
        body += page.figure("training", figure, "Training curves. Solid is training, dashed is validation; a next-token loss below "
                            "the dotted line means that the model has learnt more than how often each token occurs.")
    else:
        body += missing("pre-training curves", "tokenizer/metrics.jsonl, pretrain/metrics.jsonl")
    return body


def loss_keys(curve):
    skip = {"step", "lr", "gradient_norm", "epoch", "tokens", "jets", "usage", "perplexity"}
    if "ntp" in curve or "reconstruction" in curve:
        skip.add("loss")  # a sum of what is drawn
    return [k for k in curve if k not in skip and np.isfinite(curve[k]).any()]


def draw_curve(ax, curve):
    """Losses of one file: solid for training, dashed for the same quantity in validation."""
    keys, colours = loss_keys(curve), {}
    for k in keys:
        base = k.removeprefix("val_").removeprefix("validation_").removeprefix("train_")
        base = "loss" if k in ("validation", "train") else base
        colour = colours.setdefault(base, ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"][len(colours) % 6])
        good = np.isfinite(curve[k])
        ax.plot(curve["step"][good], curve[k][good], color=colour, ls="--" if k.startswith("val") else "-", label=k.replace("_", " "))
    values = np.concatenate([curve[k][np.isfinite(curve[k])] for k in keys])
    if values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss")
    ax.margins(x=0)


def draw_finetuning(page, curves):
    tasks = {t: {k: [c for c in runs if any(np.isfinite(c.get(key, np.nan)).any() for key in ("val_loss", "validation", "loss"))]
                 for k, runs in group.items()} for t, group in curves.items()}
    tasks = {t: g for t, g in tasks.items() if any(g.values())}
    if not tasks:
        return missing("fine-tuning curves", "finetune/TASK__METHOD__STRATEGY__seedK/metrics.jsonl")
    columns = min(2, len(tasks))
    figure, axes = plt.subplots(-(-len(tasks) // columns), columns, figsize=(5.6 * columns, 3.9 * -(-len(tasks) // columns)), squeeze=False)
    for ax in axes.flat[len(tasks):]:
        ax.set_visible(False)
    for ax, (task, group) in zip(axes.flat, tasks.items()):
        shown = "loss"
        for key, runs in group.items():
            for wanted in ("val_loss", "validation", "loss"):
                runs_with = [r for r in runs if np.isfinite(r.get(wanted, np.nan)).any()]
                if runs_with:
                    shown = "validation loss" if wanted.startswith("val") else "training loss"
                    clean = [(r["step"][np.isfinite(r[wanted])], r[wanted][np.isfinite(r[wanted])]) for r in runs_with]
                    steps = clean[0][0]
                    band(ax, steps, [np.interp(steps, *c) for c in clean], key)
                    break
        ax.set(xlabel="step", ylabel=shown)
        ax.margins(x=0)
        stamp(ax, TASKS.get(task, task))
        ax.legend(fontsize=8.5)
    return page.figure("finetuning", figure, "Fine-tuning, mean over seeds; the band is their standard deviation. "
                       "A pre-trained start shows as a lower loss at the same number of steps.")


def draw_roc(page, evals):
    body = ""
    for task, group in evals.items():
        group = {k: [r["roc"] for r in runs if r.get("roc")] for k, runs in group.items()}
        group = {k: v for k, v in group.items() if v}
        if not group:
            continue
        figure, ax = plt.subplots(figsize=(6.4, 5.0))
        grid, top = np.linspace(0.05, 1, 200), 1.0
        for key, runs in group.items():
            rows = []
            for r in runs:
                b = np.asarray(r["background_efficiency"], float)
                b = np.interp(grid, r["signal_efficiency"], b)  # where no background is left the curve ends: no plateau
                rows.append(-np.log10(np.where(b > 0, b, np.nan)))
            rows = np.array(rows)
            mean, spread = rows.mean(0), rows.std(0, ddof=1) if len(rows) > 1 else 0 * grid
            ax.plot(grid, 10 ** mean, **style(key))
            ax.fill_between(grid, 10 ** (mean - spread), 10 ** (mean + spread), color=style(key)["color"], alpha=0.18, lw=0)
            top = max(top, np.nanmax(10 ** mean, initial=1))
        ax.plot(grid, 1 / grid, color="#aaaaaa", lw=1, ls=":", label="no discrimination")
        ax.axvline(0.8, color="#cccccc", lw=0.8, zorder=0)
        ax.set(xlabel="signal efficiency", ylabel="background rejection, 1 / background efficiency", yscale="log", xlim=(0, 1), ylim=(1, 2 * top))
        ax.legend()
        stamp(ax, TASKS.get(task, task))
        body += page.figure(f"roc_{task}", figure, f"{TASKS.get(task, task)}. Higher is better; a rejection of 100 at 0.8 means that one "
                            "background jet in a hundred passes where four signal jets in five do. The grey line marks 80 % efficiency.")
    return body or missing("ROC curves", "eval/TASK__METHOD__STRATEGY__seedK.json: roc")


def draw_momentum(page, evals):
    body = ""
    for task, group in evals.items():
        group = {k: [r["momentum"] for r in runs if (r.get("momentum") or {}).get("pt_low")] for k, runs in group.items()}
        group = {k: v for k, v in group.items() if v}
        if not group:
            continue
        figure, axes = plt.subplots(1, 2, figsize=(11.6, 4.6))
        for ax, quantity, label in zip(axes, ("response", "resolution"), ("response, median of $p_T$ / $p_T^{true}$", "resolution, IQR / median")):
            for i, (key, runs) in enumerate(group.items()):
                draw_bins(ax, runs, quantity, key, (i - (len(group) - 1) / 2) / max(len(group), 4))
            ax.set(xlabel="true visible $p_T$ / GeV", ylabel=label)
            stamp(ax, TASKS.get(task, task))
        axes[0].axhline(1, color="#999999", lw=1, ls=":", zorder=0)
        axes[1].set_ylim(bottom=0)
        axes[0].legend(ncols=1)
        body += page.figure(f"momentum_{task}", figure, "Response and resolution in bins of the true visible transverse momentum. Response: closer "
                            "to one is better; resolution: lower is better. Bars are statistical, bands the standard deviation over seeds.")
    return (body or missing("momentum bins", "eval/TASK__METHOD__STRATEGY__seedK.json: momentum")) + draw_response(page, evals)


def draw_bins(ax, runs, quantity, key, shift):
    """Points of a strategy: averaged over the seeds that filled the bin, shifted sideways so that bars stay apart."""
    bins = defaultdict(list)
    for r in runs:
        errors = r.get(f"{quantity}_error") or [0] * len(r["pt_low"])
        for low, high, value, error in zip(r["pt_low"], r["pt_high"], r[quantity], errors):
            bins[low, high].append((value, error))
    keys = sorted(bins)
    x = np.array([(a + b) / 2 + 0.7 * shift * (b - a) for a, b in keys])
    mean = np.array([np.mean([v for v, _ in bins[k]]) for k in keys])
    bars = np.array([np.mean([e for _, e in bins[k]]) for k in keys])
    spread = np.array([np.std([v for v, _ in bins[k]], ddof=1) if len(bins[k]) > 1 else 0 for k in keys])
    look = style(key)
    ax.errorbar(x, mean, bars, marker="o", ms=3.5, lw=1.2, elinewidth=1, **look)
    ax.fill_between(x, mean - spread, mean + spread, color=look["color"], alpha=0.12, lw=0)


def draw_response(page, evals):
    body = ""
    for task, group in evals.items():
        group = {k: [r["response_histogram"] for r in runs if r.get("response_histogram")] for k, runs in group.items()}
        group = {k: v for k, v in group.items() if v}
        if not group:
            continue
        figure, ax = plt.subplots(figsize=(6.4, 4.6))
        for key, runs in group.items():
            counts, edges = np.mean([r["counts"] for r in runs], 0), np.asarray(runs[0]["edges"], float)
            scale = 1 / max(counts.sum(), 1) / np.diff(edges)
            look = style(key)
            histogram(ax, counts * scale, edges, np.sqrt(counts / len(runs)) * scale, color=look["color"], ls=look["ls"], label=look["label"])
        ax.axvline(1, color="#999999", lw=1, ls=":", zorder=0)
        ax.set(xlabel="$p_T$ / $p_T^{true}$", ylabel="density", ylim=(0, None))
        ax.legend()
        stamp(ax, TASKS.get(task, task))
        body += page.figure(f"response_{task}", figure, "Predicted over true transverse momentum. Narrower and centred on one is better.")
    return body


def draw_confusion(page, evals):
    body = ""
    for task, group in evals.items():
        group = {k: [r["confusion"] for r in runs if r.get("confusion")] for k, runs in group.items()}
        group = {k: v for k, v in group.items() if v}
        if not group:
            continue
        keys = [k for k in ("tessera scratch", "tessera full") if k in group] or list(group)[-2:]
        figure, axes = plt.subplots(1, len(keys), figsize=(5.9 * len(keys), 5.3), squeeze=False)
        for ax, key in zip(axes[0], keys):
            draw_matrix(ax, group[key][0]["classes"], sum(np.array(r["counts"], float) for r in group[key]))
            stamp(ax, style(key)["label"])
        body += page.figure(f"confusion_{task}", figure, f"{TASKS.get(task, task)}. Share of each true class (row) that is given each predicted class (column), in per cent; "
                            "all seeds together. The diagonal is right.")
    return body or missing("confusion matrices", "eval/TASK__METHOD__STRATEGY__seedK.json: confusion")


def draw_matrix(ax, classes, counts):
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), v in np.ndenumerate(share):
        if counts[i].sum() > 0:
            ax.text(j, i, f"{100 * v:.0f}", ha="center", va="center", color="white" if v > 0.55 else "#222222",
                    fontsize=9 if len(classes) > 6 else 11)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(classes)), classes)
    ax.tick_params(which="both", length=0)
    ax.minorticks_off()
    ax.set(xlabel="predicted", ylabel="true")


def draw_tokenizer(page, tokens):
    if not tokens:
        return missing("tokenizer evaluation", "eval/tokenizer.json")
    counts = np.sort(np.asarray(tokens.get("code_counts", []), float))[::-1]
    residuals = tokens.get("residuals") or {}
    facts = [f"{100 * tokens['usage']:.1f} % of {len(counts)} codes used" if "usage" in tokens else "",
             f"perplexity {tokens['perplexity']:.1f}" if "perplexity" in tokens else "",
             f"unigram entropy {tokens['token_entropy']:.3f} nat" if "token_entropy" in tokens else "",
             f"reconstruction error {tokens['reconstruction_mse']:.4f} (mean square, transformed units)" if "reconstruction_mse" in tokens else ""]
    body = "<p>" + ", ".join(f for f in facts if f) + ".</p>"
    rows = tokens.get("reconstruction") or []
    if rows:
        cells = "".join(f"<tr><td>{html.escape(str(r['quantity']))}</td><td class=n>{r['value']:.4g} {html.escape(r.get('unit', ''))}</td></tr>" for r in rows)
        body += f'<div class="scroll"><table><tr><th>reconstruction</th><th class=n>value</th></tr>{cells}</table></div>'
    panels = (1 if len(counts) else 0) + len(residuals)
    if not panels:
        return body
    columns = min(panels, 2)
    figure, axes = plt.subplots(-(-panels // columns), columns, figsize=(5.6 * columns, 3.8 * -(-panels // columns)), squeeze=False)
    axes = list(axes.flat)
    for ax in axes[panels:]:
        ax.set_visible(False)
    if len(counts):
        ax = axes.pop(0)
        ax.fill_between(np.arange(1, len(counts) + 1), np.maximum(counts, 0.5), 0.5, step="mid", color="#56b4e9", lw=0)
        ax.axhline(counts.mean(), color="k", ls=":", lw=1.2, label="equal use")
        ax.set(xlabel="code, by falling use", ylabel="tokens", yscale="log", ylim=(0.5, None), xlim=(1, len(counts)))
        ax.legend()
        stamp(ax, "token usage")
    for ax, (name, h) in zip(axes, residuals.items()):
        c, edges = np.asarray(h["counts"], float), np.asarray(h["edges"], float)
        histogram(ax, c, edges, np.sqrt(c), color="#0072b2")
        ax.axvline(0, color="#999999", lw=1, ls=":", zorder=0)
        unit = f" / {h['unit']}" if h.get("unit") else ""
        ax.set(xlabel=f"reconstructed $-$ original {FEATURES.get(name, name)}{unit}", ylabel="particles", ylim=(0, None))
        stamp(ax, "reconstruction")
    return body + page.figure("tokenizer", figure, "How often each code is used, and what coding costs each particle. "
                              "A flat usage and narrow residuals are better; codes at the right edge of a steep fall carry little.")


def draw_generation(page, generation):
    histograms = (generation or {}).get("histograms") or {}
    if not histograms:
        return missing("generated jets", "eval/generation.json")
    columns = min(3, len(histograms))
    rows = -(-len(histograms) // columns)
    figure = plt.figure(figsize=(4.3 * columns, 4.4 * rows))
    for sub, (name, h) in zip(figure.subfigures(rows, columns, squeeze=False).flat, histograms.items()):
        draw_ratio(sub, name, h)
    body = page.figure("generation", figure, "Generated jets against the simulation they were trained on. The lower panel is their ratio; "
                       "grey is the statistical uncertainty of the truth, bars that of the generated sample.")
    metrics = generation.get("metrics") or {}
    cells = "".join(f"<tr><td>{html.escape(k)}</td><td class=n>{v:.4g}</td></tr>" for k, v in metrics.items() if isinstance(v, (int, float)))
    return body + (f'<div class="scroll"><table><tr><th>measure</th><th class=n>value</th></tr>{cells}</table></div>' if cells else "")


def draw_ratio(sub, name, h):
    top, low = sub.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.asarray(h["edges"], float)
    truth, generated = (np.asarray(h[k], float) for k in ("truth", "generated"))
    scales = [1 / max(c.sum(), 1) / np.diff(edges) for c in (truth, generated)]
    t, g = truth * scales[0], generated * scales[1]
    te, ge = np.sqrt(truth) * scales[0], np.sqrt(generated) * scales[1]
    top.stairs(t, edges, fill=True, color="#d0d7de", label="truth")
    histogram(top, g, edges, ge, color="#d55e00", label="generated")
    top.set(ylabel="density", ylim=(0, 1.3 * max(t.max(), g.max())))
    top.legend(fontsize=9)
    stamp(top)
    good, centre = t > 0, (edges[1:] + edges[:-1]) / 2
    safe = np.where(good, t, 1)
    low.stairs(1 + np.where(good, te / safe, 0), edges, baseline=1 - np.where(good, te / safe, 0), fill=True, color="#d0d7de")
    low.errorbar(centre[good], (g / safe)[good], (ge / safe)[good], fmt="o", ms=2.5, lw=1, color="#d55e00")
    low.axhline(1, color="k", lw=0.8)
    unit = f" / {h['unit']}" if h.get("unit") else ""
    low.set(xlabel=QUANTITIES.get(name, name) + unit, ylabel="ratio", ylim=(0.5, 1.5), xlim=(edges[0], edges[-1]))


def draw_labels(page, table):
    """Metric against the number of training jets, where the table holds more than one."""
    series = defaultdict(lambda: defaultdict(list))
    for r in table:
        if r["strategy"] != "-" and float(r["n_train"]) > 0:
            series[r["task"], r["metric"]][f"{r['method']} {r['strategy']}"].append((float(r["n_train"]), float(r["value"]), float(r["error"] or 0)))
    series = {k: v for k, v in series.items() if any(len({n for n, _, _ in points}) > 1 for points in v.values())}
    if not series:
        return ""
    columns = min(2, len(series))
    figure, axes = plt.subplots(-(-len(series) // columns), columns, figsize=(5.6 * columns, 4 * -(-len(series) // columns)), squeeze=False)
    for ax in axes.flat[len(series):]:
        ax.set_visible(False)
    for ax, ((task, metric), group) in zip(axes.flat, series.items()):
        for key, points in sorted(group.items(), key=lambda kv: rank(kv[0])):
            n, value, error = np.array(sorted(points)).T
            ax.plot(n, value, marker="o", ms=4, **style(key))
            ax.fill_between(n, value - error, value + error, color=style(key)["color"], alpha=0.18, lw=0)
        ax.set(xscale="log", xlabel="labelled training jets", ylabel=METRICS.get(metric, (metric,))[0])
        ax.legend(fontsize=8.5)
        stamp(ax, TASKS.get(task, task))
    return page.figure("labels", figure, "Label efficiency: what each strategy reaches with so many labelled jets.")


# ---- page ---------------------------------------------------------------------------------------------------
def summary(table):
    """One block per task: a row per strategy, a column per metric, the best trained row of each column in bold."""
    if not table:
        return missing("results", "table.csv")
    body = ""
    for task in sorted({r["task"] for r in table}, key=task_rank):
        rows = [r for r in table if r["task"] == task]
        metrics = sorted({r["metric"] for r in rows}, key=lambda m: (list(METRICS) + [m]).index(m))
        keys = sorted({(r["method"], r["strategy"], float(r["n_train"])) for r in rows}, key=lambda k: (k[2] > 0, rank(f"{k[0]} {k[1]}"), k[2]))
        cell = {(r["method"], r["strategy"], float(r["n_train"]), r["metric"]): r for r in rows}
        best = {m: best_row(m, {k: cell[*k, m] for k in keys if (*k, m) in cell and k[1] != "-"}) for m in metrics}
        head = "".join(f"<th class=n>{html.escape(METRICS.get(m, (m,))[0])} {arrow(m)}</th>" for m in metrics)
        lines = ""
        for key in keys:
            name = style(key[0] if key[1] == "-" else f"{key[0]} {key[1]}")
            seeds = max((int(float(r["seeds"] or 0)) for r in rows if (r["method"], r["strategy"], float(r["n_train"])) == key), default=0)
            numbers = "".join(number(cell.get((*key, m)), best[m] == key) for m in metrics)
            lines += (f'<tr{" class=base" if key[1] == "-" else ""}><td><i style="background:{name["color"]}"></i>{html.escape(name["label"])}</td>'
                      f'<td class=n>{f"{key[2]:,.0f}".replace(",", "&thinsp;") if key[2] else "&ndash;"}</td>{numbers}<td class=n>{seeds or ""}</td></tr>')
        body += (f'<h3>{html.escape(TASKS.get(task, task))}</h3><div class="scroll"><table><tr><th>strategy</th><th class=n>training jets</th>{head}'
                 f"<th class=n>seeds</th></tr>{lines}</table></div>")
    return body


def best_row(metric, cells):
    better = METRICS.get(metric, (metric, True))[1]
    score = lambda r: -abs(float(r["value"]) - 1) if better is None else float(r["value"]) * (1 if better else -1)
    return max(cells, key=lambda k: score(cells[k]), default=None)


def arrow(metric):
    better = METRICS.get(metric, (metric, True))[1]
    return "&rarr;1" if better is None else "&uarr;" if better else "&darr;"


def number(row, is_best):
    if row is None:
        return "<td class=n>&ndash;</td>"
    value, error = float(row["value"]), float(row["error"] or 0)
    text = f"{value:.4f}" + (f' <small>&plusmn; {error:.4f}</small>' if error else "")
    return f"<td class=n>{'<b>' + text + '</b>' if is_best else text}</td>"


HOW_TO_READ = """<p>Each block is one task; each row is one way to learn it. <b>Individual</b> is a network built for this task alone;
<b>from scratch</b> is the foundation model's network without pre-training; <b>random, frozen</b> is the control: its backbone was never trained at all;
<b>pre-trained</b> rows start from the backbone that saw unlabelled jets. Numbers are the mean over seeds &plusmn; their standard deviation;
arrows say which way is better; the best trained row is bold. A gain counts when it exceeds both errors and the control does not show it too.</p>"""

STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;color:#1f2328;background:#f6f8fa;margin:0}
main{max-width:1080px;margin:0 auto;padding:0 20px 60px}header{background:#0b2239;color:#fff;padding:34px 20px 28px}
header div{max-width:1040px;margin:0 auto}h1{margin:0 0 4px;font-size:30px;letter-spacing:-.01em}header p{margin:0;color:#b9c9d9}
.facts{display:flex;flex-wrap:wrap;gap:8px;margin-top:16px}.facts span{background:#ffffff1a;border-radius:6px;padding:3px 10px;font-size:14px;color:#e6eef6}
.facts b{font-weight:600;color:#fff}nav{display:flex;flex-wrap:wrap;gap:4px 18px;padding:14px 0;font-size:15px}
a{color:#0550ae;text-decoration:none}a:hover{text-decoration:underline}
section{background:#fff;border:1px solid #d8dee4;border-radius:10px;padding:8px 26px 20px;margin:0 0 22px}
h2{font-size:22px;margin:14px 0 8px}h3{font-size:17px;margin:20px 0 6px}
.scroll{overflow-x:auto}table{border-collapse:collapse;min-width:520px;width:100%;font-size:15px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;color:#57606a;border-bottom:2px solid #d8dee4;padding:6px 12px 6px 0;white-space:nowrap}
td{border-bottom:1px solid #eaeef2;padding:6px 12px 6px 0;white-space:nowrap}.n{text-align:right}td small{color:#57606a}
td i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:9px}tr.base td{color:#57606a}
figure{margin:14px 0 4px;text-align:center}img{max-width:100%;height:auto}figcaption{text-align:left;color:#57606a;font-size:14px;max-width:800px;margin:6px auto 10px}
.missing{color:#57606a;background:#f6f8fa;border-left:3px solid #d8dee4;padding:8px 12px}code{font-size:.9em;background:#eff2f5;padding:1px 4px;border-radius:4px}
@media(max-width:640px){main{padding:0 10px 40px}section{padding:4px 14px 14px;border-radius:8px}h1{font-size:24px}body{font-size:15px}table{font-size:13px;min-width:0}
td:first-child,th{white-space:normal}td,th{padding-right:8px}td small{display:block}.wide img{max-width:none;width:720px}}
@media print{body{background:#fff;font-size:10pt}header{background:#fff;color:#000;padding:0 0 8px}header p,.facts span,.facts b{color:#333}.facts span{border:1px solid #ccc}
nav{display:none}section{border:0;padding:0;margin:0 0 12px}figure,table,tr{break-inside:avoid}h2,h3{break-after:avoid}.scroll{overflow:visible}}
"""


def facts(run_json):
    shown = [(k, v) for k, v in (run_json or {}).items() if isinstance(v, (int, float, str)) and not isinstance(v, bool) and k != "name"]
    return "".join(f"<span>{html.escape(k.replace('_', ' '))} <b>{html.escape(f'{v:,.6g}' if isinstance(v, float) else str(v))}</b></span>" for k, v in shown)


def render(page, name, run_json):
    links = "".join(f'<a href="#{a}">{html.escape(t)}</a>' for a, t, _ in page.sections)
    body = "".join(f'<section id="{a}"><h2>{html.escape(t)}</h2>{b}</section>' for a, t, b in page.sections)
    origin = "Simulated collisions" if (run_json or {}).get("simulated", True) else "Collision data"
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>Tessera: {html.escape(name)}</title><style>{STYLE}</style></head><body><header><div><h1>Tessera &middot; {html.escape(name)}</h1>"
            f'<p>{origin}. Everything below is drawn from the files of this run.</p><div class="facts">{facts(run_json)}</div></div></header>'
            f"<main><nav>{links}</nav>{body}</main></body></html>\n")


def report(run):
    page, run_json = Page(run), read_json(run / "run.json")
    table = read_table(run / "table.csv")
    curves = {name: read_curve(p) for name in ("tokenizer", "pretrain") if (p := run / name / "metrics.jsonl").exists()}
    finetuning = by_task(run.glob("finetune/*/metrics.jsonl"), read_curve)
    evals = by_task((run / "eval").glob("*__*.json"), read_json)
    tokens, pretrain = read_json(run / "eval" / "tokenizer.json"), read_json(run / "eval" / "pretrain.json")
    page.section("results", "Results", HOW_TO_READ + summary(table) + draw_labels(page, table))
    page.section("training", "Training", draw_training(page, curves, pretrain or tokens) + draw_finetuning(page, finetuning))
    page.section("momentum", "Tau momentum", draw_momentum(page, evals))
    page.section("roc", "Signal against background", draw_roc(page, evals))
    page.section("confusion", "Classes", draw_confusion(page, evals))
    page.section("tokenizer", "Tokenizer", draw_tokenizer(page, tokens))
    page.section("generation", "Generated jets", draw_generation(page, read_json(run / "eval" / "generation.json")))
    out = run / "report.html"
    out.write_text(render(page, str((run_json or {}).get("name", run.resolve().name)), run_json))
    return out


def main(arguments):
    if len(arguments) != 1 or not pathlib.Path(arguments[0]).is_dir():
        print("usage: plot.py RUN_DIRECTORY (an existing directory)", file=sys.stderr)
        return 64
    print(report(pathlib.Path(arguments[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
