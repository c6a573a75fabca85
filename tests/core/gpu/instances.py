#!/usr/bin/env python3
"""Does every kernel instance that nvcc compiles run in a test with the label cuda?

    python3 tests/core/gpu/instances.py --build build/dev [--jobs 2] [--keep FOLDER]

Runs every program of the label on simt, where a launch tells the address of its kernel, and compares the kernels'
symbols with those of budget.txt, which holds each instance of the machine code. Prints what no program reached and ends
with 1 if there is any. Minutes, so ctest has it only by name: ctest --test-dir build/dev -C instances -L instances
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]


def compiled():
    """{(op, kernel)} of budget.txt, "forward_kernel<8>"."""
    lines = (ROOT / "tests/core/gpu/budget.txt").read_text().splitlines()
    return {tuple(line.split()[:2]) for line in lines if line and not line.startswith("#")}


def short_name(demangled):
    """As budget_test.cmake has it: no namespaces, no arguments, no spaces."""
    name = re.sub(r"\(anonymous namespace\)::|\(bool\)|\(int\)", "", demangled)
    found = re.search(r"([A-Za-z0-9_]+(<[^(]*>)?)\(", name)
    return (found.group(1) if found else name).replace(" ", "")


def symbols(program):
    """{address: (op, kernel)}; local symbols follow the name of their source file."""
    text = subprocess.run(["readelf", "-sW", program], capture_output=True, text=True, check=True).stdout
    text = subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout
    found, op = {}, ""
    for line in text.splitlines():
        words = line.split(None, 7)
        if len(words) < 8:
            continue
        if words[3] == "FILE":
            op = re.sub(r"_cuda\..*", "", words[7])
        elif words[3] == "FUNC" and "_kernel" in words[7]:
            found[int(words[1], 16)] = op, short_name(words[7])
    return found


def launched(program, folder):
    """What one program launches on simt; its own success is other tests' business."""
    entries = pathlib.Path(folder) / (pathlib.Path(program).name + ".entries")
    if not entries.exists():
        environment = dict(os.environ, TESSERA_TEST_DEVICES="simt", TESSERA_SIMT_ENTRIES=str(entries))
        subprocess.run([program], cwd=folder, env=environment, capture_output=True, timeout=3600)
    by_address = symbols(program)
    lines = entries.read_text().split() if entries.exists() else []
    return {by_address[int(line, 16)] for line in lines if int(line, 16) in by_address}


def programs_of(build):
    """Of the label, from the labels that tests/CMakeLists.txt writes beside each program."""
    for labels in sorted((build / "tests").glob("*_labels.cmake")):
        program = labels.with_name(labels.name.removesuffix("_labels.cmake"))
        if re.search(r'LABELS "[^"]*\bcuda\b', labels.read_text()) and program.exists():
            yield str(program)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/dev")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", help="folder for what programs launched; found there, they do not run again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or scratch
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        programs = list(programs_of(options.build.resolve()))
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            reached = set().union(*pool.map(lambda p: launched(p, folder), programs))
    missing = sorted(compiled() - reached)
    for op, kernel in missing:
        print(f"reached by no test with the label cuda: {op} {kernel}")
    print(f"{len(compiled()) - len(missing)} of {len(compiled())} instances in {len(programs)} programs")
    return 1 if missing or not programs else 0


if __name__ == "__main__":
    sys.exit(main())
