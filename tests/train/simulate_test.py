"""apps/python/simulate.py with the real generator. Exit status 77 = pythia8mc is missing."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

if importlib.util.find_spec("pythia8mc") is None or importlib.util.find_spec("awkward") is None:
    print("SKIPPED: pythia8mc or awkward is not installed (pip install -r apps/python/requirements.txt)")
    sys.exit(77)

import numpy as np  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "apps", "python", "simulate.py")


def run(*arguments):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "x.particles")
        subprocess.run([sys.executable, SCRIPT, *map(str, arguments), "--out", out], check=True)
        with open(out, "rb") as file:
            return file.read()


def blocks(stream):
    """Header and (sigma in mb, columns) of each block."""
    assert stream[:8] == b"TSRPART1"
    version, length = struct.unpack_from("<II", stream, 8)
    header, at, out = json.loads(stream[16:16 + length]), 16 + length, []
    while stream[at:at + 4] == b"BLK1":
        n, m, tried, sigma, _ = struct.unpack_from("<IIQdd", stream, at + 4)
        begin, size = at + 4, 32 + 12 * n + 84 * m
        assert zlib.crc32(stream[begin:begin + size]) == struct.unpack_from("<I", stream, begin + size)[0]
        body = begin + 32 + 8 * n
        counts = np.frombuffer(stream, "<u4", n, body).astype("i8")
        integers = np.frombuffer(stream, "<i4", 5 * m, body + 4 * n).reshape(5, m)
        floats = np.frombuffer(stream, "<f8", 8 * m, body + 4 * n + 20 * m).reshape(8, m)
        out.append((sigma, counts, integers, floats))
        at = begin + size + 4
    assert stream[at:at + 4] == b"END1"
    return header, out


class SimulateTest(unittest.TestCase):
    def test_same_seed_gives_the_same_bytes_and_another_chunk_others(self):
        a = run("--sample", 21, "--events", 50)
        self.assertEqual(a, run("--sample", 21, "--events", 50))
        self.assertNotEqual(a, run("--sample", 21, "--events", 50, "--chunk", 1))

    def test_block_size_does_not_change_the_events(self):
        join = lambda b: [np.concatenate([x[i] for x in b], axis=-1) for i in (1, 2, 3)]
        for one, two in zip(join(blocks(run("--sample", 23, "--events", 30, "--block", 7))[1]),
                            join(blocks(run("--sample", 23, "--events", 30, "--block", 30))[1])):
            np.testing.assert_array_equal(one, two)

    def test_momentum_is_conserved_and_cross_sections_are_the_known_ones(self):
        for sample, picobarn in ((21, 1.77), (23, 19.4)):
            header, out = blocks(run("--sample", sample, "--events", 3000, "--block", 3000))
            self.assertEqual(header["seed"], 100 * sample)
            sigma, counts, (_, status, _, _, _), (px, py, pz, e, *_) = out[0]
            self.assertAlmostEqual(sigma * 1e9 / picobarn, 1, delta=0.05)
            event = np.repeat(np.arange(len(counts)), counts)
            final = status > 0
            for component, total in ((px, 0), (py, 0), (pz, 0), (e, 380)):
                sums = np.bincount(event[final], component[final])
                np.testing.assert_allclose(sums, total, atol=0.02)

    def test_daughters_of_a_tau_conserve_its_momentum(self):
        _, out = blocks(run("--sample", 21, "--events", 300, "--block", 300))
        _, counts, (pid, _, mother, first, last), (px, py, pz, e, *_) = out[0]
        start = np.repeat(np.cumsum(counts) - counts, counts)
        taus = 0
        for i in np.flatnonzero((np.abs(pid) == 15) & (first >= 0)):
            children = slice(start[i] + first[i], start[i] + last[i] + 1)
            if 15 in np.abs(pid[children]):
                continue  # a shower copy: the recoil goes elsewhere
            self.assertAlmostEqual(e[children].sum(), e[i], delta=1e-3)
            self.assertAlmostEqual(pz[children].sum(), pz[i], delta=1e-3)
            taus += 1
        self.assertGreater(taus, 500)

    def test_decay_modes_have_the_known_fractions(self):
        _, out = blocks(run("--sample", 21, "--events", 6000, "--block", 6000))
        _, counts, (pid, _, _, first, last), _ = out[0]
        start = np.repeat(np.cumsum(counts) - counts, counts)
        modes, total = {}, 0
        for i in np.flatnonzero((np.abs(pid) == 15) & (first >= 0)):
            ids = np.abs(pid[start[i] + first[i]:start[i] + last[i] + 1])
            if 15 in ids:
                continue  # not the last copy
            charged, neutral = np.isin(ids, [211, 321]).sum(), np.isin(ids, [111, 130, 310, 311, 221, 223]).sum()
            known = charged + neutral + np.isin(ids, [12, 14, 16]).sum() == len(ids)
            mode = 16 if np.isin(ids, [11, 13]).any() else 5 * (charged - 1) + min(neutral, 4) if known and 1 <= charged <= 3 else 15
            modes[int(mode)], total = modes.get(int(mode), 0) + 1, total + 1
        self.assertGreater(total, 10000)
        for mode, fraction in {0: .114, 1: .268, 2: .102, 3: .012, 10: .098, 11: .047, 12: .006, 15: .003, 16: .349}.items():
            # three standard errors above the 0.005 that the reference leaves
            self.assertAlmostEqual(modes.get(mode, 0) / total, fraction, delta=0.005 + 3 * (fraction / total) ** 0.5)

    def test_a_z_pair_sample_keeps_one_visible_boson(self):
        _, out = blocks(run("--sample", 7, "--events", 100, "--block", 100))
        _, counts, (pid, _, mother, _, _), _ = out[0]
        self.assertTrue(15 <= len(counts) <= 60)

    def test_an_unknown_sample_is_refused_in_one_line(self):
        done = subprocess.run([sys.executable, SCRIPT, "--sample", "12"], capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertIn("sample 12 is unknown", done.stderr)


if __name__ == "__main__":
    unittest.main()
