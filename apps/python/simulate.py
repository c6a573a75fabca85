#!/usr/bin/env python3
"""Generates collisions with Pythia and writes the pruned event records as a binary stream.

The stream (little-endian; read by train/simulation/particles.cpp) is
  header   b"TSRPART1", u32 version = 1, u32 length, JSON text of that length
  block    b"BLK1", u32 events, u32 particles, u64 events tried so far, f64 sigma_mb, f64 sigma_error_mb,
           u64 number[events], u32 count[events],
           i32 pid[particles], i32 status, i32 mother, i32 daughter1, i32 daughter2,
           f64 px, py, pz, e, m [GeV], vx, vy, vz [mm],
           u32 CRC-32 of the block after its magic
  end      b"END1"
A block b"BLK2" holds f64 weight[events] behind count[events]; readers of event files write it, this program does not.
Kept are final-state particles, every copy of t, tau, Z, W, H, their direct daughters, and the copies of
electrons and muons among those. Links are indices into the event after pruning, -1 = none; daughters run
from daughter1 to daughter2, or are exactly those two when daughter2 < daughter1 (Pythia's convention).
"""

import json
import os
import struct
import sys
import zlib

from program import EXIT_MISSING, EXIT_USAGE, Parser, ProgramError, exit_code_of, whole

COMMON = ["Print:quiet=on", "Next:numberCount=0", "Random:setSeed=on"]
PP = ["Beams:eCM=13000", "PhaseSpace:pTHatMin=450"]
EE = ["Beams:idA=11", "Beams:idB=-11", "Beams:eCM=380", "PartonLevel:ISR=on", "PartonLevel:FSR=on",
      "TauDecays:mode=3"]
Z_TO_NU = ["23:onMode=off", "23:onIfAny=12 14 16"]
W_TO_QQ = ["24:onMode=off", "24:onIfAny=1 2 3 4 5"]
HZ = ["HiggsSM:ffbar2HZ=on", *Z_TO_NU, "25:m0=125", "25:onMode=off"]
TOPS = ["Top:gg2ttbar=on", "Top:qqbar2ttbar=on"]
GM_Z = ["WeakSingleBoson:ffbar2gmZ=on", "23:onMode=off"]


def one_lepton(chunk):
    """One W to quarks, the other to e or mu; which sign does which alternates with the chunk."""
    quarks, leptons = ("Pos", "Neg") if chunk % 2 == 0 else ("Neg", "Pos")
    return ["24:onMode=off", f"24:on{quarks}IfAny=1 2 3 4 5", f"24:on{leptons}IfAny=11 13"]


def process(sample, chunk):
    """Pythia strings of a sample (1..10 the JetClass-like classes, 11 dijets, 21..23 e+e-)."""
    table = {
        1: PP + ["WeakBosonAndParton:qqbar2gmZg=on", "WeakBosonAndParton:qg2gmZq=on", "WeakZ0:gmZmode=2",
                 *Z_TO_NU],
        2: PP + HZ + ["25:onIfMatch=5 -5"],
        3: PP + HZ + ["25:onIfMatch=4 -4"],
        4: PP + HZ + ["25:onIfMatch=21 21"],
        5: PP + HZ + ["25:onIfMatch=24 -24", *W_TO_QQ],
        6: PP + HZ + ["25:onIfMatch=24 -24", *one_lepton(chunk)],
        # gmZmode=2: without it one boson may be a light virtual photon, which no Z label should cover
        7: PP + ["WeakDoubleBoson:ffbar2gmZgmZ=on", "WeakZ0:gmZmode=2", "23:onMode=off",
                 "23:onIfAny=1 2 3 4 5 12 14 16"],
        8: PP + ["WeakDoubleBoson:ffbar2ZW=on", *Z_TO_NU, *W_TO_QQ],
        9: PP + TOPS + W_TO_QQ,
        10: PP + TOPS + one_lepton(chunk),
        11: PP + ["HardQCD:all=on"],
        21: EE + GM_Z + ["23:onIfAny=15", "TauDecays:tauPolarization=-0.15"],
        22: EE + ["HiggsSM:ffbar2HZ=on", "25:m0=125", "25:onMode=off", "25:onIfAny=15",
                  "TauDecays:tauPolarization=0"],
        23: EE + GM_Z + ["23:onIfAny=1 2 3 4 5"],
    }
    if sample not in table:
        raise ProgramError(EXIT_USAGE, f"sample {sample} is unknown; choose one of {sorted(table)}")
    return table[sample]


def daughter_indices(np, owners, d1, d2):
    """Indices of all direct daughters of the particles `owners`."""
    first, last = d1[owners], d2[owners]
    pair = (first > 0) & (last > 0) & (last < first)
    length = np.where(first > 0, np.where(last >= first, last - first + 1, 1), 0)
    starts = np.repeat(first, length)
    steps = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    return np.concatenate([starts + steps, last[pair]]).astype(np.int64)


def prune(np, flat, base):
    """Boolean mask of the particles to keep; `flat` has global daughter indices, `base` event starts."""
    pid, final = np.abs(flat["id"]), flat["status"] > 0
    keep = final | np.isin(pid, [6, 15, 23, 24, 25])
    frontier = np.flatnonzero(np.isin(pid, [6, 15, 23, 24, 25]))
    owners = keep & ~final
    while len(frontier):
        daughters = daughter_indices(np, frontier, flat["daughter1"], flat["daughter2"])
        leptons = daughters[np.isin(pid[daughters], [11, 13]) & ~final[daughters] & ~owners[daughters]]
        keep[daughters] = True
        owners[leptons] = True
        frontier = np.unique(leptons)
    return keep, owners


def one_hadronic_one_invisible(np, flat, event_of, events):
    """Sample 7: which events have one Z to quarks and one to neutrinos."""
    z = np.flatnonzero(flat["id"] == 23)
    first = np.abs(flat["id"][flat["daughter1"][z]])
    quarks = np.bincount(event_of[z[first <= 5]], minlength=events) > 0
    neutrinos = np.bincount(event_of[z[np.isin(first, [12, 14, 16])]], minlength=events) > 0
    return quarks & neutrinos


def flatten(np, ak, batch):
    """All events of a batch as flat numpy columns with links counted from the start of the batch."""
    counts = ak.to_numpy(ak.num(batch.prt.id)).astype(np.int64)
    base = np.concatenate([[0], np.cumsum(counts)])
    event_of = np.repeat(np.arange(len(counts)), counts)
    get = lambda x: ak.to_numpy(ak.flatten(x))
    flat = {k: get(batch.prt[k]) for k in ("id", "status", "m")}
    for k in ("mother1", "daughter1", "daughter2"):
        link = get(batch.prt[k]).astype(np.int64)
        flat[k] = np.where(link > 0, link + base[event_of], 0)
    p = batch.prt.p
    flat.update({k: get(p[k]) for k in ("px", "py", "pz", "e")})
    v = batch.prt.vProd
    flat.update({"v" + k[1]: ak.to_numpy(ak.fill_none(ak.flatten(v[k]), 0.0)) for k in ("px", "py", "pz")})
    return flat, counts, base, event_of


def block_bytes(np, ak, batch, sample, first_number, tried, sigma):
    """One block of the stream."""
    flat, counts, base, event_of = flatten(np, ak, batch)
    keep, owners = prune(np, flat, base)
    chosen = np.ones(len(counts), bool)
    if sample == 7:
        chosen = one_hadronic_one_invisible(np, flat, event_of, len(counts))
        keep &= chosen[event_of]
    kept_counts = np.bincount(event_of[keep], minlength=len(counts))[chosen]
    kept_base = np.concatenate([[0], np.cumsum(np.bincount(event_of[keep], minlength=len(counts)))])
    position = np.cumsum(keep) - 1

    def link(column, usable):
        target = flat[column][keep]
        good = (target > 0) & keep[target] & usable
        return np.where(good, position[target] - kept_base[event_of[keep]], -1).astype("<i4")

    everyone = np.ones(int(keep.sum()), bool)
    parts = [struct.pack("<IIQdd", len(kept_counts), int(keep.sum()), tried, *sigma),
             (first_number + np.flatnonzero(chosen)).astype("<u8").tobytes(),
             kept_counts.astype("<u4").tobytes(),
             flat["id"][keep].astype("<i4").tobytes(), flat["status"][keep].astype("<i4").tobytes(),
             link("mother1", everyone).tobytes(), link("daughter1", owners[keep]).tobytes(),
             link("daughter2", owners[keep]).tobytes()]
    parts += [flat[k][keep].astype("<f8").tobytes() for k in ("px", "py", "pz", "e", "m", "vx", "vy", "vz")]
    body = b"".join(parts)
    return b"BLK1" + body + struct.pack("<I", zlib.crc32(body))


def generate(options, out):
    import awkward as ak
    import numpy as np
    import pythia8mc

    strings = COMMON + [f"Random:seed={100 * options.sample + options.chunk}"]
    strings += process(options.sample, options.chunk) + options.setting
    pythia = pythia8mc.Pythia("", False)
    for text in strings:
        if not pythia.readString(text):
            raise ProgramError(EXIT_USAGE, f"Pythia refuses the setting '{text}'")
    if not pythia.init():
        raise ProgramError(EXIT_USAGE, "Pythia does not start with these settings: " + "; ".join(strings))
    header = json.dumps({"generator": "Pythia", "version": str(pythia.parm("Pythia:versionNumber")),
                         "sample": options.sample, "chunk": options.chunk,
                         "seed": 100 * options.sample + options.chunk, "settings": strings}).encode()
    out.write(b"TSRPART1" + struct.pack("<II", 1, len(header)) + header)
    tried = 0
    while tried < options.events:
        count = min(options.block, options.events - tried)
        batch = pythia.nextBatch(count)
        info = pythia.infoPython()
        first, tried = tried, tried + count
        out.write(block_bytes(np, ak, batch, options.sample, first, tried, (info.sigmaGen(), info.sigmaErr())))
        out.flush()
    out.write(b"END1")
    out.flush()


def main():
    parser = Parser(__doc__)
    parser.add_argument("--sample", type=whole(1, 99), required=True, help="1..11 pp, 21..23 e+e-")
    parser.add_argument("--chunk", type=whole(0, 99), default=0, help="0-79 train, 80-89 validation, 90-99 test")
    parser.add_argument("--events", type=whole(1, 10**12), default=10**9, help="events to try; the reader may stop earlier")
    parser.add_argument("--block", type=whole(1, 10**6), default=200, help="events in a block")
    parser.add_argument("--setting", action="append", default=[], help="a further Pythia string")
    parser.add_argument("--out", default="-", help="file, or - for standard output")
    options = parser.parse_args()
    try:
        import pythia8mc  # noqa: F401
    except ImportError:
        raise ProgramError(EXIT_MISSING, "the generator is missing; install it with: "
                           "pip install --only-binary :all: pythia8mc==8.317.2 awkward numpy")
    out = sys.stdout.buffer if options.out == "-" else open(options.out, "wb")
    try:
        generate(options, out)
        out.close()
    except BrokenPipeError:
        # the reader has enough jets; the descriptor moves elsewhere so that the exit flush is quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(exit_code_of("simulate.py", main))
