"""The files of a run directory, as numbers."""
import csv
import json
import math
from collections import defaultdict

import numpy as np

from report.style import rank, task_rank


class Run:
    """The files of a run directory. What cannot be parsed counts as absent and is remembered in `damaged`."""

    def __init__(self, directory):
        self.directory, self.damaged = directory, []

    def json(self, name):
        path = self.directory / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                return self.whole_parts(name, content)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            pass
        self.damaged.append(name)
        return {}

    def whole_parts(self, name, content):
        """The content without the parts that have another shape than they should; those are remembered in `damaged`."""
        good = {}
        for key, value in content.items():
            shape = SHAPES.get(key.removeprefix("baseline_"))
            named = key in SHAPES_OF_NAMED and isinstance(value, dict)
            parts = {f"{key} {n}": (SHAPES_OF_NAMED[key], v) for n, v in value.items()} if named else {key: (shape, value)}
            checked = {n: self.checked(f"{name}: {n}", *part) for n, part in parts.items()}
            if named:
                good[key] = {n: v for n, v in zip(value, checked.values()) if v is not None}
            elif key in SHAPES_OF_NAMED:
                self.damaged.append(f"{name}: {key}")
            elif checked[key] is not None:
                good[key] = checked[key]
        return good

    def checked(self, name, shape, part):
        """What the shape makes of the part; None where it refuses it."""
        try:
            return shape(part) if shape else part
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            self.damaged.append(f"{name} ({' '.join(str(error).split()):.80})")
            return None

    def curve(self, name):
        path = self.directory / name
        lines = parse_lines(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else []
        if path.is_file() and not lines and path.stat().st_size:
            self.damaged.append(name)
        return columns(lines)

    def study_curve(self, study):
        """Both phases of a study in a row; where the second one begins stands in "boundary"."""
        whole, head = self.curve(f"finetune/{study}/metrics.jsonl"), self.curve(f"finetune/{study}/head/metrics.jsonl")
        return join_phases(head, whole) if head and whole else whole or head

    def table(self):
        return self.rows("table.csv", typed_row)

    def differences(self):
        return self.rows("differences.csv", difference_row)

    def rows(self, name, typed):
        try:
            with (self.directory / name).open(encoding="utf-8", newline="") as f:
                return [typed(row) for row in csv.DictReader(f)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            self.damaged.append(name)
            return []

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
        except (ValueError, RecursionError):
            continue
    return [line for line in lines if isinstance(line, dict) and type(line.get("step")) is int and abs(line["step"]) < 2**53]


def columns(lines):
    """{key: values}; a key that some lines lack, or hold no number for, is NaN there."""
    keys = dict.fromkeys(k for line in lines for k, v in line.items() if isinstance(v, (int, float)))
    number_of = lambda v: float(v) if isinstance(v, float) or type(v) is int and abs(v) < 2**1000 else math.nan
    return {k: np.array([number_of(line.get(k)) for line in lines]) for k in keys}


def join_phases(first, second):
    end = first["step"][-1]
    second = {**second, "step": second["step"] + end}
    gap = lambda c: np.full(len(c["step"]), np.nan)
    joined = {k: np.concatenate([first.get(k, gap(first)), second.get(k, gap(second))]) for k in {**first, **second}}
    return {**joined, "boundary": end}


def typed_row(row):
    numbers = {k: float(row[k] or 0) for k in ("n_train", "value", "error", "seeds")}
    finite(numbers["n_train"], numbers["seeds"])
    return {"task": row["task"], "key": (row["method"], row["strategy"], numbers["n_train"]), "metric": row["metric"], **numbers}


def difference_row(row):
    """The bounds of an interval that is not defined, as over the seeds of one seed, are NaN."""
    numbers = {k: float(row[k]) for k in ("n_train", "difference", "seeds")}
    spread = {k: float(row[k] or math.nan) for k in ("test_low95", "test_high95", "seeds_low95", "seeds_high95")}
    return {"task": row["task"], "metric": row["metric"], "key": f"{row['method']} {row['strategy']}",
            "minus": f"{row['minus_method']} {row['minus_strategy']}", **numbers, **spread}


def finite(*values):
    if not all(map(math.isfinite, values)):
        raise ValueError(f"expected finite numbers, got {values}")


def numbers(values):
    """A list of numbers as floats; null, which the program writes for what is undefined, becomes NaN."""
    if not isinstance(values, list):
        raise TypeError(f"expected a list of numbers, got {type(values).__name__}")
    return [math.nan if v is None else number(v) for v in values]


def number(value):
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"expected a number, got {value!r:.40}")


def parallel(part, *keys):
    """The part with its lists as numbers, which must be of one length and not empty."""
    lists = {k: numbers(part[k]) for k in keys}
    if len({len(v) for v in lists.values()}) != 1 or not len(lists[keys[0]]):
        raise ValueError(f"expected equally long lists {', '.join(keys)}")
    return {**part, **lists}


def momentum(part):
    if not part:
        return {}  # no bin has enough jets
    errors = [k for k in ("response_error", "resolution_error") if k in part]
    part = parallel(part, "pt_low", "pt_high", "response", "resolution", *errors)
    finite(*part["pt_low"], *part["pt_high"])
    return part


def histogram(part, *counts):
    """Finite rising edges around each list of counts that the part has; the first must be there."""
    edges = numbers(part["edges"])
    finite(*edges)
    if len(edges) < 2 or sorted(set(edges)) != edges:
        raise ValueError("expected rising edges")
    lists = {k: numbers(part[k]) for k in counts if k == counts[0] or part.get(k)}
    for k, values in lists.items():
        finite(*values)
        if len(values) != len(edges) - 1 or min(values) < 0:
            raise ValueError(f"expected {len(edges) - 1} counts in {k}")
    return {**part, "edges": edges, **lists}


def confusion(part):
    counts = [numbers(row) for row in part["counts"]]
    finite(*(v for row in counts for v in row))
    if not counts or any(len(row) != len(part["classes"]) for row in [counts, *counts]):
        raise ValueError("expected a square of counts, a row for each class")
    return {**part, "classes": [str(c) for c in part["classes"]], "counts": counts}


def counts(values):
    finite(*numbers(values))
    return numbers(values)


# What the parts of an evaluation must look like to be drawn.
SHAPES = {
    "momentum": momentum,
    "response_histogram": lambda part: histogram(part, "counts"),
    "roc": lambda part: part and parallel(part, "signal_efficiency", "background_efficiency"),
    "confusion": confusion,
    "code_counts": counts,
    **dict.fromkeys(("perplexity", "token_entropy", "reconstruction_mse", "n", "parameters"), number),
}
SHAPES_OF_NAMED = {"residuals": lambda part: histogram(part, "counts"),
                   "histograms": lambda part: histogram(part, "truth", "reconstructed", "generated")}


def having(studies, part, needed):
    """Of each task and strategy the parts of that name, where at least one seed has one with `needed` in it. The raw jet
    stands first where a run holds its part: all runs of a task see the same test jets, so once is enough."""
    pick = lambda runs, name: [{**r[name], "n_all": r[name].get("total", r.get("n"))} for r in runs if (r.get(name) or {}).get(needed)]
    chosen = {}
    for task, group in studies.items():
        baseline = pick((r for runs in group.values() for r in runs), f"baseline_{part}")[:1]
        parts = {"raw-jet": baseline, **{k: pick(runs, part) for k, runs in group.items()}}
        chosen[task] = {k: runs for k, runs in parts.items() if runs}
    return {t: group for t, group in chosen.items() if group}
