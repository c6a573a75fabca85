#!/usr/bin/env python3
"""The report page: drawn from a synthetic run, from an empty one and from damaged files. Exit 77 without matplotlib.

    plot_test.py --write DIRECTORY     leaves a synthetic run and its report there, to look at
"""
import contextlib
import io
import contextlib
import io
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
import warnings
import xml.etree.ElementTree

try:
    import matplotlib  # noqa: F401
    import numpy as np
except ImportError:
    print("skipped: matplotlib is not installed (apps/python/requirements-report.txt)")
    sys.exit(77)

APPS_PYTHON = pathlib.Path(__file__).resolve().parents[2] / "apps" / "python"
PLOT = APPS_PYTHON / "plot.py"
sys.path[:0] = [str(APPS_PYTHON), str(pathlib.Path(__file__).resolve().parents[1] / "support")]
import plot  # noqa: E402
import program  # noqa: E402
from full_disk import FullDisk  # noqa: E402
from report import reading, training  # noqa: E402

STRATEGIES = {("deepsets", "scratch"): 1.25, ("tessera", "scratch"): 1.1, ("tessera", "random-frozen"): 1.6,
              ("tessera", "frozen"): 0.95, ("tessera", "lpft"): 0.85, ("tessera", "full"): 0.75}
TASKS = ("tau-pt", "tau-id", "tau-dm", "tag")
SHAPES = ("jet_pt", "jet_mass", "width", "constituent_dphi", "n_constituents", "tau21")
# What a full run must show, section by section: the names of the figures, in the order of the page.
FIGURES = {
    "results": [],
    "training": ["training_tokenizer", "training_pretrain"] + [f"finetuning_{t}_{k}" for t in TASKS for k in ("loss", "val_loss")],
    "momentum": ["momentum_tau-pt_response", "momentum_tau-pt_resolution", "response_tau-pt_linear", "response_tau-pt_log"],
    "roc": ["roc_tau-id"],
    "confusion": [f"confusion_{t}_{m}_{s}" for t in ("tau-dm", "tag") for m, s in STRATEGIES],
    "tokenizer": ["tokens_usage", "tokens_residual_pt", "tokens_residual_deta", "tokens_residual_dphi"],
    "generation": [f"generation_{n}" for n in SHAPES],
    "run": [],
}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_curve(path, steps, losses, validation=(), every=0):
    """One object a step; every so many steps with a validation loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(steps):
        line = {"step": i + 1, **{k: float(v[i]) for k, v in losses.items()}, "gradient_norm": 1.5, "lr": 1e-3}
        if every and (i + 1) % every == 0:
            line["val_loss"] = float(validation[i])
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + '\n{"step": 99')  # a torn last line


def write_study_curves(run, rng, name, strategy, badness):
    """As many steps as a real study has, so that the size of the page means something."""
    for part, steps in (("head/", 200), ("", 600)) if strategy == "lpft" else (("", 800),):
        loss = badness * (0.3 + np.exp(-np.arange(steps) / 120)) + 0.05 * rng.standard_normal(steps)
        write_curve(run / "finetune" / name / f"{part}metrics.jsonl", steps, {"loss": loss}, loss + 0.03, steps // 8)


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
    edges = np.linspace(0.8, 1.2, 81)
    for (method, strategy), badness in STRATEGIES.items():
        for seed in range(3):
            name = lambda task: f"{task}__{method}__{strategy}__seed{seed}"
            ratio = rng.normal(1.01, 0.08 * badness, 3000)
            response = {"edges": edges.tolist(), "counts": np.histogram(ratio, edges)[0].tolist()}
            write_json(run / "eval" / f"{name('tau-pt')}.json", {"n": 3000, "parameters": 152901, "momentum": momentum(rng, badness),
                       "baseline_momentum": momentum(rng, 2), "response_histogram": response, "baseline_response_histogram": response})
            write_json(run / "eval" / f"{name('tau-id')}.json", {"roc": roc(rng, badness)})
            write_json(run / "eval" / f"{name('tau-dm')}.json", {"confusion": confusion(rng, ["h", "h pi0", "h 2pi0", "3h", "3h pi0", "rare"], badness)})
            write_json(run / "eval" / f"{name('tag')}.json", {"confusion": confusion(
                rng, ["QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl"], badness)})
            for task in TASKS:
                write_study_curves(run, rng, name(task), strategy, badness)
        for task, metrics in (("tau-pt", {"resolution": 0.08 * badness, "response": 1 + 0.01 * badness}), ("tau-id", {"misid@80": 0.05 * badness, "auc": 1 - 0.05 * badness}),
                              ("tau-dm", {"accuracy": 1 - 0.3 * badness}), ("tag", {"accuracy": 1 - 0.3 * badness})):
            rows += [f"{task},{method},{strategy},10000,{k},{v:.6g},{0.02 * v:.3g},3" for k, v in metrics.items()]


def write_training(run, rng):
    steps = np.arange(2000)
    noise = lambda s: s * rng.standard_normal(2000)
    write_curve(run / "tokenizer" / "metrics.jsonl", 2000, {"loss": 0.03 + np.exp(-steps / 150) * (1 + noise(0.05)),
                "reconstruction": 0.01 + 0.6 * np.exp(-steps / 150), "quantiser": 0.01 + noise(0.001)})
    write_curve(run / "pretrain" / "metrics.jsonl", 2000, {"loss": 12 + noise(0.1), "ntp": 5.1 + 1.6 * np.exp(-steps / 300) + noise(0.03),
                "mpm": 5.4 + 1.3 * np.exp(-steps / 300) + noise(0.03)})


DIFFERENCES = ("task,method,strategy,minus_method,minus_strategy,n_train,metric,difference,test_low68,test_high68,test_low95,test_high95,"
               "seed_sd,seeds_low68,seeds_high68,seeds_low95,seeds_high95,seeds\n")


def write_differences(run):
    """One that is certain, one that the seeds do not hold up, one of a single seed."""
    (run / "differences.csv").write_text(DIFFERENCES +
        "tau-pt,tessera,full,tessera,scratch,10000,resolution,-0.028,-0.029,-0.027,-0.03,-0.026,0.001,-0.029,-0.027,-0.0305,-0.0255,3\n"
        "tag,tessera,full,tessera,scratch,10000,accuracy,0.02,0.01,0.03,0.005,0.04,0.02,0.005,0.035,-0.03,0.07,3\n"
        "tag,tessera,full,part,scratch,10000,accuracy,0.01,0.005,0.015,0.001,0.02,,,,,,1\n")


def write_run(run):
    rng = np.random.default_rng(1)
    rows = ["task,method,strategy,n_train,metric,value,error,seeds", "tau-pt,raw-jet,-,0,resolution,0.19,0,1", "tau-pt,raw-jet,-,0,response,1.08,0,1",
            "tau-id,constant,-,0,misid@80,0.8,0,1", "tau-id,constant,-,0,auc,0.5,0,1", "tau-dm,constant,-,0,accuracy,0.31,0,1", "tag,constant,-,0,accuracy,0.1,0,1"]
    write_evaluations(run, rng, rows)
    write_training(run, rng)
    (run / "table.csv").write_text("\n".join(rows) + "\n")
    write_differences(run)
    stages = {n: {"seconds": 60.5, "weights": "00ff"} for n in ("tokenizer", "pretrain", "tau-pt__tessera__full__seed0", "tau-pt__tessera__full__seed1")}
    write_json(run / "run.json", {"name": "synthetic", "simulated": True, "seed": 1, "simd": "AVX-512", "threads": 2,
                                  "data": {"sample/jets": "abcd1234"}, "stages": stages})
    counts = rng.poisson(200 * np.exp(-np.arange(512) / 200))
    p = counts[counts > 0] / counts.sum()
    entropy = float(-(p * np.log(p)).sum())
    residual = lambda width, unit: {"edges": np.linspace(-4 * width, 4 * width, 41).tolist(), "unit": unit,
                                    "counts": np.histogram(rng.normal(0, width, 20000), np.linspace(-4 * width, 4 * width, 41))[0].tolist()}
    write_json(run / "eval" / "tokenizer.json", {"code_counts": counts.tolist(), "usage": float((counts > 0).mean()), "perplexity": float(np.exp(entropy)), "token_entropy": entropy,
               "reconstruction_mse": 0.0123, "residuals": {"pt": residual(0.08, ""), "deta": residual(0.01, ""), "dphi": residual(0.01, "rad")}})
    write_json(run / "eval" / "pretrain.json", {"ntp": 5.11, "mpm": 5.4, "token_entropy": entropy})
    shapes = {"jet_pt": (rng.normal(650, 90, 10000), rng.normal(655, 92, 8000), "GeV"), "jet_mass": (rng.gamma(6, 20, 10000), rng.gamma(6, 20.5, 8000), "GeV"),
              "width": (rng.normal(0, 0.8, 10000), rng.normal(0, 0.8, 8000), ""), "constituent_dphi": (rng.uniform(-3.14, 3.14, 10000), rng.uniform(-3.14, 3.14, 8000), "rad"),
              "n_constituents": (rng.normal(45, 12, 10000), rng.normal(44, 12, 8000), ""), "tau21": (rng.beta(4, 4, 10000), rng.beta(4, 4.2, 8000), "")}
    histograms = {}
    for name, (truth, generated, unit) in shapes.items():
        edges = np.linspace(*np.quantile(truth, [0.002, 0.998]), 31)
        histograms[name] = {"edges": edges.tolist(), "truth": np.histogram(truth, edges)[0].tolist(), "generated": np.histogram(generated, edges)[0].tolist(), "unit": unit}
        if name != "tau21":
            histograms[name]["reconstructed"] = np.histogram(truth * 1.01, edges)[0].tolist()
    write_json(run / "eval" / "generation.json", {"histograms": histograms, "metrics": {"kld jet_mass": 0.012, "kld jet_mass, tokenizer alone": 0.011,
               "kld jet_mass, truth against truth": 0.009, "jets below 3 particles": 0.18, "jets below 3 particles, truth": 0.125}})


def draw(run):
    return subprocess.run([sys.executable, PLOT, run], capture_output=True, text=True)


def sections(page):
    return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.S))


def images(page):
    return [urllib.parse.unquote(uri.replace("&amp;", "&")) for uri in re.findall(r'<img [^>]*src="data:image/svg\+xml,([^"]*)"', page)]


class FullRunTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.run_path = pathlib.Path(directory.name)
        write_run(cls.run_path)
        facts = json.loads((cls.run_path / "run.json").read_text())
        write_json(cls.run_path / "run.json", {**facts, "name": "<script>alert(1)</script>"})
        cls.result = draw(cls.run_path)
        cls.page = (cls.run_path / "report.html").read_text() if cls.result.returncode == 0 else ""

    def test_it_is_drawn_without_warnings(self):
        self.assertEqual((self.result.returncode, self.result.stderr), (0, ""))

    def test_every_section_is_there_in_order_and_in_the_contents(self):
        self.assertEqual(list(sections(self.page)), list(FIGURES))
        self.assertEqual(re.findall(r'<li><a href="#(\w+)">', self.page), list(FIGURES))
        self.assertNotIn('class="missing"', self.page)

    def test_every_section_has_its_figures(self):
        for name, body in sections(self.page).items():
            self.assertEqual(len(images(body)), len(FIGURES[name]), name)

    def test_every_figure_lies_beside_the_page(self):
        expected = {f"{name}.{kind}" for names in FIGURES.values() for name in names for kind in ("pdf", "png")}
        self.assertEqual({p.name for p in (self.run_path / "figures").iterdir()}, expected)
        for name in expected:
            self.assertGreater((self.run_path / "figures" / name).stat().st_size, 1000, name)

    def test_the_images_are_whole_and_the_page_is_small(self):
        for image in images(self.page):
            self.assertEqual(xml.etree.ElementTree.fromstring(image).tag, "{http://www.w3.org/2000/svg}svg")
        self.assertLess(len(self.page.encode()), 3_000_000)

    def test_it_refers_to_nothing_outside_itself(self):
        page = re.sub(r'src="data:[^"]*"', "", self.page)
        self.assertEqual(re.findall(r"(?:https?:)?//\w[^\s\"']*", page), [])
        self.assertEqual([s for s in re.findall(r'(?:src|href)="([^"]*)"', page) if not s.startswith("#")], [])
        for image in images(self.page):
            links = set(re.findall(r"https?://[^\s\"']*", image)) - {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
            self.assertEqual((links, [s for s in re.findall(r"href='([^']*)'", image) if not s.startswith("#")]), (set(), []))

    def test_the_table_holds_the_numbers_of_the_csv_baseline_first_and_marks_the_best(self):
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", sections(self.page)["results"].split("<h3>")[1])
        self.assertIn("raw jet", rows[1])
        self.assertIn("0.1900", rows[1])
        marked = [row for row in rows if "<b>" in row]
        self.assertEqual(len(marked), 1)
        self.assertIn("fine", marked[0])
        self.assertIn("<b>0.0600 <small>&plusmn;&nbsp;0.0012", marked[0])  # resolution of the fine-tuned row: 0.08 * 0.75
        self.assertIn("152&#8239;901", marked[0])
        self.assertIn("<b>3 seeds</b>", self.page)

    def test_a_difference_is_marked_where_no_interval_holds_zero(self):
        body = sections(self.page)["results"].split("Paired differences")[1]
        cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]
        self.assertEqual([row[0] for row in cells if row], ["pre-trained, fine-tuned minus from scratch",
                                                            "pre-trained, fine-tuned minus ParT, individual", "pre-trained, fine-tuned minus from scratch"])
        self.assertEqual([row[3] for row in cells if row], ["<b>-0.0280</b>", "<b>+0.0100</b>", "+0.0200"])
        self.assertEqual([row[5] for row in cells if row], ["-0.0305 to -0.0255", "&ndash;", "-0.0300 to +0.0700"])

    def test_the_facts_of_the_run_are_told(self):
        facts = sections(self.page)["run"]
        for text in ("AVX-512", "abcd1234", "Tau momentum: pre-trained, fine-tuned", "2.0 min", "4.0 min"):
            self.assertIn(text, facts)

    def test_generation_draws_each_sample_that_the_file_has(self):
        drawn = dict(zip(SHAPES, images(sections(self.page)["generation"])))
        for name, image in drawn.items():
            self.assertIn("#d55e00", image, name)  # generated
            self.assertEqual("#0072b2" in image, name != "tau21", name)  # reconstructed

    def test_each_measure_stands_beside_its_floor(self):
        rows = re.findall(r"<tr>(.*?)</tr>", sections(self.page)["generation"])
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
        self.assertEqual(cells, [["measure", "generated", "tokenizer alone", "truth against truth", "truth"],
                                 ["kld jet mass", "0.012", "0.011", "0.009", "&ndash;"],
                                 ["jets below 3 particles", "0.18", "&ndash;", "&ndash;", "0.125"]])

    def test_names_from_files_are_escaped(self):
        self.assertIn("&lt;script&gt;", self.page)
        self.assertNotIn("<script>", self.page)


class HavingTest(unittest.TestCase):
    def test_the_raw_jet_is_drawn_once_and_first(self):
        run = {"n": 9, "momentum": {"pt_low": [1]}, "baseline_momentum": {"pt_low": [2]}}
        group = reading.having({"tau-pt": {"tessera full": [run, run]}}, "momentum", "pt_low")["tau-pt"]
        self.assertEqual({k: [r["pt_low"] for r in runs] for k, runs in group.items()}, {"raw-jet": [[2]], "tessera full": [[1], [1]]})
        self.assertEqual(list(group), ["raw-jet", "tessera full"])
        self.assertEqual(reading.having({"tag": {"tessera full": [{"n": 9}]}}, "momentum", "pt_low"), {})


class CurveTest(unittest.TestCase):
    def test_a_training_shows_its_parts_instead_of_their_weighted_sum(self):
        curve = {k: np.ones(3) for k in ("step", "loss", "ntp", "mpm", "val_ntp", "gradient_norm", "lr")}
        self.assertEqual(training.loss_keys(curve), ["ntp", "mpm", "val_ntp"])
        self.assertEqual(training.loss_keys({k: curve[k] for k in ("step", "loss", "lr")}), ["loss"])
        self.assertEqual(training.loss_keys({"step": curve["step"], "loss": curve["loss"], "reconstruction": curve["ntp"]}), ["reconstruction"])

    def test_a_study_of_two_phases_goes_on_where_the_first_ended(self):
        with tempfile.TemporaryDirectory() as directory:
            study = pathlib.Path(directory) / "finetune" / "s"
            write_curve(study / "head" / "metrics.jsonl", 20, {"loss": np.full(20, 2.0)}, np.full(20, 3.0), 5)
            write_curve(study / "metrics.jsonl", 80, {"loss": np.full(80, 1.0)})
            curve = reading.Run(pathlib.Path(directory)).study_curve("s")
        self.assertEqual(curve["step"].tolist(), list(range(1, 101)))
        self.assertEqual((curve["loss"][19], curve["loss"][20], curve["boundary"]), (2, 1, 20))
        self.assertEqual(np.flatnonzero(np.isfinite(curve["val_loss"])).tolist(), [4, 9, 14, 19])

    def test_the_running_mean_is_the_naive_one(self):
        values = np.random.default_rng(2).normal(size=1000)
        values[[3, 500]] = np.nan
        step, mean = training.running_mean(np.arange(1000.0), values)
        kept = values[np.isfinite(values)]
        for x, m in zip(step, mean):
            i = int(x) - (x > 3) - (x > 500)
            half = min(i, 998 // 40)
            self.assertAlmostEqual(m, kept[i - half:i + half + 1].mean(), places=12)
        for n in (1, 2, 7):
            self.assertEqual(len(training.running_mean(np.arange(n), np.ones(n))[1]), n)


class PartialRunTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.run_path = pathlib.Path(directory.name)

    def draw(self, errors=""):
        result = draw(self.run_path)
        self.assertEqual((result.returncode, result.stderr), (0, errors))
        return (self.run_path / "report.html").read_text()

    def test_a_run_that_has_just_begun_says_what_is_missing(self):
        (self.run_path / "eval").mkdir()
        page = self.draw()
        for name, body in sections(page).items():
            self.assertIn('class="missing"', body, name)
        self.assertNotIn("<img", page)

    def test_each_section_is_drawn_from_its_own_files_alone(self):
        write_training(self.run_path, np.random.default_rng(1))
        page = sections(self.draw())
        self.assertEqual([name for name in page if images(page[name])], ["training"])
        self.assertEqual(len(images(page["training"])), 2)

    def test_damaged_files_are_left_out_and_named(self):
        (self.run_path / "eval").mkdir()
        (self.run_path / "pretrain").mkdir()
        (self.run_path / "eval" / "tokenizer.json").write_text("{")
        (self.run_path / "eval" / "tau-pt__tessera__full__seed0.json").write_text("")
        (self.run_path / "pretrain" / "metrics.jsonl").write_text("not json\n")
        (self.run_path / "table.csv").write_text("task,method\ntau-pt,tessera\n")
        (self.run_path / "differences.csv").write_text(DIFFERENCES + "tag,tessera,full\n")
        names = "table.csv, eval/tau-pt__tessera__full__seed0.json, pretrain/metrics.jsonl, eval/tokenizer.json, differences.csv"
        page = self.draw(f"plot.py: {self.run_path}: left out, cannot be read: {names}\n")
        self.assertIn(names, page)
        self.assertNotIn("<img", page)

    def test_names_that_would_be_broken_formulas_are_drawn_as_they_are(self):
        names = ["$x^{$", "$\\frac{$", "a$b", r"\$", "two\nlines", "", "$$"]
        counts = [[5] * len(names)] * len(names)
        write_json(self.run_path / "eval" / "tag__tessera__full__seed0.json", {"confusion": {"classes": names, "counts": counts}})
        histogram = {"edges": [0, 1, 2], "counts": [3, 4], "truth": [3, 4], "generated": [4, 3], "unit": "$x^{$"}
        write_json(self.run_path / "eval" / "generation.json", {"histograms": {"$m^{$": histogram}})
        write_json(self.run_path / "eval" / "tokenizer.json", {"code_counts": [1, 2], "residuals": {"$r^{$": histogram}})
        write_curve(self.run_path / "pretrain" / "metrics.jsonl", 20, {"$l^{$": np.ones(20)})
        page = sections(self.draw())
        for name in ("confusion", "generation", "tokenizer", "training"):
            self.assertTrue(images(page[name]), name)

    def test_what_the_test_jets_do_not_define_is_left_out(self):
        """A test split of one class, or without jets: no metric, no curve, intervals without bounds."""
        for task, more in (("tau-id", {"n": 40, "loss": 0.3}), ("tau-pt", {"n": 0}), ("tag", {"n": 0})):
            write_json(self.run_path / "eval" / f"{task}__tessera__full__seed0.json",
                       {"metrics": {}, "baseline": {}, "undefined": {"auc": "no jet is a tau"}, **more})
        write_json(self.run_path / "eval" / "tokenizer.json", {"usage": 0.0, "code_counts": [0] * 8, "residuals": {}})
        write_json(self.run_path / "eval" / "pretrain.json", {})
        write_json(self.run_path / "eval" / "generation.json", {"histograms": {}, "metrics": {"truncated jets": 0.0}})
        (self.run_path / "table.csv").write_text("task,method,strategy,n_train,metric,value,error,seeds\n")
        (self.run_path / "differences.csv").write_text(DIFFERENCES + "tag,tessera,full,tessera,scratch,60,accuracy,0.1" + "," * 10 + "1\n")
        page = self.draw()
        self.assertNotIn("nan", page)
        self.assertIn("+0.1000", page)

    def test_numbers_that_are_not_finite_leave_gaps(self):
        (self.run_path / "pretrain").mkdir()
        lines = [f'{{"step": {i}, "ntp": {"null" if i % 2 else 5.0}, "mpm": NaN}}' for i in range(1, 40)]
        (self.run_path / "pretrain" / "metrics.jsonl").write_text("\n".join(lines))
        (self.run_path / "table.csv").write_text("task,method,strategy,n_train,metric,value,error,seeds\n"
                                                 "tag,tessera,full,10,accuracy,nan,nan,3\ntag,tessera,scratch,10,accuracy,0.5,0,1\n")
        page = sections(self.draw())
        self.assertEqual(len(images(page["training"])), 1)
        self.assertIn("<b>0.5000</b>", page["results"])


ODD = (None, float("nan"), float("inf"), -1, 0, 1e308, 10**400, True, "", "x", "$x^{$", "\ud800", [], [[]], {}, {"edges": [1]}, [1, "x"], [None, None])


def places(content, path=()):
    """Every place in a JSON value, outermost first."""
    yield path
    children = content.items() if isinstance(content, dict) else enumerate(content[:3]) if isinstance(content, list) else ()
    for key, value in children:
        yield from places(value, (*path, key))


def replaced(content, path, value):
    if not path:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = replaced(content[path[0]], path[1:], value)
    return copy


class OddFilesTest(unittest.TestCase):
    """Whatever the JSON files of a run hold, the page is drawn and says what is left out."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.whole = pathlib.Path(directory.name)
        write_run(cls.whole)

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.run_path = pathlib.Path(directory.name)

    def copy(self, name):
        return json.loads((self.whole / name).read_text())

    def test_edges_that_are_undefined_leave_out_that_figure_alone(self):
        generation = self.copy("eval/generation.json")
        generation["histograms"]["tau21"]["edges"] = [None] * 31  # NaN, as the program writes it
        write_json(self.run_path / "eval" / "generation.json", generation)
        result = draw(self.run_path)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr, r"^plot\.py: .*left out, cannot be read: eval/generation\.json: histograms tau21 .*\n$")
        page = (self.run_path / "report.html").read_text()
        self.assertEqual(len(images(sections(page)["generation"])), len(SHAPES) - 1)
        self.assertIn("histograms tau21", page)

    def test_a_part_of_another_shape_is_left_out_and_the_rest_stands(self):
        study = self.copy("eval/tau-pt__tessera__full__seed0.json")
        study["momentum"]["response"] = study["momentum"]["response"][:-1]
        write_json(self.run_path / "eval" / "tau-pt__tessera__full__seed0.json", study)
        result = draw(self.run_path)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("seed0.json: momentum", result.stderr)
        page = (self.run_path / "report.html").read_text()
        self.assertEqual(len(images(sections(page)["momentum"])), 4)  # of the raw jet, and the response

    def test_names_that_begin_a_formula_are_text(self):
        study = self.copy("eval/tag__tessera__full__seed0.json")
        study["confusion"]["classes"][3] = "$x^{$"
        write_json(self.run_path / "eval" / "tag__tessera__full__seed0.json", study)
        write_json(self.run_path / "eval" / "$a_{__$b^{__$__seed0.json", study)
        result = draw(self.run_path)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(len(images(sections((self.run_path / "report.html").read_text())["confusion"])), 2)

    def test_no_value_anywhere_ends_in_a_traceback(self):
        import plot
        from report.page import Page
        rendered = Page.image  # drawing is what may fail; rendering takes a hundred times as long
        self.addCleanup(setattr, Page, "image", rendered)
        Page.image = lambda page, name, alt, figure: plot.matplotlib.pyplot.close(figure) or "<img>"
        errors = io.StringIO()
        rng = random.Random(7)
        names = ["run.json", "eval/tokenizer.json", "eval/pretrain.json", "eval/generation.json"]
        names += [f"eval/{t}__{m}__full__seed{k}.json" for t in TASKS for m in ("tessera",) for k in (0,)]
        contents = {n: self.copy(n) for n in names}
        for name in names:
            write_json(self.run_path / name, contents[name])
        with contextlib.redirect_stderr(errors), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                every = list(places(contents[name]))
                for path in rng.sample(every, min(len(every), 5)):
                    bad = replaced(contents[name], path, rng.choice(ODD))
                    (self.run_path / name).write_text(json.dumps(bad))
                    try:
                        plot.report(self.run_path)
                    except Exception as error:
                        self.fail(f"{name}, {path}: {error!r}")
                write_json(self.run_path / name, contents[name])


class ErrorTest(unittest.TestCase):
    def fails(self, code, *arguments):
        result = subprocess.run([sys.executable, PLOT, *arguments], capture_output=True, text=True)
        self.assertEqual(result.returncode, code)
        self.assertRegex(result.stderr, r"^plot\.py: .*\n$")
        self.assertEqual(result.stdout, "")

    def test_no_directory_or_two_is_a_usage_error(self):
        self.fails(64)
        self.fails(64, "a", "b")

    def test_an_absent_run_is_missing_input(self):
        self.fails(66, "/nonexistent/run")

    def test_a_directory_without_a_run_is_missing_input_and_stays_as_it_is(self):
        with tempfile.TemporaryDirectory() as directory:
            self.fails(66, directory)
            self.assertEqual(list(pathlib.Path(directory).iterdir()), [])

    def test_a_page_that_cannot_be_written_is_an_io_error(self):
        with tempfile.TemporaryDirectory() as directory:
            run = pathlib.Path(directory)
            write_json(run / "run.json", {"name": "x"})
            (run / "figures").write_text("in the way")
            self.fails(74, directory)

    def test_a_full_disk_leaves_no_part_of_a_figure_or_page_at_any_write(self):
        with tempfile.TemporaryDirectory() as directory:
            run = pathlib.Path(directory)
            write_json(run / "run.json", {"name": "x"})
            write_curve(run / "tokenizer" / "metrics.jsonl", 3, {"loss": [3, 2, 1]})

            def drawn():
                return {p.relative_to(run): p.read_bytes() for p in run.rglob("*") if p.suffix not in (".json", ".jsonl") and p.is_file()}

            with FullDisk(0) as disk:
                program.exit_code_of("plot.py", lambda: plot.main([directory]))
            want = drawn()
            self.assertEqual(len(want), 3)
            for k in range(1, disk.calls + 1):
                for path in want:
                    (run / path).unlink(missing_ok=True)
                if k % 2:
                    (run / "figures").rmdir()
                with FullDisk(k), contextlib.redirect_stderr(io.StringIO()) as err:
                    code = program.exit_code_of("plot.py", lambda: plot.main([directory]))
                if code != 0:  # not so where the folder was there, so that a call fewer is made
                    self.assertEqual(code, 74, k)
                    self.assertIn("No space left on device", err.getvalue(), k)
                for path, data in drawn().items():
                    self.assertEqual(data, want[path], (k, path))
            self.assertEqual(program.exit_code_of("plot.py", lambda: plot.main([directory])), 0)
            self.assertEqual(drawn(), want)

    def test_a_result_that_standard_output_does_not_take_is_an_io_error(self):
        with tempfile.TemporaryDirectory() as directory:
            write_json(pathlib.Path(directory) / "run.json", {"name": "x"})
            for way in (">/dev/full", ">&-"):
                done = subprocess.run(f"{sys.executable} {PLOT} {directory} {way}", shell=True, capture_output=True, text=True)
                self.assertEqual(done.returncode, 74, (way, done.stderr))
                self.assertRegex(done.stderr, r"^plot\.py: standard output: cannot be written: .*\n$")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_run(pathlib.Path(sys.argv[2]))
        sys.exit(subprocess.run([sys.executable, PLOT, sys.argv[2]]).returncode)
    unittest.main()
