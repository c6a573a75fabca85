#!/usr/bin/env python3
"""Draws the report of a run: RUN/report.html, one page without network references, and RUN/figures/*.{pdf,png}.

  plot.py RUN_DIRECTORY

Reads only files of the run directory. Each may be absent, then its section says so; one that cannot be parsed is
left out and named on the page and on stderr.
  run.json                  {"name", "seed", "simd", "threads", "version", "revision", "simulated", "data": {DIRECTORY: hash},
                            "stages": {NAME: {"seconds", "ended", "weights"}}}
  table.csv                 task,method,strategy,n_train,metric,value,error,seeds
  differences.csv           task,method,strategy,minus_method,minus_strategy,n_train,metric,difference, bounds of the 68 and 95 %
                            intervals over test jets and over seeds, seeds
  tokenizer/metrics.jsonl, pretrain/metrics.jsonl, finetune/TASK__METHOD__STRATEGY__seedK/metrics.jsonl
                            one object a step: {"step", "loss", ..., "gradient_norm", "lr"}, now and then "val_loss";
                            a torn last line is skipped. A first phase with a frozen backbone lies in head/ below.
  eval/TASK__METHOD__STRATEGY__seedK.json, any of
      roc        {signal_efficiency[], background_efficiency[]}
      momentum   {pt_low[], pt_high[], response[], resolution[], response_error[], resolution_error[], n[]}, GeV
      response_histogram  {edges[], counts[]} of pT predicted / true; n is the number of jets beside it
      baseline_momentum, baseline_response_histogram  the same of the raw jet
      confusion  {classes[], counts[true][predicted]}
      weights    {sum, effective_number} of weighted test jets: all counts are then sums of weights, and those of
                 response_histogram have their squares[] and the total of all jets beside them
  eval/tokenizer.json       code_counts[], usage, perplexity, token_entropy (nat), reconstruction_mse,
                            residuals {FEATURE: {edges[], counts[], unit}}
  eval/pretrain.json        token_entropy (nat), ntp, mpm
  eval/generation.json      {histograms: {NAME: {edges[], truth[], reconstructed[] (or none), generated[], unit}},
                            metrics: {NAME: value, "NAME, WHAT STANDS BESIDE IT": value}}
Exit codes: 0 done, 64 usage, 66 no run there or no matplotlib, 74 the page cannot be written.
"""
import os
import pathlib
import sys

from program import EXIT_MISSING, EXIT_USAGE, ProgramError, exit_code_of, write_durably

here = os.open(".", os.O_RDONLY)
os.chdir(pathlib.Path(__file__).parent)  # matplotlib would read a matplotlibrc of the working directory
try:
    import matplotlib
    import numpy  # noqa: F401
except ImportError as error:
    print(f"plot.py: {error}; pip install -r apps/python/requirements-report.txt", file=sys.stderr)
    sys.exit(EXIT_MISSING)
finally:
    os.fchdir(here)
    os.close(here)
matplotlib.use("Agg")

from report.generation import draw_generation, draw_tokenizer
from report.page import Page, render
from report.reading import Run
from report.tables import difference_tables, draw_labels, facts, how_to_read, summary, weight_note
from report.tasks import draw_confusion, draw_momentum, draw_roc
from report.training import draw_finetuning, draw_training


def fill(page, run, run_json):
    table = run.table()
    evals = run.studies("eval/*__*.json", lambda p: run.json(f"eval/{p.name}"))
    curves = {name: run.curve(f"{name}/metrics.jsonl") for name in ("tokenizer", "pretrain")}
    finetuning = run.studies("finetune/*__*", lambda p: run.study_curve(p.name))
    tokens, pretrain = run.json("eval/tokenizer.json"), run.json("eval/pretrain.json")
    entropy = pretrain.get("token_entropy") or tokens.get("token_entropy")

    def section(anchor, title, *parts):
        """`parts`: what it shows, the function that makes its HTML, and that one's arguments."""
        page.section(anchor, title, "".join(page.guarded(*part) for part in parts))

    section("results", "Results", ("how to read the table", how_to_read, table), ("weights of the jets", weight_note, evals),
            ("the table of results", summary, table, evals),
            ("paired differences", difference_tables, run.differences()), ("label efficiency", draw_labels, page, table))
    section("training", "Training", ("pre-training curves", draw_training, page, curves, entropy), ("fine-tuning curves", draw_finetuning, page, finetuning))
    section("momentum", "Tau momentum", ("response and resolution", draw_momentum, page, evals))
    section("roc", "Signal against background", ("ROC curves", draw_roc, page, evals))
    section("confusion", "Classes", ("confusion matrices", draw_confusion, page, evals))
    section("tokenizer", "Tokenizer", ("tokenizer", draw_tokenizer, page, tokens))
    section("generation", "Generated jets", ("generated jets", draw_generation, page, run.json("eval/generation.json")))
    section("run", "This run", ("facts of the run", facts, run_json))


def report(directory):
    parts = ("run.json", "table.csv", "eval", "tokenizer", "pretrain", "finetune")
    if not any((directory / part).exists() for part in parts):
        raise ProgramError(EXIT_MISSING, f"{directory}: expected a run directory with one of {', '.join(parts)}, got none")
    run = Run(directory)
    run_json = run.json("run.json")
    page = Page(directory, run_json.get("simulated", True))
    fill(page, run, run_json)
    if run.damaged:
        print(f"plot.py: {directory}: left out, cannot be read: {', '.join(run.damaged)}", file=sys.stderr)
    if page.left_out:
        print(f"plot.py: {directory}: left out, cannot be drawn: {'; '.join(page.left_out)}", file=sys.stderr)
    out = directory / "report.html"
    html = render(page, run, str(run_json.get("name", directory.resolve().name)))
    write_durably(out, html.encode("utf-8", errors="replace"))
    return out


def main(arguments):
    if len(arguments) != 1:
        raise ProgramError(EXIT_USAGE, f"usage: plot.py RUN_DIRECTORY, got {len(arguments)} arguments")
    return report(pathlib.Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(exit_code_of("plot.py", lambda: main(sys.argv[1:])))
