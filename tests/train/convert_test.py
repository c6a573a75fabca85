"""apps/python/convert.py on look-alikes of the public layouts. Exit status 77 = libraries are missing."""

import hashlib
import os
import subprocess
import sys
import tempfile
import unittest

try:
    import awkward as ak
    import h5py
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import uproot
    import xxhash  # noqa: F401
except ImportError as error:
    print(f"SKIPPED: {error} (pip install -r apps/python/requirements.txt)")
    sys.exit(77)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIXTURES = os.path.join(ROOT, "tests", "fixtures")
sys.path[:0] = [os.path.join(ROOT, "apps", "python"), os.path.join(ROOT, "tests", "support")]
import convert  # noqa: E402
from full_disk import FullDisk  # noqa: E402


class ConvertTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def run_on(self, source, dataset, out="out.h5", rows=20000, *more):
        report = convert.convert(convert.parse([source, self.path(out), "--dataset", dataset, "--rows", str(rows), *more]))
        return report, h5py.File(self.path(out))

    def fails(self, source, dataset, *words, more=()):
        with self.assertRaises(convert.ConvertError) as caught:
            self.run_on(source, dataset, "bad.h5", 7, *more)  # in pieces, so that rows are counted over the file
        for word in (os.path.basename(source), *words):
            self.assertIn(word, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception).strip())
        self.assertEqual(caught.exception.code, convert.EXIT_DATA)
        self.assertEqual([name for name in os.listdir(self.folder.name) if name.startswith("bad.h5")], [])

    def test_jetclass_values_are_those_of_the_writer_library(self):
        source = os.path.join(FIXTURES, "jetclass.root")
        _, file = self.run_on(source, "jetclass")
        tree = uproot.open(source)["tree"].arrays()
        np.testing.assert_array_equal(np.diff(file["offsets"]), ak.num(tree["part_px"]))
        for native, branch in convert.JETCLASS_PARTICLES.items():
            np.testing.assert_array_equal(file[native], ak.flatten(tree[branch]))
        np.testing.assert_array_equal(file["jet/sdmass"], tree["jet_sdmass"])
        for i, name in enumerate(convert.CLASSES):
            np.testing.assert_array_equal(np.asarray(file["label/class"]) == i, np.asarray(tree[f"label_{name}"]) == 1)

    def test_same_input_gives_same_bytes_for_any_piece_size(self):
        for name, dataset in (("jetclass.root", "jetclass"), ("fu_tau_re.parquet", "fu-tau-re")):
            with open(os.path.join(FIXTURES, os.path.splitext(name)[0] + ".h5"), "rb") as file:
                committed = h5py.File(file).attrs["content_xxh3"]
            for rows in (7, 20000):
                _, file = self.run_on(os.path.join(FIXTURES, name), dataset, f"{dataset}{rows}.h5", rows)
                self.assertEqual(file.attrs["content_xxh3"], committed)

    def test_fill_values_of_tracks_become_nan_and_are_counted(self):
        report, file = self.run_on(os.path.join(FIXTURES, "fu_tau_re.parquet"), "fu-tau-re")
        d0, charge = np.asarray(file["pf/d0"]), np.asarray(file["pf/charge"])
        self.assertEqual(np.isnan(d0).sum(), report["replaced"]["reco_cand_dxy"])
        self.assertTrue(np.isnan(d0[charge == 0]).all())
        self.assertTrue(np.isnan(d0[0]))  # a NaN in the source
        self.assertFalse((d0 == -1000).any())

    def test_columns_are_found_by_name_and_t_is_the_energy(self):
        _, mass = self.run_on(os.path.join(FIXTURES, "fu_tau_re.parquet"), "fu-tau-re", "tau.h5")
        _, energy = self.run_on(os.path.join(FIXTURES, "fu_tau_re_t.parquet"), "fu-tau-re", "t.h5")
        self.assertEqual(set(mass), set(energy))
        for column in ("pf/px", "pf/pid", "pf/dz", "label/tau_dm", "truth/vis_px", "jet/pt"):
            np.testing.assert_array_equal(mass[column], energy[column])
        np.testing.assert_allclose(mass["pf/energy"], energy["pf/energy"], rtol=2e-4)

    def write_tree(self, change, tree="tree", compression=None):
        """The committed look-alike with changed branches, written anew by uproot."""
        arrays = uproot.open(os.path.join(FIXTURES, "jetclass.root"))["tree"].arrays()
        columns = {n: arrays[n] for n in arrays.fields if not n.startswith("npart_") and n != "n"}
        columns = change(columns) or columns
        with uproot.recreate(self.path("x.root"), compression=compression) as file:
            file.mktree(tree, {k: v.type.content if hasattr(v, "type") else v.dtype for k, v in columns.items()})
            file[tree].extend(columns)
        return self.path("x.root")

    def with_value(self, branch, row, constituent, value, dtype="f8"):
        """The look-alike with one value of a branch replaced."""
        def change(columns):
            values = columns[branch].to_list()
            if constituent is None:
                values[row] = value
                columns[branch] = np.array(values, dtype)
            else:
                values[row][constituent] = value
                columns[branch] = ak.values_astype(ak.Array(values), dtype)
        return self.write_tree(change)

    def with_lengths(self, lengths):
        """A tree of jets of these lengths."""
        total, starts = sum(lengths), range(len(lengths))

        def change(columns):
            out = {}
            for n, v in columns.items():
                if n.startswith("part_"):
                    flat = np.resize(ak.to_numpy(ak.flatten(v)), total)
                    out[n] = ak.unflatten(flat, np.array(lengths, "i8"))
                else:
                    out[n] = np.array([v[0] for _ in starts], ak.to_numpy(v).dtype)
            return out
        return self.write_tree(change)

    def test_a_label_that_is_no_truth_value_is_refused_by_name(self):
        def half(columns):
            columns["label_QCD"] = np.full(len(columns["label_QCD"]), 0.5, "f4")
        self.fails(self.write_tree(half), "jetclass", "x.root", "label_QCD", "0.5")

    def test_a_jet_without_class_is_refused(self):
        def none(columns):
            for c in convert.CLASSES:
                columns[f"label_{c}"] = np.zeros(40, "i4")
        self.fails(self.write_tree(none), "jetclass", "row 0", "label_QCD")

    def test_every_missing_branch_is_named(self):
        for branch in ("part_energy", "part_isMuon", "part_charge", "part_dzerr", "label_Tbl", "jet_phi"):
            self.fails(self.write_tree(lambda c, b=branch: {k: v for k, v in c.items() if k != b}), "jetclass", branch)
        self.fails(self.write_tree(lambda c: None, "events"), "jetclass", "'tree'", "events")

    def test_a_non_finite_momentum_of_jetclass_is_refused_with_its_jet(self):
        for i, bad in enumerate((float("nan"), float("inf"), -float("inf"), 1e39)):
            for branch in ("part_px", "part_py", "part_pz", "part_energy"):
                self.fails(self.with_value(branch, 30 + i, 2, bad), "jetclass", f"'{branch}'", f"row {30 + i}, constituent 2",
                           "expected", "got")
            for branch in ("jet_pt", "jet_phi", "jet_energy"):
                self.fails(self.with_value(branch, 25, None, bad), "jetclass", f"'{branch}'", "row 25")
        self.fails(self.with_value("part_energy", 9, 0, -1.0), "jetclass", "'part_energy'", "row 9, constituent 0", "at least 0")

    def test_labels_and_particle_kinds_that_are_no_flags_are_refused(self):
        for bad in (-1.0, 2.0, 0.5, float("nan")):
            self.fails(self.with_value("label_Hcc", 8, None, bad), "jetclass", "'label_Hcc'", "row 8", "expected")
        self.fails(self.write_tree(lambda c: {**c, "label_Tbl": np.ones(40, "i4"), "label_QCD": np.ones(40, "f4")}),
                   "jetclass", "label_QCD .. label_Tbl", "row 0", "got")
        self.fails(self.with_value("part_isMuon", 3, 1, 2, "i4"), "jetclass", "'part_isMuon'", "row 3, constituent 1")
        self.fails(self.with_value("part_charge", 3, 1, 0.5), "jetclass", "'part_charge'", "row 3, constituent 1", "0.5")

    def test_branches_of_different_length_are_refused_even_when_their_sums_agree(self):
        def shift(columns):
            values = columns["part_isPhoton"].to_list()
            values[4].append(values[5].pop())
            columns["part_isPhoton"] = ak.values_astype(ak.Array(values), "i4")
        self.fails(self.write_tree(shift), "jetclass", "'part_isPhoton'", "row 4", "expected", "got")

    def test_wider_types_another_order_and_more_branches_change_nothing(self):
        def wide(columns):
            out = {"an_extra_branch": np.arange(40), "jet_nparticles": np.full(40, 200.0)}  # may exceed what is kept
            for n in reversed(list(columns)):
                kind = "i8" if n.startswith(("label_", "part_is")) else "f8"
                out[n] = out[n] if n in out else ak.values_astype(columns[n], kind) if n.startswith("part_") \
                    else ak.to_numpy(columns[n]).astype(kind)
            return out
        _, file = self.run_on(self.write_tree(wide), "jetclass")
        with h5py.File(os.path.join(FIXTURES, "jetclass.h5")) as want:
            self.assert_same(file, want, skip=("id",))

    def test_every_compression_of_root_gives_the_same_columns(self):
        for i, compression in enumerate((None, uproot.ZLIB(1), uproot.LZMA(1), uproot.LZ4(4), uproot.ZSTD(1))):
            _, file = self.run_on(self.write_tree(lambda c: None, "tree", compression), "jetclass", f"{i}.h5")
            with h5py.File(os.path.join(FIXTURES, "jetclass.h5")) as want:
                self.assert_same(file, want, skip=("id",))

    def assert_same(self, file, want, skip=()):
        names = []
        want.visititems(lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) and n not in skip else None)
        self.assertGreater(len(names), 10)
        for n in names:
            np.testing.assert_array_equal(file[n], want[n], n)
            self.assertEqual(file[n].dtype, want[n].dtype, n)

    def test_jets_of_no_one_and_many_constituents(self):
        for lengths in ([0, 1, 128, 129, 200, 0, 1], [0, 0, 0], [70000], []):
            _, file = self.run_on(self.with_lengths(lengths), "jetclass", f"{len(lengths)}_{sum(lengths)}.h5", 3)
            np.testing.assert_array_equal(np.diff(file["offsets"]), lengths)
            self.assertEqual(len(file["pf/px"]), sum(lengths))
            self.assertEqual(len(file["label/class"]), len(lengths))

    def test_unmeasured_tracks_of_jetclass_become_nan_are_counted_and_touch_no_other_value(self):
        for branch, native in (("part_d0val", "pf/d0"), ("part_dzerr", "pf/dzerr")):
            for bad in (float("nan"), float("inf"), -float("inf")):
                report, file = self.run_on(self.with_value(branch, 6, 0, bad), "jetclass", f"{branch}{bad}.h5")
                self.assertEqual(report["replaced"][branch], 1)
                at = int(file["offsets"][6])
                self.assertTrue(np.isnan(file[native][at]))
                with h5py.File(os.path.join(FIXTURES, "jetclass.h5")) as want:
                    np.testing.assert_array_equal(np.delete(file[native], at), np.delete(want[native], at))
                    self.assert_same(file, want, skip=("id", native))

    def test_files_that_are_no_root_or_parquet_file_are_refused(self):
        for content in (b"", b"root", b"not a data file at all" * 100, b"\0" * 5000):
            for name, dataset in (("x.root", "jetclass"), ("x.parquet", "fu-tau-re")):
                with open(self.path(name), "wb") as file:
                    file.write(content)
                self.fails(self.path(name), dataset, "cannot be read as")

    def rewrite(self, column, change, kind=None, **options):
        """The committed look-alike with one changed column, written anew by pyarrow."""
        table = pq.read_table(os.path.join(FIXTURES, "fu_tau_re.parquet"))
        values = table[column].to_pylist()
        values = change(values) or values
        i = table.schema.get_field_index(column)
        pq.write_table(table.set_column(i, column, pa.array(values, kind or table.schema.field(i).type)), self.path("x.parquet"),
                       **options)
        return self.path("x.parquet")

    def fails_with(self, column, row, constituent, value, *words, field=None, kind=None):
        """One value replaced; the message must name column and row."""
        def change(rows):
            if constituent is None and field is None:
                rows[row] = value
            elif field is None:
                rows[row][constituent] = value
            else:
                (rows[row] if constituent is None else rows[row][constituent])[field] = value
        where = f"row {row}" if constituent is None else f"row {row}, constituent {constituent}"
        self.fails(self.rewrite(column, change, kind), "fu-tau-re", column + (f".{field}" if field else ""), where, *words)

    def test_a_non_finite_momentum_is_refused(self):
        for bad in (float("nan"), float("inf"), -float("inf")):
            for field in ("x", "y", "z", "tau"):
                self.fails_with("reco_cand_p4s", 33, 1, bad, "expected a finite number", field=field)
                for column in ("reco_jet_p4s", "gen_jet_p4s", "gen_jet_tau_p4s"):
                    self.fails_with(column, 111, None, bad, "expected a finite number", field=field)

    def test_a_negative_energy_and_a_jet_without_transverse_momentum_are_refused(self):
        table = pq.read_table(os.path.join(FIXTURES, "fu_tau_re_t.parquet"))
        rows = table["reco_cand_p4s"].to_pylist()
        rows[12][0]["t"] = -1.0
        i = table.schema.get_field_index("reco_cand_p4s")
        pq.write_table(table.set_column(i, "reco_cand_p4s", pa.array(rows, table.schema.field(i).type)), self.path("x.parquet"))
        self.fails(self.path("x.parquet"), "fu-tau-re", "reco_cand_p4s.t", "row 12, constituent 0", "at least 0")

        def still(rows):
            rows[7] = {"x": 0.0, "y": 0.0, "z": 1.0, "tau": 0.0}
        self.fails(self.rewrite("reco_jet_p4s", still), "fu-tau-re", "reco_jet_p4s", "row 7", "above 0")

    def test_decay_modes_charges_and_codes_out_of_range_are_refused(self):
        for mode in (17, -2, 127, 10**12):
            self.fails_with("gen_jet_tau_decaymode", 55, None, mode, "expected a whole number in [-1, 16]", str(mode))
        for mode in (0.5, float("nan")):
            self.fails_with("gen_jet_tau_decaymode", 55, None, mode, "expected a whole number", kind=pa.float64())
        for charge in (0.5, 4.0, float("nan")):
            self.fails_with("reco_cand_charge", 55, 0, charge, "expected a whole number in [-3, 3]")

    def test_null_is_refused_where_it_has_no_meaning(self):
        self.fails_with("gen_jet_tau_decaymode", 20, None, None, "expected a number, got null")
        self.fails_with("reco_cand_charge", 20, 0, None, "expected a number, got null", kind=pa.list_(pa.float32()))
        self.fails_with("reco_cand_pdg", 20, 0, None, "expected a number, got null", kind=pa.list_(pa.int32()))
        vector = pa.struct([(n, pa.float32()) for n in ("x", "y", "z", "tau")])
        self.fails_with("reco_cand_p4s", 20, 0, None, "expected a number, got null", field="x", kind=pa.list_(vector))
        self.fails_with("reco_jet_p4s", 20, None, None, "expected a number, got null", field="y", kind=vector)
        none = lambda rows: rows.__setitem__(20, None)
        for column, element in (("reco_cand_charge", pa.float32()), ("reco_cand_pdg", pa.int32()), ("reco_cand_p4s", vector),
                                ("reco_cand_dz", pa.float32())):
            self.fails(self.rewrite(column, none, pa.list_(element)), "fu-tau-re", column, "row 20", "expected")
        for column in ("reco_jet_p4s", "gen_jet_tau_p4s"):
            self.fails(self.rewrite(column, none, vector), "fu-tau-re", column, "row 20", "got null")

    def test_every_way_of_not_measured_becomes_nan_is_counted_and_touches_no_other_value(self):
        with h5py.File(os.path.join(FIXTURES, "fu_tau_re.h5")) as file:
            want = {n: np.asarray(file[n]) for n in ("pf/d0", "pf/px", "offsets")}
        row = next(i for i in range(120) if np.isfinite(want["pf/d0"][int(want["offsets"][i])]))
        at, before = int(want["offsets"][row]), int(np.isnan(want["pf/d0"]).sum())
        for bad in (float("nan"), float("inf"), -float("inf"), -1000.0, 1e39, None):
            def change(rows, bad=bad):
                rows[row][0] = bad
            report, file = self.run_on(self.rewrite("reco_cand_dxy", change, pa.list_(pa.float64())), "fu-tau-re", f"{bad}.h5")
            self.assertEqual(report["replaced"]["reco_cand_dxy"], before + 1)
            self.assertTrue(np.isnan(file["pf/d0"][at]))
            np.testing.assert_array_equal(np.delete(file["pf/d0"], at), np.delete(want["pf/d0"], at))
            np.testing.assert_array_equal(file["pf/px"], want["pf/px"])

    def test_lists_of_different_length_are_refused_even_when_their_sums_agree(self):
        def shift(rows):
            rows[4].append(rows[5].pop())
        for column in ("reco_cand_pdg", "reco_cand_dz", "reco_cand_dxy_err", "reco_cand_p4s"):
            self.fails(self.rewrite(column, shift), "fu-tau-re", f"'{column}'", "row 4", "constituents, got")
        self.fails(self.rewrite("reco_cand_charge", shift), "fu-tau-re", "row 4", "constituents, got")

    def test_every_missing_column_and_field_is_named(self):
        table = pq.read_table(os.path.join(FIXTURES, "fu_tau_re.parquet"))
        for column in table.schema.names:
            pq.write_table(table.drop_columns([column]), self.path("x.parquet"))
            self.fails(self.path("x.parquet"), "fu-tau-re", column)
        for field in ("x", "y", "z", "tau"):
            rows = [{k: v for k, v in row.items() if k != field} for row in table["reco_jet_p4s"].to_pylist()]
            self.fails(self.rewrite("reco_jet_p4s", lambda _, rows=rows: rows, pa.array(rows).type), "fu-tau-re", "reco_jet_p4s",
                       "expected fields x, y, z and t or tau")

    def test_columns_of_another_kind_are_refused(self):
        for column, values in (("reco_cand_pdg", [1] * 120), ("reco_cand_charge", [0.0] * 120),
                               ("gen_jet_tau_decaymode", ["one"] * 120), ("reco_cand_dz", [["a"]] * 120)):
            self.fails(self.rewrite(column, lambda _, v=values: v, pa.array(values).type), "fu-tau-re", column, "expected")

    def test_wider_types_and_other_encodings_change_nothing(self):
        table = pq.read_table(os.path.join(FIXTURES, "fu_tau_re.parquet"))
        wide = {"reco_cand_charge": pa.list_(pa.int64()), "reco_cand_pdg": pa.large_list(pa.float64()),
                "gen_jet_tau_decaymode": pa.float32(), "reco_cand_dz": pa.list_(pa.float64())}
        for column, kind in wide.items():
            i = table.schema.get_field_index(column)
            table = table.set_column(i, column, pa.array(table[column].to_pylist(), kind))
        for k, options in enumerate(({"compression": "zstd", "row_group_size": 1}, {"compression": "none", "use_dictionary": False},
                                     {"data_page_version": "2.0", "write_page_checksum": True})):
            pq.write_table(table, self.path("x.parquet"), **options)
            _, file = self.run_on(self.path("x.parquet"), "fu-tau-re", f"{k}.h5")
            with h5py.File(os.path.join(FIXTURES, "fu_tau_re.h5")) as want:
                self.assert_same(file, want, skip=("id",))

    def test_tau_jets_of_no_one_and_many_constituents(self):
        table = pq.read_table(os.path.join(FIXTURES, "fu_tau_re.parquet"))
        for lengths in ([0, 1, 16, 17, 129, 200, 0], [0, 0], [70000], []):
            arrays = {}
            for column in table.schema.names:
                values = table[column].to_pylist()
                if isinstance(values[0], list):
                    flat = [x for row in values for x in row]
                    arrays[column] = pa.array([[flat[i % len(flat)] for i in range(n)] for n in lengths], table.schema.field(column).type)
                else:
                    arrays[column] = pa.array(values[:len(lengths)], table.schema.field(column).type)
            pq.write_table(pa.table(arrays), self.path("x.parquet"))
            _, file = self.run_on(self.path("x.parquet"), "fu-tau-re", f"{len(lengths)}_{sum(lengths)}.h5", 3)
            np.testing.assert_array_equal(np.diff(file["offsets"]), lengths)
            self.assertEqual(len(file["pf/dzerr"]), sum(lengths))
            self.assertEqual(len(file["truth/vis_px"]), len(lengths))

    def test_every_truncation_is_refused(self):
        for name, dataset in (("jetclass.root", "jetclass"), ("fu_tau_re.parquet", "fu-tau-re")):
            with open(os.path.join(FIXTURES, name), "rb") as file:
                whole = file.read()
            for keep in range(0, len(whole), 4096):
                with open(self.path(name), "wb") as file:
                    file.write(whole[:keep])
                self.fails(self.path(name), dataset)

    def test_every_flipped_bit_is_refused_where_the_published_checksum_is_given(self):
        rng = np.random.default_rng(5)
        for name, dataset in (("jetclass.root", "jetclass"), ("fu_tau_re.parquet", "fu-tau-re")):
            with open(os.path.join(FIXTURES, name), "rb") as file:
                whole = bytearray(file.read())
            for algorithm in ("md5", "sha256"):
                given = ("--checksum", f"{algorithm}:{hashlib.new(algorithm, whole).hexdigest()}")
                self.run_on(os.path.join(FIXTURES, name), dataset, f"{algorithm}{dataset}.h5", 20000, *given)
                for bit in rng.integers(0, 8 * len(whole), 200):
                    flipped = bytearray(whole)
                    flipped[bit // 8] ^= 1 << (bit % 8)
                    with open(self.path(name), "wb") as file:
                        file.write(flipped)
                    self.fails(self.path(name), dataset, "damaged", more=given)

    def test_page_checksums_are_checked_where_the_file_has_them(self):
        table = pq.read_table(os.path.join(FIXTURES, "fu_tau_re.parquet"))
        pq.write_table(table, self.path("x.parquet"), write_page_checksum=True, compression="none", use_dictionary=False)
        with open(self.path("x.parquet"), "rb") as file:
            whole = bytearray(file.read())
        meta = pq.ParquetFile(self.path("x.parquet")).metadata.row_group(0)
        last = max(range(meta.num_columns), key=lambda i: meta.column(i).data_page_offset)
        at = meta.column(last).data_page_offset + meta.column(last).total_compressed_size - 3  # in the values
        whole[at] ^= 1
        with open(self.path("x.parquet"), "wb") as file:
            file.write(whole)
        self.fails(self.path("x.parquet"), "fu-tau-re", "cannot be read")

    def test_jets_of_different_files_have_different_ids(self):
        _, a = self.run_on(os.path.join(FIXTURES, "fu_tau_re.parquet"), "fu-tau-re", "a.h5")
        _, b = self.run_on(os.path.join(FIXTURES, "fu_tau_re_t.parquet"), "fu-tau-re", "b.h5")
        self.assertEqual(len(set(a["id"]) | set(b["id"])), 240)
        _, c = self.run_on(os.path.join(FIXTURES, "fu_tau_re.parquet"), "fu-tau-re", "c.h5", 20000, "--id-base", "7")
        np.testing.assert_array_equal(c["id"], np.arange(7, 127))

    def test_an_existing_file_is_not_overwritten(self):
        source = os.path.join(FIXTURES, "jetclass.root")
        self.run_on(source, "jetclass")
        with self.assertRaises(convert.ConvertError):
            self.run_on(source, "jetclass")

    def test_a_full_disk_is_the_fault_of_the_destination_at_every_write(self):
        for name, dataset, stride in (("fu_tau_re.parquet", "fu-tau-re", 1), ("jetclass.root", "jetclass", 10)):
            source, out = os.path.join(FIXTURES, name), self.path("out.h5")
            with FullDisk(0) as disk:
                self.run_on(source, dataset)
            self.assertGreater(disk.calls, 20)
            with open(out, "rb") as file:
                want = file.read()
            os.remove(out)
            for k in range(1, disk.calls + 1, stride):
                with FullDisk(k), self.assertRaises(convert.ConvertError) as caught:
                    self.run_on(source, dataset)
                self.assertEqual(caught.exception.code, convert.EXIT_IO, k)
                self.assertIn(f"{out}: cannot be written: No space left on device", str(caught.exception), k)
                self.assertEqual(os.listdir(self.folder.name), [], k)
            self.run_on(source, dataset)
            with open(out, "rb") as file:
                self.assertEqual(file.read(), want)
            os.remove(out)

    def test_the_command_line_gives_one_line_and_the_documented_exit_code(self):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "apps", "python", "convert.py"), self.path("none.root"),
                               self.path("o.h5"), "--dataset", "jetclass"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 66)
        self.assertEqual(done.stderr.count("\n"), 1)


if __name__ == "__main__":
    unittest.main()
