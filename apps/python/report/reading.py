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
        return self.rows("table.csv", typed_row)

    def differences(self):
        return self.rows("differences.csv", difference_row)

    def rows(self, name, typed):
        try:
            with (self.directory / name).open() as f:
                return [typed(row) for row in csv.DictReader(f)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError):
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


def difference_row(row):
    """Without an interval over seeds, which one seed has not, its bounds are NaN."""
    numbers = {k: float(row[k]) for k in ("n_train", "difference", "test_low95", "test_high95", "seeds")}
    spread = {k: float(row[k] or math.nan) for k in ("seeds_low95", "seeds_high95")}
    return {"task": row["task"], "metric": row["metric"], "key": f"{row['method']} {row['strategy']}",
            "minus": f"{row['minus_method']} {row['minus_strategy']}", **numbers, **spread}


def having(studies, part, needed):
    """Of each task and strategy the parts of that name, where at least one seed has one with `needed` in it. The raw jet
    stands first where a run holds its part: all runs of a task see the same test jets, so once is enough."""
    pick = lambda runs, name: [{**r[name], "n_all": r.get("n")} for r in runs if (r.get(name) or {}).get(needed)]
    chosen = {}
    for task, group in studies.items():
        baseline = pick((r for runs in group.values() for r in runs), f"baseline_{part}")[:1]
        parts = {"raw-jet": baseline, **{k: pick(runs, part) for k, runs in group.items()}}
        chosen[task] = {k: runs for k, runs in parts.items() if runs}
    return {t: group for t, group in chosen.items() if group}
