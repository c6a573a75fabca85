#!/usr/bin/env python3
"""The report page: drawn from a synthetic run, from an empty one and from damaged files. Exit 77 without matplotlib.

    plot_test.py --write DIRECTORY     leaves a synthetic run and its report there, to look at
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import matplotlib  # noqa: F401
    import numpy as np
except ImportError:
    print("skipped: matplotlib is not installed (apps/python/requirements-report.txt)")
    sys.exit(77)

PLOT = pathlib.Path(__file__).resolve().parents[2] / "apps" / "python" / "plot.py"
STRATEGIES = {("deepsets", "scratch"): 1.25, ("tessera", "scratch"): 1.1, ("tessera", "random-frozen"): 1.6,
              ("tessera", "frozen"): 0.95, ("tessera", "full"): 0.75}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_curve(path, **series):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({k: float(v[i]) for k, v in series.items()}) for i in range(len(series["step"]))]
    path.write_text("\n".join(lines) + '\n{"step": 99')  # a torn last line


def momentum(rng, badness):
    low = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 125, 150, 175]
    high = low[1:] + [200]
    x = np.array(low) + 5.0
    resolution = badness * (0.05 + 0.6 / x) * (1 + 0.03 * rng.standard_normal(13))
    response = 1 + badness * 0.3 / x + 0.004 * rng.standard_normal(13)
    n = (4000 * np.exp(-x / 50)).astype(int) + 40
    return {"pt_low": low, "pt_high": high, "response": response.tolist(), "resolution": resolution.tolist(), "n": n.tolist(),
            "response_error": (resolution / np.sqrt(n)).tolist(), "resolution_error": (1.2 * resolution / np.sqrt(n)).tolist()}


def roc(rng, badness):
    signal, background = rng.normal(2.2 / badness, 1, 4000), rng.normal(0, 1, 4000)
    cuts = np.quantile(signal, np.linspace(1, 0, 200))
    return {"signal_efficiency": [float((signal >= c).mean()) for c in cuts], "background_efficiency": [float((background >= c).mean()) for c in cuts]}


def confusion(rng, classes, badness):
    right = 1 - 0.3 * badness
    share = np.full((len(classes), len(classes)), (1 - right) / (len(classes) - 1))
    np.fill_diagonal(share, right)
    return {"classes": classes, "counts": [rng.multinomial(500, row).tolist() for row in share]}


def write_evaluations(run, rng, rows):
    edges = np.linspace(0.5, 1.5, 31)
    for (method, strategy), badness in STRATEGIES.items():
        for seed in range(3):
            name = lambda task: f"{task}__{method}__{strategy}__seed{seed}"
            ratio = rng.normal(1.01, 0.08 * badness, 3000)
            write_json(run / "eval" / f"{name('tau-pt')}.json", {"momentum": momentum(rng, badness), "response_histogram": {
                "edges": edges.tolist(), "counts": np.histogram(ratio, edges)[0].tolist()}})
            write_json(run / "eval" / f"{name('tau-id')}.json", {"roc": roc(rng, badness)})
            write_json(run / "eval" / f"{name('tau-dm')}.json", {"confusion": confusion(rng, ["h", "h pi0", "h 2pi0", "3h", "3h pi0", "rare"], badness)})
            write_json(run / "eval" / f"{name('tag')}.json", {"confusion": confusion(
                rng, ["QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl"], badness)})
            steps = np.arange(10, 610, 10.0)
            for task in ("tau-pt", "tau-id", "tau-dm", "tag"):
                loss = badness * (0.3 + np.exp(-steps / 120)) + 0.01 * rng.standard_normal(60)
                write_curve(run / "finetune" / name(task) / "metrics.jsonl", step=steps, loss=loss, val_loss=loss + 0.03)
        for task, metrics in (("tau-pt", {"resolution": 0.08 * badness, "response": 1 + 0.01 * badness}), ("tau-id", {"misid@80": 0.05 * badness, "auc": 1 - 0.05 * badness}),
                              ("tau-dm", {"accuracy": 1 - 0.3 * badness}), ("tag", {"accuracy": 1 - 0.3 * badness})):
            rows += [f"{task},{method},{strategy},10000,{k},{v:.6g},{0.02 * v:.3g},3" for k, v in metrics.items()]


def write_run(run):
    rng, steps = np.random.default_rng(1), np.arange(10, 2010, 10.0)
    rows = ["task,method,strategy,n_train,metric,value,error,seeds", "tau-pt,raw-jet,-,0,resolution,0.19,0,1", "tau-pt,raw-jet,-,0,response,1.08,0,1",
            "tau-id,constant,-,0,misid@80,0.8,0,1", "tau-id,constant,-,0,auc,0.5,0,1", "tau-dm,constant,-,0,accuracy,0.31,0,1", "tag,constant,-,0,accuracy,0.1,0,1"]
    write_evaluations(run, rng, rows)
    (run / "table.csv").write_text("\n".join(rows) + "\n")
    write_json(run / "run.json", {"name": "synthetic", "simulated": True, "seed": 1, "simd": "AVX-512", "threads": 2, "minutes": 12.4, "backbone parameters": "1.2 M"})
    noise = lambda s: s * rng.standard_normal(200)
    write_curve(run / "tokenizer" / "metrics.jsonl", step=steps, loss=0.02 + np.exp(-steps / 150) * (1 + noise(0.05)), reconstruction=0.01 + 0.6 * np.exp(-steps / 150))
    write_curve(run / "pretrain" / "metrics.jsonl", step=steps, ntp=5.1 + 1.6 * np.exp(-steps / 300) + noise(0.03), val_ntp=5.13 + 1.6 * np.exp(-steps / 300),
                mpm=5.4 + 1.3 * np.exp(-steps / 300) + noise(0.03))
    counts = rng.poisson(200 * np.exp(-np.arange(512) / 200))
    p = counts[counts > 0] / counts.sum()
    entropy = float(-(p * np.log(p)).sum())
    residual = lambda width, unit: {"edges": np.linspace(-4 * width, 4 * width, 41).tolist(), "unit": unit,
                                    "counts": np.histogram(rng.normal(0, width, 20000), np.linspace(-4 * width, 4 * width, 41))[0].tolist()}
    write_json(run / "eval" / "tokenizer.json", {"code_counts": counts.tolist(), "usage": float((counts > 0).mean()), "perplexity": float(np.exp(entropy)), "token_entropy": entropy,
               "reconstruction_mse": 0.0123, "residuals": {"pt": residual(0.08, ""), "deta": residual(0.01, ""), "dphi": residual(0.01, "rad")},
               "reconstruction": [{"quantity": "jet mass, IQR / median", "value": 0.041}, {"quantity": "jet pT, IQR / median", "value": 0.018}]})
    write_json(run / "eval" / "pretrain.json", {"ntp": 5.11, "mpm": 5.4, "token_entropy": entropy})
    shapes = {"pt": (rng.normal(650, 90, 10000), rng.normal(655, 92, 8000), "GeV"), "mass": (rng.gamma(6, 20, 10000), rng.gamma(6, 20.5, 8000), "GeV"),
              "eta": (rng.normal(0, 0.8, 10000), rng.normal(0, 0.8, 8000), ""), "phi": (rng.uniform(-3.14, 3.14, 10000), rng.uniform(-3.14, 3.14, 8000), "rad"),
              "n_const": (rng.normal(45, 12, 10000), rng.normal(44, 12, 8000), ""), "tau21": (rng.beta(4, 4, 10000), rng.beta(4, 4.2, 8000), "")}
    histograms = {}
    for name, (truth, generated, unit) in shapes.items():
        edges = np.linspace(*np.quantile(truth, [0.002, 0.998]), 31)
        histograms[name] = {"edges": edges.tolist(), "truth": np.histogram(truth, edges)[0].tolist(), "generated": np.histogram(generated, edges)[0].tolist(), "unit": unit}
    write_json(run / "eval" / "generation.json", {"histograms": histograms, "metrics": {"KL jet mass": 0.012, "KL jet pT": 0.009, "two-sample AUC": 0.61}})


def draw(run):
    return subprocess.run([sys.executable, PLOT, run], capture_output=True, text=True)


class FullRunTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.run_path = pathlib.Path(directory.name)
        write_run(cls.run_path)
        write_json(cls.run_path / "run.json", {"name": "<script>alert(1)</script>", "seed": 1})
        cls.result = draw(cls.run_path)
        cls.page = (cls.run_path / "report.html").read_text() if cls.result.returncode == 0 else ""

    def test_it_is_drawn_without_warnings(self):
        self.assertEqual((self.result.returncode, self.result.stderr), (0, ""))

    def test_it_has_every_figure_and_no_gap(self):
        self.assertNotIn('class="missing"', self.page)
        for name in ("training", "finetuning", "momentum_tau-pt", "response_tau-pt", "roc_tau-id", "confusion_tau-dm", "confusion_tag", "tokenizer", "generation"):
            for kind in ("pdf", "png"):
                self.assertGreater((self.run_path / "figures" / f"{name}.{kind}").stat().st_size, 1000, name)
        self.assertEqual(self.page.count("<img"), 9)

    def test_it_refers_to_nothing_outside_itself(self):
        page = re.sub(r"base64,[A-Za-z0-9+/=]*", "", self.page)
        self.assertIn("<section", page)
        self.assertEqual(re.findall(r"(?:https?:)?//\w[^\s\"']*", page), [])
        self.assertEqual([s for s in re.findall(r'(?:src|href)="([^"]*)"', page) if not s.startswith(("data:", "#"))], [])

    def test_the_table_holds_the_numbers_of_the_csv_and_marks_the_best(self):
        self.assertIn("<b>0.0600 <small>", self.page)  # resolution of the fine-tuned row: 0.08 * 0.75
        self.assertIn("0.1900", self.page)

    def test_names_from_files_are_escaped(self):
        self.assertIn("&lt;script&gt;", self.page)
        self.assertNotIn("<script>", self.page)


class PartialRunTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.run_path = pathlib.Path(directory.name)

    def draw(self):
        result = draw(self.run_path)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return (self.run_path / "report.html").read_text()

    def test_an_empty_run_says_what_is_missing(self):
        page = self.draw()
        self.assertGreaterEqual(page.count('class="missing"'), 7)
        self.assertNotIn("<img", page)

    def test_damaged_files_count_as_missing(self):
        (self.run_path / "eval").mkdir()
        (self.run_path / "pretrain").mkdir()
        (self.run_path / "eval" / "tokenizer.json").write_text("{")
        (self.run_path / "eval" / "tau-pt__tessera__full__seed0.json").write_text("")
        (self.run_path / "pretrain" / "metrics.jsonl").write_text('{"step": 1, "ntp": NaN}\nnot json\n')
        (self.run_path / "table.csv").write_text("task,method\ntau-pt,tessera\n")
        self.assertGreaterEqual(self.draw().count('class="missing"'), 7)

    def test_a_wrong_directory_is_a_usage_error(self):
        self.assertEqual(subprocess.run([sys.executable, PLOT, self.run_path / "absent"], capture_output=True).returncode, 64)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_run(pathlib.Path(sys.argv[2]))
        sys.exit(subprocess.run([sys.executable, PLOT, sys.argv[2]]).returncode)
    unittest.main()
