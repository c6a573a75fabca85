"""Results against the controls, label efficiency, facts of the run."""
import html
import math
from collections import defaultdict
from functools import partial

import numpy as np

from report.drawing import legend_below
from report.page import grouped, missing, table_html
from report.style import METRICS, STAGES, plain, rank, strategy_name, style, task_name, task_rank


def draw_labels(page, table):
    """Metric against the number of training jets, where the table holds more than one."""
    series = defaultdict(lambda: defaultdict(list))
    for r in table:
        method, strategy, n = r["key"]
        if strategy != "-" and n > 0:
            series[r["task"], r["metric"]][f"{method} {strategy}"].append((n, r["value"], r["error"]))
    series = {k: v for k, v in series.items() if any(len(points) > 1 for points in v.values())}
    panels = [(f"labels_{task}_{metric.replace('@', '')}", f"{metric} against labels", partial(draw_label_panel, page, task, metric, group))
              for (task, metric), group in series.items()]
    return page.figures(panels, "Label efficiency: what each strategy reaches with so many labelled jets. Bands are the standard "
                        "deviation over seeds.") if panels else ""


def draw_label_panel(page, task, metric, group):
    figure, ax = page.panel(len(group))
    for key, points in sorted(group.items(), key=lambda kv: rank(kv[0])):
        n, value, error = np.array(sorted(points)).T
        ax.plot(n, value, marker="o", ms=4, **style(key))
        ax.fill_between(n, value - error, value + error, color=style(key)["color"], alpha=0.18, lw=0)
    ax.set(xscale="log", xlabel="labelled training jets", ylabel=METRICS.get(metric, (plain(metric),))[0])
    page.stamp(ax, task_name(task))
    legend_below(figure, ax)
    return figure


def summary(table, evals):
    """One block per task: baselines, then a row per strategy; a column per metric, its best row marked."""
    if not table:
        return missing("results", "table.csv")
    body = ""
    for task in sorted({r["task"] for r in table}, key=task_rank):
        parameters = {k: runs[0].get("parameters") for k, runs in evals.get(task, {}).items()}
        body += f"<h3>{html.escape(task_name(task))}</h3>" + task_table([r for r in table if r["task"] == task], parameters)
    return body


def task_table(rows, parameters):
    metrics = sorted({r["metric"] for r in rows}, key=lambda m: (list(METRICS) + [m]).index(m))
    cell = {(r["key"], r["metric"]): r for r in rows}
    keys = sorted({r["key"] for r in rows}, key=lambda k: (k[1] != "-", rank(f"{k[0]} {k[1]}"), k[2]))
    best = {m: best_row(m, {k: cell[k, m] for k in keys if (k, m) in cell}) for m in metrics}
    head = ["strategy", *(f"{html.escape(METRICS.get(m, (m,))[0])} {arrow(m)}" for m in metrics), "training jets", "parameters", "seeds"]
    lines = []
    for key in keys:
        strategy = key[0] if key[1] == "-" else f"{key[0]} {key[1]}"
        seeds = max(int(r["seeds"]) for r in rows if r["key"] == key)
        lines.append(("base" if key[1] == "-" else "", [
            f'<i style="background:{style(strategy)["color"]}"></i>{html.escape(strategy_name(strategy)).replace("-", "&#8209;")}', *(number(cell.get((key, m)), best[m] == key) for m in metrics),
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


def how_to_read(table):
    seeds = sorted({int(r["seeds"]) for r in table if r["key"][1] != "-"})
    count = " to ".join(str(s) for s in sorted({seeds[0], seeds[-1]})) if seeds else "no"
    errors = "one seed has no error" if seeds == [1] else "&plusmn; is their standard deviation, not the error of the mean"
    return f"""<p>Each block is one task on held-out jets, each row one way to learn it. First the baseline without a network. <b>Individual</b> is
a network built for this task alone; <b>from scratch</b> is the foundation model's network without pre-training; <b>random, frozen</b> is the
control: its backbone was never trained at all; <b>pre-trained</b> rows start from the backbone that saw unlabelled jets.</p>
<p>Numbers are the mean over <b>{count} seed{"" if seeds == [1] else "s"}</b>; {errors}. Arrows say which way is better, the best row of each column,
baselines included, is <b class="mark">marked</b>. A gain counts when its paired difference below has an interval without 0 and the control does not show it too.</p>"""


def weight_note(evals):
    """Says which tasks have weighted test jets, and how many unweighted ones they count as."""
    notes = []
    for task, group in evals.items():
        run = next((r for runs in group.values() for r in runs if r.get("weights")), None)
        if run:
            notes.append(f"{html.escape(TASKS.get(task, task))} ({grouped(run['n'])} jets that count as {run['weights']['effective_number']:.0f})")
    return f"<p>Test jets are <b>weighted</b>: {'; '.join(notes)}. Every metric, curve and histogram below is.</p>" if notes else ""


def difference_tables(rows):
    """Pre-trained minus each control, task by task; what is certain at 95 % in both senses is marked."""
    if not rows:
        return ""
    body = """<h3>Paired differences</h3><p>Metric of the first minus that of the second, on the same test jets and seed by seed: mean over seeds with its 95 % intervals.
<b>Test jets</b>: over bootstrap replicas of the test jets, the same for both. <b>Seeds</b>: of the mean over trainings with other seeds, by
Student's t; a single seed has none. A difference is <b class="mark">marked</b> where neither interval holds 0.</p>"""
    head = ["difference", "metric", "training jets", "value", "95 %, test jets", "95 %, seeds"]
    for task in sorted({r["task"] for r in rows}, key=task_rank):
        group = sorted((r for r in rows if r["task"] == task), key=lambda r: (r["n_train"], rank(r["key"]), rank(r["minus"])))
        body += f"<h4>{html.escape(task_name(task))}</h4>" + table_html(head, [("", difference_cells(r)) for r in group])
    return body


def difference_cells(r):
    names = f"{strategy_name(r['key'])} minus {strategy_name(r['minus'])}"
    value = f"{r['difference']:+.4f}"
    metric = METRICS.get(r["metric"], (r["metric"], True))
    return [html.escape(names), f"{html.escape(metric[0])} {arrow(r['metric'])}", grouped(r["n_train"]), f"<b>{value}</b>" if certain(r) else value,
            interval(r["test_low95"], r["test_high95"]), interval(r["seeds_low95"], r["seeds_high95"])]


def certain(r):
    """Neither 95 % interval holds 0; without one over seeds that of the test jets decides."""
    apart = lambda low, high: low > 0 or high < 0
    return apart(r["test_low95"], r["test_high95"]) and (math.isnan(r["seeds_low95"]) or apart(r["seeds_low95"], r["seeds_high95"]))


def interval(low, high):
    return f"{low:+.4f} to {high:+.4f}" if math.isfinite(low) else "&ndash;"


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
    return f"{task_name(parts[0])}: {strategy_name(f'{parts[1]} {parts[2]}')}"
