#!/usr/bin/env python3
"""The products of matmul_bench.cpp by the cblas_sgemm of another library, in turn with it, and the ratio of their rates.

  matmul_peer.py BUILD/bench/matmul_bench LIBRARY.so [OUT IN]...

One thread, processor time, medians. Each side is a process of its own, since libraries bring their own thread pools; the
library runs with OPENBLAS_CORETYPE as set and with it unset, and the faster counts. LIBRARY.so may be OpenBLAS, BLIS or MKL.
"""
import array
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import time

TOKENS = 5000
SHAPES = [(256, 256), (1024, 256), (256, 1024)]  # out, in
NO_TRANS, TRANS = 111, 112
CHOICES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def floats(count):
    period = array.array("f", (random.uniform(-1, 1) for _ in range(65521)))  # a prime: rows differ
    values = (period * (count // len(period) + 1))[:count]
    return (ctypes.c_float * count).from_buffer(values)


def product(sgemm, kind, out, width):
    """A call of y = x W^T, dx = dy W or dW = dy^T x."""
    x, w, dy = floats(TOKENS * width), floats(out * width), floats(TOKENS * out)
    m, n, k, a, b, c, ta, tb, lda, ldb = {
        "y": (TOKENS, out, width, x, w, dy, NO_TRANS, TRANS, width, width),
        "dx": (TOKENS, width, out, dy, w, x, NO_TRANS, NO_TRANS, out, width),
        "dw": (out, width, TOKENS, dy, x, w, TRANS, NO_TRANS, out, width)}[kind]
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    return lambda: sgemm(101, ta, tb, m, n, k, one, a, lda, b, ldb, zero, c, n)


def peer(library, out, width):
    """In a child: GFLOP/s of each kind of product."""
    sgemm, rates = ctypes.CDLL(library).cblas_sgemm, {}
    for kind in ("y", "dx", "dw"):
        call, times = product(sgemm, kind, out, width), []
        for _ in range(22):
            begin = time.process_time_ns()
            call()
            times.append(time.process_time_ns() - begin)
        rates[kind] = 2.0 * TOKENS * out * width / statistics.median(times[1:])
    print(json.dumps(rates))


def in_child(library, out, width):
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "BLIS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    unset = {k: v for k, v in os.environ.items() if k not in CHOICES}
    runs = [subprocess.run([sys.executable, __file__, "--child", library, str(out), str(width)], env=env | one_thread,
                           capture_output=True, text=True, check=True).stdout for env in (dict(os.environ), unset)]
    rates = [json.loads(run) for run in runs]
    return {kind: max(r[kind] for r in rates) for kind in rates[0]}


def ours(program, out, width):
    names = {f"BM_linear_{'y/plain' if kind == 'y' else kind + '/f32'}/T:{TOKENS}/O:{out}/I:{width}/real_time": kind for kind in ("y", "dx", "dw")}
    run = subprocess.run([program, f"--benchmark_filter={'|'.join(f'^{n}$' for n in names)}", "--benchmark_format=json",
                          "--benchmark_repetitions=5", "--benchmark_report_aggregates_only=true"],
                         env=os.environ | {"TESSERA_THREADS": "1"}, capture_output=True, text=True, check=True).stdout
    rows = {names[r["run_name"]]: r for r in json.loads(run)["benchmarks"] if r["aggregate_name"] == "median"}
    return {k: (2.0 * TOKENS * out * width / r["cpu_time"], r["roof"]) for k, r in rows.items()}


def main(program, library, shapes):
    print(f"{os.path.basename(library)}, 1 thread, {TOKENS} rows, load {os.getloadavg()[0]:.1f}")
    print(f"{'':20} {'Tessera':>18} {'peer':>18}   ratio")
    for out, width in shapes:
        mine, theirs = ours(program, out, width), in_child(library, out, width)
        for kind, (rate, roof) in mine.items():
            print(f"{kind:3} O {out:5} I {width:5} {rate:8.1f} ({100 * rate / roof:4.1f} %) {theirs[kind]:9.1f} "
                  f"({100 * theirs[kind] / roof:4.1f} %)   {rate / theirs[kind]:.2f}")


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        peer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        numbers = [int(v) for v in sys.argv[3:]]
        main(sys.argv[1], sys.argv[2], list(zip(numbers[::2], numbers[1::2])) or SHAPES)
