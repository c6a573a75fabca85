#!/usr/bin/env python3
"""Converts public jet data into Tessera's native ragged HDF5 format.

  convert.py SOURCE DESTINATION --dataset jetclass     ROOT files of JetClass (Zenodo 6619768)
  convert.py SOURCE DESTINATION --dataset fu-tau-re    Parquet files of Fu-tau-re (Zenodo 12664633)

Columns are found by name, never by position. The source is read in pieces, so memory stays bounded. Momenta
and labels must be finite and in range, else the conversion stops with file, column and row. In Fu-tau-re the
fill value -1000 and non-finite numbers of track columns become NaN, "not measured", and are counted. The
result is written under a temporary name and renamed; an existing file is never overwritten.
"""

import argparse
import hashlib
import json
import os
import sys

EXIT_DATA, EXIT_MISSING, EXIT_IO = 65, 66, 74
CLASSES = ["QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl"]
ROW_CHUNK, CONSTITUENT_CHUNK = 16384, 65536
TYPE_NAMES = {"<i8": "i64", "<u8": "u64", "<i4": "i32", "<f4": "f32", "|i1": "i8", "|u1": "u8"}


class ConvertError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def check(good, code, message):
    if not good:
        raise ConvertError(code, message)


def finite(np, values, where, column, first_row=0):
    bad = np.flatnonzero(~np.isfinite(values))
    check(not len(bad), EXIT_DATA, f"{where}: column '{column}', entry {first_row + (bad[0] if len(bad) else 0)}: "
          f"expected a finite number, got {values[bad[0]] if len(bad) else 0}")


def to_f32(np, values, where, column, first_row=0):
    """Checked conversion to f32: finite before and after."""
    finite(np, values, where, column, first_row)
    with np.errstate(over="ignore"):
        out = np.asarray(values).astype("<f4")
    finite(np, out, where, column, first_row)
    return out


def to_integer(np, values, dtype, where, column, low, high):
    """Checked conversion of integers, booleans or whole floats."""
    values = np.asarray(values)
    numbers = values.astype("f8")
    bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers == np.round(numbers)) & (numbers >= low) & (numbers <= high)))
    check(not len(bad), EXIT_DATA, f"{where}: column '{column}', entry {bad[0] if len(bad) else 0}: expected a whole "
          f"number in [{low}, {high}], got {values[bad[0]] if len(bad) else 0}")
    return numbers.astype(dtype)


def track_column(np, values, report, column):
    """-1000 and non-finite entries are "not measured"."""
    out = np.asarray(values, "f8").astype("<f4")
    missing = ~np.isfinite(out) | (out == -1000)
    report["replaced"][column] = report["replaced"].get(column, 0) + int(missing.sum())
    out[missing] = np.nan
    return out


class NativeWriter:
    """Appends pieces of columns to a native file; the rules are those of train/native_writer.cpp."""

    def __init__(self, path):
        import h5py
        import numpy as np
        self.np, self.path, self.temporary = np, path, path + ".tmp"
        check(not os.path.exists(path), EXIT_IO, f"{path}: exists; it is not overwritten")
        self.file = h5py.File(self.temporary, "w", libver=("v110", "v110"))
        self.n = self.m = 0
        self._append("offsets", np.zeros(1, "<i8"))

    def _append(self, name, values):
        if name not in self.file:
            chunk = CONSTITUENT_CHUNK if name.startswith("pf/") else ROW_CHUNK
            self.file.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(chunk,), dtype=values.dtype,
                                     shuffle=True, compression="gzip", compression_opts=1, fletcher32=True,
                                     track_times=False)
        dataset = self.file[name]
        old = dataset.shape[0]
        dataset.resize((old + len(values),))
        if len(values):
            dataset[old:] = values

    def append(self, counts, columns):
        np = self.np
        self._append("offsets", self.m + np.cumsum(counts, dtype="<i8"))
        for name in sorted(columns):
            want = int(counts.sum()) if name.startswith("pf/") else len(counts)
            check(len(columns[name]) == want, EXIT_DATA, f"column '{name}': expected {want} entries, got {len(columns[name])}")
            self._append(name, columns[name])
        self.n, self.m = self.n + len(counts), self.m + int(counts.sum())

    def content_hash(self):
        import h5py
        import xxhash
        names = []
        self.file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        digest = xxhash.xxh3_128()
        for name in sorted(names):
            data = self.file[name]
            digest.update(f"{name} {TYPE_NAMES[data.dtype.str]} {data.shape[0]}\n".encode())
            digest.update(data[...].tobytes())
        return digest.hexdigest()

    def close(self, attributes, classes):
        np = self.np
        if classes and "label/class" in self.file:
            self.file["label/class"].attrs["classes"] = np.array(classes, "S")
        every = {"format": "tessera", "format_version": np.uint32(1), "kind": "jets", "frame": "lab", "n": np.int64(self.n),
                 "m": np.int64(self.m), "mantissa_bits": np.int64(23), "content_xxh3": self.content_hash(), **attributes}
        for name in sorted(every):
            value = every[name]
            self.file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        self.file.close()
        os.rename(self.temporary, self.path)

    def abandon(self):
        self.file.close()
        if os.path.exists(self.temporary):
            os.remove(self.temporary)


# ---- JetClass ----

JETCLASS_PARTICLES = {"pf/px": "part_px", "pf/py": "part_py", "pf/pz": "part_pz", "pf/energy": "part_energy",
                      "pf/d0": "part_d0val", "pf/d0err": "part_d0err", "pf/dz": "part_dzval", "pf/dzerr": "part_dzerr"}
JETCLASS_KINDS = ["ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon"]  # pid 1..5
JETCLASS_JETS = {**{f"jet/{k}": f"jet_{k}" for k in ("pt", "eta", "phi", "energy", "sdmass", "tau1", "tau2", "tau3", "tau4")},
                 **{f"truth/genpart_{k}": f"aux_genpart_{k}" for k in ("pt", "eta", "phi")}}
JETCLASS_INTEGERS = {"truth/genpart_pid": "aux_genpart_pid", "truth/gen_match": "aux_truth_match"}


def one_hot(np, arrays, names, where, allow_none):
    """Index of the one name that is set; -1 where none is and that is allowed. Values must be 0 or 1."""
    table = np.stack([to_integer(np, arrays[n], "i8", where, n, 0, 1) for n in names])
    total = table.sum(axis=0)
    bad = np.flatnonzero((total > 1) | ((total == 0) & (not allow_none)))
    check(not len(bad), EXIT_DATA, f"{where}: row {bad[0] if len(bad) else 0}: expected one of {names[0]} .. {names[-1]} to be 1, "
          f"got {int(total[bad[0]]) if len(bad) else 0}")
    return np.where(total == 1, table.argmax(axis=0), -1)


def convert_jetclass(source, writer, report, options):
    import awkward as ak
    import uproot
    np = writer.np
    with uproot.open(source) as root:
        check("tree" in root, EXIT_DATA, f"{source}: expected a TTree named 'tree', found {root.keys()[:5]}")
        tree = root["tree"]
        present = set(tree.keys())
        kinds = [f"part_is{k}" for k in JETCLASS_KINDS]
        labels = [f"label_{c}" for c in CLASSES]
        needed = [*JETCLASS_PARTICLES.values(), "part_charge", *kinds, *labels, "jet_pt", "jet_eta", "jet_phi", "jet_energy"]
        missing = [n for n in needed if n not in present]
        check(not missing, EXIT_DATA, f"{source}: tree 'tree' lacks the branches {missing}")
        optional = {k: v for k, v in {**JETCLASS_JETS, **JETCLASS_INTEGERS}.items() if v in present}
        for arrays in tree.iterate(sorted({*needed, *optional.values()}), step_size=options.rows):
            counts = ak.to_numpy(ak.num(arrays["part_px"])).astype("<i8")
            flat = {n: ak.to_numpy(ak.flatten(arrays[n])) for n in arrays.fields if n.startswith("part_")}
            rows = {n: ak.to_numpy(arrays[n]) for n in arrays.fields if not n.startswith("part_")}
            columns = {k: to_f32(np, flat[v], source, v) for k, v in JETCLASS_PARTICLES.items()}
            columns["pf/charge"] = to_integer(np, flat["part_charge"], "i1", source, "part_charge", -3, 3)
            columns["pf/pid"] = (one_hot(np, flat, kinds, source, True) + 1).astype("i1")
            columns["label/class"] = one_hot(np, rows, labels, source, False).astype("u1")
            for k, v in optional.items():
                if k in JETCLASS_INTEGERS:
                    columns[k] = to_integer(np, rows[v], "<i4", source, v, -2**31, 2**31 - 1)
                else:
                    columns[k] = to_f32(np, rows[v], source, v)
            columns["id"] = (options.id_base + writer.n + np.arange(len(counts))).astype("<u8")
            writer.append(counts, columns)
            report["in"] += len(counts)
    return {"order": "source", "licence": "CC-BY-4.0", "simulated": np.int64(1)}, CLASSES


# ---- Fu-tau-re ----

TAU_KINDS = {211: 1, 130: 2, 22: 3, 11: 4, 13: 5}
TAU_TRACKS = {"pf/d0": "reco_cand_dxy", "pf/dz": "reco_cand_dz", "pf/d0err": "reco_cand_dxy_err", "pf/dzerr": "reco_cand_dz_err"}


def four_vector(np, record, where, column):
    """(px, py, pz, energy, mass) of a record {x, y, z, tau | t}: tau is the mass, t the energy."""
    fields = set(record.fields)
    check({"x", "y", "z"} <= fields and fields & {"t", "tau"}, EXIT_DATA,
          f"{where}: column '{column}': expected fields x, y, z and t or tau, got {sorted(fields)}")
    get = lambda name: to_f32(np, np.asarray(record[name], "f8"), where, f"{column}.{name}").astype("f8")
    x, y, z = get("x"), get("y"), get("z")
    p2 = x * x + y * y + z * z
    if "tau" in fields:
        mass = get("tau")
        return x, y, z, np.sqrt(p2 + np.maximum(mass, 0) ** 2), mass
    energy = get("t")
    return x, y, z, energy, np.sqrt(np.maximum(energy ** 2 - p2, 0))


def convert_fu_tau_re(source, writer, report, options):
    import awkward as ak
    import pyarrow.parquet as pq
    np = writer.np
    parquet = pq.ParquetFile(source)
    present = set(parquet.schema_arrow.names)
    needed = ["reco_cand_p4s", "reco_cand_charge", "reco_cand_pdg", *TAU_TRACKS.values(), "reco_jet_p4s",
              "gen_jet_p4s", "gen_jet_tau_p4s", "gen_jet_tau_decaymode"]
    missing = [n for n in needed if n not in present]
    check(not missing, EXIT_DATA, f"{source}: lacks the columns {missing}")
    names = needed + (["weight"] if "weight" in present else [])
    for batch in parquet.iter_batches(batch_size=options.rows, columns=names):
        arrays = ak.from_arrow(batch)
        counts = ak.to_numpy(ak.num(arrays["reco_cand_charge"])).astype("<i8")
        for n in ("reco_cand_p4s", "reco_cand_pdg", *TAU_TRACKS.values()):
            same = ak.to_numpy(ak.num(arrays[n])) == counts
            check(same.all(), EXIT_DATA, f"{source}: column '{n}', row {report['in'] + int((~same).argmax())}: "
                  "its length differs from that of reco_cand_charge")
        flat = lambda n: ak.to_numpy(ak.drop_none(ak.flatten(arrays[n])))
        x, y, z, energy, mass = four_vector(np, ak.flatten(arrays["reco_cand_p4s"]), source, "reco_cand_p4s")
        columns = {"pf/px": x, "pf/py": y, "pf/pz": z, "pf/energy": energy, "pf/mass": mass}
        jx, jy, jz, je, _ = four_vector(np, arrays["reco_jet_p4s"], source, "reco_jet_p4s")
        jpt = np.hypot(jx, jy)
        with np.errstate(divide="ignore", invalid="ignore"):
            columns.update({"jet/pt": jpt, "jet/eta": np.arcsinh(jz / jpt), "jet/phi": np.arctan2(jy, jx), "jet/energy": je})
        for prefix, column in (("truth/gen_", "gen_jet_p4s"), ("truth/vis_", "gen_jet_tau_p4s")):
            for k, v in zip(("px", "py", "pz", "energy"), four_vector(np, arrays[column], source, column)):
                columns[prefix + k] = v
        columns = {k: to_f32(np, v, source, k) for k, v in columns.items()}
        columns["pf/charge"] = to_integer(np, flat("reco_cand_charge"), "i1", source, "reco_cand_charge", -3, 3)
        pdg = np.abs(to_integer(np, flat("reco_cand_pdg"), "i8", source, "reco_cand_pdg", -2**31, 2**31 - 1))
        columns["pf/pid"] = sum((np.where(pdg == k, v, 0) for k, v in TAU_KINDS.items()), np.zeros(len(pdg), "i8")).astype("i1")
        report["unknown pdg"] = report.get("unknown pdg", 0) + int((columns["pf/pid"] == 0).sum())
        for k, v in TAU_TRACKS.items():
            values = ak.to_numpy(ak.fill_none(ak.flatten(arrays[v]), np.nan))
            columns[k] = track_column(np, values, report, v)
        columns["label/tau_dm"] = to_integer(np, ak.to_numpy(arrays["gen_jet_tau_decaymode"]), "i1", source,
                                             "gen_jet_tau_decaymode", -1, 16)
        if "weight" in names:
            columns["weight"] = to_f32(np, ak.to_numpy(arrays["weight"]), source, "weight")
        columns["id"] = (options.id_base + writer.n + np.arange(len(counts))).astype("<u8")
        writer.append(counts, columns)
        report["in"] += len(counts)
    return {"order": "source", "licence": "CC-BY-4.0", "simulated": np.int64(1)}, None


CONVERTERS = {"jetclass": convert_jetclass, "fu-tau-re": convert_fu_tau_re}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def convert(options):
    """Converts one file; returns the report that main() prints."""
    check(os.path.exists(options.source), EXIT_MISSING, f"{options.source}: no such file")
    writer = NativeWriter(options.destination)
    report = {"in": 0, "dropped": {}, "replaced": {}}
    try:
        attributes, classes = CONVERTERS[options.dataset](options.source, writer, report, options)
        name = os.path.basename(options.source)
        attributes.update({"source": f"{options.dataset}; {name}; sha256 {sha256(options.source)}",
                           "command": f"convert.py {name} {os.path.basename(options.destination)} --dataset {options.dataset}",
                           "tool_version": "0.1.0"})
        report.update({"out": writer.n, "constituents": writer.m})
        writer.close(attributes, classes)
    except ConvertError:
        writer.abandon()
        raise
    except Exception as error:  # a damaged file shows up as any of the libraries' own errors
        writer.abandon()
        raise ConvertError(EXIT_DATA, f"{options.source}: cannot be read as {options.dataset}: {error}") from error
    return report


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument("--dataset", required=True, choices=sorted(CONVERTERS))
    parser.add_argument("--rows", type=int, default=20000, help="jets in memory at once")
    parser.add_argument("--id-base", type=int, default=0, help="first jet id; give each file of a dataset its own range")
    return parser.parse_args(arguments)


def main():
    try:
        print(json.dumps(convert(parse()), sort_keys=True))
    except ConvertError as error:
        print(f"convert.py: {error}", file=sys.stderr)
        return error.code
    except ImportError as error:
        print(f"convert.py: {error}; install with: pip install -r apps/python/requirements.txt", file=sys.stderr)
        return EXIT_MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main())
