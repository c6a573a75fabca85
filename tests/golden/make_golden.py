#!/usr/bin/env python3
"""Writes the golden files: inputs, parameters, outputs and gradients of the models in reference.py.

    python3 tests/golden/make_golden.py [NAME ...]        needs torch and numpy; the tests need neither

Parameters and inputs are float32 values; everything is computed from them in double and stored as float32 (float64
where a name ends in .f64). Prefixes of the names: in/ param/ out/ grad/ (d loss / d parameter) grad_in/ (d loss / d
input). README.md lists the files. Same versions, same bytes.
"""
import sys

import torch

import backbone_files  # each registers its makers
import checkpoint_files
import head_files
import metric_files
import tokenizer_files
import training_files
from golden_file import FILES

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or FILES:
        FILES[name]()
        print(name)
