"""apps/python/convert.py on look-alikes of the public layouts. Exit status 77 = libraries are missing."""

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
sys.path.insert(0, os.path.join(ROOT, "apps", "python"))
import convert  # noqa: E402


class ConvertTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def run_on(self, source, dataset, out="out.h5", rows=20000):
        report = convert.convert(convert.parse([source, self.path(out), "--dataset", dataset, "--rows", str(rows)]))
        return report, h5py.File(self.path(out))

    def fails(self, source, dataset, *words):
        with self.assertRaises(convert.ConvertError) as caught:
            self.run_on(source, dataset, "bad.h5")
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertEqual(caught.exception.code, convert.EXIT_DATA)
        self.assertFalse(os.path.exists(self.path("bad.h5")))
        self.assertFalse(os.path.exists(self.path("bad.h5.tmp")))

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

    def write_tree(self, change):
        arrays = uproot.open(os.path.join(FIXTURES, "jetclass.root"))["tree"].arrays()
        columns = {n: arrays[n] for n in arrays.fields if not n.startswith("npart_") and n != "n"}
        change(columns)
        with uproot.recreate(self.path("x.root")) as file:
            file.mktree("tree", {k: v.type.content if hasattr(v, "type") else v.dtype for k, v in columns.items()})
            file["tree"].extend(columns)
        return self.path("x.root")

    def test_a_label_that_is_no_truth_value_is_refused_by_name(self):
        def half(columns):
            columns["label_QCD"] = np.full(len(columns["label_QCD"]), 0.5, "f4")
        self.fails(self.write_tree(half), "jetclass", "x.root", "label_QCD", "0.5")

    def test_a_jet_without_class_is_refused(self):
        def none(columns):
            for c in convert.CLASSES:
                columns[f"label_{c}"] = np.zeros(40, "i4")
        self.fails(self.write_tree(none), "jetclass", "row 0", "label_QCD")

    def test_a_missing_branch_is_named(self):
        self.fails(self.write_tree(lambda c: c.pop("part_energy")), "jetclass", "part_energy")

    def test_a_jet_without_constituents_is_an_empty_segment(self):
        def empty(columns):
            for n in [n for n in columns if n.startswith("part_")]:
                rows = columns[n].to_list()
                rows[0] = rows[17] = rows[-1] = []
                columns[n] = ak.values_astype(ak.Array(rows), "f4" if n[5:7] != "is" else "i4")
        _, file = self.run_on(self.write_tree(empty), "jetclass")
        self.assertEqual([int(np.diff(file["offsets"])[i]) for i in (0, 17, 39)], [0, 0, 0])

    def rewrite(self, column, change):
        table = pq.read_table(os.path.join(FIXTURES, "fu_tau_re.parquet"))
        values = table[column].to_pylist()
        change(values)
        i = table.schema.get_field_index(column)
        pq.write_table(table.set_column(i, column, pa.array(values, table.schema.field(i).type)), self.path("x.parquet"))
        return self.path("x.parquet")

    def test_a_non_finite_momentum_is_refused(self):
        for bad in (float("nan"), float("inf")):
            def change(rows, bad=bad):
                rows[3][0]["x"] = bad
            self.fails(self.rewrite("reco_cand_p4s", change), "fu-tau-re", "x.parquet", "reco_cand_p4s.x")

    def test_a_decay_mode_out_of_range_is_refused(self):
        def change(rows):
            rows[5] = 17
        self.fails(self.rewrite("gen_jet_tau_decaymode", change), "fu-tau-re", "gen_jet_tau_decaymode", "17")

    def test_columns_of_different_length_are_refused(self):
        def change(rows):
            rows[2] = rows[2][:-1]
        self.fails(self.rewrite("reco_cand_pdg", change), "fu-tau-re", "reco_cand_pdg", "row 2")

    def test_an_existing_file_is_not_overwritten_and_a_truncated_one_is_refused(self):
        source = os.path.join(FIXTURES, "jetclass.root")
        self.run_on(source, "jetclass")
        with self.assertRaises(convert.ConvertError):
            self.run_on(source, "jetclass")
        for name, dataset in (("jetclass.root", "jetclass"), ("fu_tau_re.parquet", "fu-tau-re")):
            with open(os.path.join(FIXTURES, name), "rb") as whole, open(self.path(name), "wb") as part:
                part.write(whole.read()[:20000])
            self.fails(self.path(name), dataset, name)

    def test_the_command_line_gives_one_line_and_the_documented_exit_code(self):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "apps", "python", "convert.py"), self.path("none.root"),
                               self.path("o.h5"), "--dataset", "jetclass"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 66)
        self.assertEqual(done.stderr.count("\n"), 1)


if __name__ == "__main__":
    unittest.main()
