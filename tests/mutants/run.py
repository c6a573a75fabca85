#!/usr/bin/env python3
"""Mutation check of the device kernels and of what queues them: how many one-line faults do the tests notice on simt?

    python3 tests/mutants/run.py --build build/dev [--only softmax] [--jobs 1]

For each entry of mutants.txt the kernel, or the host's source, is changed, compiled for simt with the flags of the build tree,
linked in front of the libraries of its op's test and run on simt alone (TESSERA_TEST_DEVICES=simt). A
mutant is killed if the test fails, crashes or hangs. Prints a table and ends with 1 if fewer than 90 %
are killed or an entry does not apply. Slow (about 10 s each), so ctest has it under the label `mutants`
only: ctest --test-dir build/dev -C mutants -L mutants
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUIRED = 0.9


@dataclasses.dataclass
class Mutant:
    source: str  # path of the .cu, of a .cuh that the test's own op includes, or of a .cpp
    test: str  # ninja target
    op: str  # whose kernel is compiled
    before: str
    after: str
    result: str = "?"
    seconds: float = 0.0


def read_list(text):
    mutants, block, before = [], (), None
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("- "):
            before = line[2:].replace("\\n", "\n")
        elif line.startswith("+ "):
            mutants.append(Mutant(*block, before, line[2:].replace("\\n", "\n")))
        else:
            source, test, *op = line.split()
            block = source, test, op[0] if op else pathlib.Path(source).parent.name
    return mutants


def compile_command(build, unit):
    """The build's own command for a unit, by the end of its path."""
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if entry["file"].endswith("/" + unit):
            return shlex.split(entry["command"]), entry["directory"]
    raise SystemExit(f"mutants: {build} compiles no {unit}")


def link_command(build, test):
    """The last command of the test's target, without the launcher steps around it."""
    lines = subprocess.run(["ninja", "-C", str(build), "-t", "commands", test], capture_output=True,
                           text=True, check=True).stdout.splitlines()
    link = next(l for l in reversed(lines) if f"-o tests/{test} " in l)
    link = link.removeprefix(": && ").removesuffix(" && :")
    return shlex.split(link)


def replace_output(command, output):
    command = list(command)
    command[command.index("-o") + 1] = str(output)
    return command


def kernel_of(mutant):
    """The file that is compiled: the kernel of the op, or the host's source itself."""
    if mutant.source.endswith(".cpp"):
        return ROOT / mutant.source
    return ROOT / f"kernels/{mutant.op}/{mutant.op}_cuda.cu"


def build_mutant(build, work, mutant, text):
    """Compiles and links; returns the program. The object stands before the archive that holds the
    original, so the linker never takes that one."""
    kernel = kernel_of(mutant)
    stem = kernel.stem
    changed = work / mutant.source  # found before the original: its folder is the first of the include path
    changed.parent.mkdir(parents=True, exist_ok=True)
    changed.write_text(text)
    unit = work / f"{stem}.cpp"
    whole = mutant.source.endswith((".cu", ".cpp"))
    unit.write_text(f'#include "{changed if whole else kernel}"\n')
    command, directory = compile_command(build, mutant.source if mutant.source.endswith(".cpp") else f"simt/{stem}.cpp")
    kept, skip = [], False
    for word in command:
        if skip or word in {"-MD", "-MT", "-MF", "-Werror"}:  # a mutant may leave a variable unused
            skip = word in {"-MT", "-MF"}
            continue
        kept.append(word)
    kept[kept.index("-c") + 1] = str(unit)
    kept.insert(1, f"-I{work}")
    obj = work / f"{stem}.o"
    done = subprocess.run(replace_output(kept, obj), cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"mutants: does not compile: {mutant.before!r} -> {mutant.after!r}\n{done.stderr[:2000]}")
    link = replace_output(link_command(build, mutant.test), work / mutant.test)
    first_object = next(i for i, word in enumerate(link) if word.endswith(".o"))
    link.insert(first_object + 1, str(obj))
    done = subprocess.run(link, cwd=build, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"mutants: does not link: {mutant.source}\n{done.stderr[:2000]}")
    return work / mutant.test


def run_mutant(build, number, mutant):
    start = time.monotonic()
    source = (ROOT / mutant.source).read_text()
    if source.count(mutant.before) != 1:
        mutant.result = f"applies {source.count(mutant.before)} times"
        return mutant
    work = build / "mutants" / f"{number:03d}"
    shutil.rmtree(work, ignore_errors=True)  # a header of an earlier run would be found first
    work.mkdir(parents=True, exist_ok=True)
    program = build_mutant(build, work, mutant, source.replace(mutant.before, mutant.after))
    environment = dict(os.environ, TESSERA_TEST_DEVICES="simt")
    try:
        done = subprocess.run([program, "--gtest_fail_fast"], cwd=work, env=environment,
                              capture_output=True, text=True, timeout=120)
        (work / "log").write_text(done.stdout + done.stderr)
        mutant.result = "survived" if done.returncode == 0 else "killed"
    except subprocess.TimeoutExpired:
        mutant.result = "killed"  # it hangs
    program.unlink()
    mutant.seconds = time.monotonic() - start
    return mutant


def one_line(text):
    return re.sub(r"\s+", " ", text)


def stale(mutants):
    """A line for each entry that does not apply: the kernel or its test was changed, the list not."""
    for m in mutants:
        found = (ROOT / m.source).read_text().count(m.before)
        if found != 1:
            yield f"{m.source}: expected once, got {found} times: {one_line(m.before)}"
        tests = {str(f.relative_to(ROOT / "tests").with_suffix("")).replace("/", "_") for f in ROOT.glob("tests/**/*_test.cpp")}
        if not kernel_of(m).exists() or m.test not in tests:
            yield f"{m.source}: no {kernel_of(m).relative_to(ROOT)}, or no {m.test}, for {one_line(m.before)}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/dev")
    parser.add_argument("--only", default="", help="ops whose path contains this")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="only tell whether every entry applies; seconds")
    options = parser.parse_args()
    build = options.build.resolve()
    mutants = [m for m in read_list((ROOT / "tests/mutants/mutants.txt").read_text())
               if options.only in m.source]
    if options.check:
        lines = list(stale(mutants))
        for line in lines:
            print(line)
        return 1 if lines else 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(run_mutant, build, i, m) for i, m in enumerate(mutants)]
        for job in concurrent.futures.as_completed(jobs):
            m = job.result()
            print(f"{m.result:10} {m.seconds:5.1f} s  {pathlib.Path(m.source).parent.name:12} "
                  f"{one_line(m.before)}  =>  {one_line(m.after)}", flush=True)
    killed = sum(m.result == "killed" for m in mutants)
    invalid = [m for m in mutants if m.result not in ("killed", "survived")]
    for op in sorted({m.source for m in mutants}):
        of_op = [m for m in mutants if m.source == op]
        print(f"{op:44} {sum(m.result == 'killed' for m in of_op):3} of {len(of_op):3} killed")
    print(f"killed {killed} of {len(mutants)} ({100 * killed / max(1, len(mutants)):.1f} %), "
          f"{sum(m.seconds for m in mutants):.0f} s")
    return 0 if not invalid and killed >= REQUIRED * len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
