#!/usr/bin/env python3
"""What strangers bring, through the command line: code in the working directory, paths that are no files, files that
expand, programs that are killed; and hints, each of which must work. Exit status 77 = libraries are missing. The
executable is in TESSERA_EXECUTABLE.
"""
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

try:
    import h5py
    import numpy as np
except ImportError as error:
    print(f"SKIPPED: {error} (pip install -r apps/python/requirements.txt)")
    sys.exit(77)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIXTURES = os.path.join(ROOT, "tests", "fixtures")
TESSERA = os.environ["TESSERA_EXECUTABLE"]
STREAM = os.path.join(FIXTURES, "ee_tautau.particles")


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, text, *names):
        os.makedirs(os.path.dirname(self.path(*names)), exist_ok=True)
        with open(self.path(*names), "w") as file:
            file.write(text)
        return self.path(*names)

    def tessera(self, *arguments, code, cwd=ROOT, **options):
        """Standard error, of at most two lines."""
        done = subprocess.run([TESSERA, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, **options)
        self.assertEqual(done.returncode, code, (arguments, done.stderr))
        self.assertNotIn("Traceback", done.stderr)
        self.assertLessEqual(done.stderr.count("\n"), 2, done.stderr)
        return done.stderr

    def dataset(self, *names):
        """A folder with one file of jets."""
        os.makedirs(self.path(*names))
        return shutil.copy(os.path.join(FIXTURES, "fu_tau_re.h5"), self.path(*names, "a-test.h5"))


class ForeignCode(Case):
    """Nothing of the working directory is run, whatever its name."""

    def setUp(self):
        super().setUp()
        self.evil = self.path("evil")
        mark = f"open({self.path('was-run')!r}, 'w').close()\n"
        scripts = ("plot", "simulate", "convert", "import_checkpoint", "answers")
        modules = ("numpy", "matplotlib", "program", "report", "h5py", "json", "pythia8mc", "sitecustomize")
        for name in [f"apps/python/{s}.py" for s in scripts] + [f"{m}.py" for m in modules] + ["report/__init__.py"]:
            self.write(mark, "evil", name)
        self.write("backend: module://numpy\nfont.size: 99\n", "evil", "matplotlibrc")

    def runs_nothing(self, *arguments, code):
        text = self.tessera(*arguments, "--python", sys.executable, code=code, cwd=self.evil)
        self.assertFalse(os.path.exists(self.path("was-run")), arguments)
        return text

    def test_report(self):
        run = self.path("run")
        self.write("{}", "run", "run.json")
        done = subprocess.run([TESSERA, "report", run, "--python", sys.executable], cwd=self.evil, capture_output=True, text=True)
        self.assertFalse(os.path.exists(self.path("was-run")))
        self.assertIn(done.returncode, (0, 66), done.stderr)  # 66: matplotlib is not installed here

    def test_simulate(self):
        done = subprocess.run([TESSERA, "simulate", "--source", "21:0:1", "-o", self.path("x.h5"), "--python", sys.executable],
                              cwd=self.evil, capture_output=True, text=True)
        self.assertFalse(os.path.exists(self.path("was-run")))
        self.assertIn(done.returncode, (0, 66), done.stderr)

    def test_convert(self):
        self.runs_nothing("convert", os.path.join(FIXTURES, "fu_tau_re.h5"), self.path("x.h5"), "--dataset", "jetclass", code=65)

    def test_import(self):
        self.runs_nothing("import", "-c", "omnijet-alpha", "--tokenizer", os.path.join(FIXTURES, "fu_tau_re.parquet"),
                          f"run.directory={self.path('run')}", code=65)

    def test_scripts_says_where_they_are(self):
        self.write("raise SystemExit(64)\n", "mine", "plot.py")
        self.write("{}", "run", "run.json")
        self.tessera("report", self.path("run"), "--python", sys.executable, "--scripts", self.path("mine"), code=64)
        text = self.tessera("report", self.path("run"), "--python", sys.executable, "--scripts", self.path("none"), code=66)
        self.assertIn(self.path("none"), text)

    def test_a_preset_is_the_programs_own(self):
        self.write("run.directory = 'evil'\n", "evil", "tiny")
        done = subprocess.run([TESSERA, "generate", "--dry-run", "-c", "tiny"], cwd=self.evil, capture_output=True, text=True)
        self.assertIn('directory = "runs/tiny"', done.stdout)
        self.write("x", "evil", "quickstart", "MANIFEST.json")
        done = subprocess.run([TESSERA, "inspect", "quickstart"], cwd=self.evil, capture_output=True, text=True)
        self.assertIn("preset", done.stdout)


class NoFiles(Case):
    """What is no plain file is refused at once by every reader."""

    def setUp(self):
        super().setUp()
        self.dataset("made")
        self.tessera("inspect", "--write-manifest", self.path("made"), code=0)

    def kinds(self, suffix):
        """A path of each kind under a folder of its own."""
        for kind in ("fifo", "folder", "socket", "device"):
            os.mkdir(self.path(f"{kind}{suffix}"))
            path = self.path(f"{kind}{suffix}", f"x-test{suffix}")
            if kind == "fifo":
                os.mkfifo(path)
            elif kind == "folder":
                os.mkdir(path)
            elif kind == "socket":
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(path)
            else:
                os.symlink("/dev/zero", path)
            yield path

    def refused(self, *arguments):
        begin = time.monotonic()
        done = subprocess.run([TESSERA, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20)
        self.assertIn(done.returncode, (64, 65, 66), (arguments, done.stderr))
        self.assertLess(time.monotonic() - begin, 10, arguments)

    def test_native_files(self):
        for path in self.kinds(".h5"):
            self.refused("check-native", path)
            self.refused("inspect", "--write-manifest", os.path.dirname(path))
            beside = shutil.copy(self.path("made", "a-test.h5"), os.path.dirname(path))
            self.refused("inspect", "--write-manifest", os.path.dirname(path))
            os.remove(beside)
            shutil.copy(self.path("made", "manifest.json"), os.path.dirname(path))
            self.refused("verify", os.path.dirname(path))

    def test_event_files(self):
        for path in self.kinds(".hepmc"):
            self.refused("simulate", "--file", path, "--source", "21:0:1", "-o", self.path("out.h5"))

    def test_configurations(self):
        for path in self.kinds(".toml"):
            self.refused("generate", "--dry-run", "-c", path)

    def test_sources_of_convert_and_import(self):
        for path in self.kinds(".root"):
            self.refused("convert", path, self.path("out.h5"), "--dataset", "jetclass", "--python", sys.executable)
            self.refused("import", "-c", "omnijet-alpha", "--tokenizer", path, f"run.directory={self.path('run')}")

    def test_manifests(self):
        for path in self.kinds("manifest.json"):
            os.rename(path, os.path.join(os.path.dirname(path), "manifest.json"))
            self.refused("inspect", os.path.dirname(path))
        for path in self.kinds("MANIFEST.json"):
            os.rename(path, os.path.join(os.path.dirname(path), "MANIFEST.json"))
            self.refused("inspect", os.path.dirname(path))


class Expansion(Case):
    """A file that expands far beyond its size is refused before it is read whole."""

    def most_memory(self, *arguments):
        """Exit code, and MB that the program held at most."""
        child = subprocess.Popen([TESSERA, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        return child.returncode, usage.ru_maxrss / 1024

    def jets(self, folder, count, chunk=2**20):
        """So many jets without constituents, which compress a thousandfold; made by another process, since the memory that
        most_memory() reports begins with that of the process that starts the program."""
        path = self.dataset(folder)
        child = os.fork()
        if child == 0:
            try:
                self.write_jets(path, count, chunk)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        return path

    def write_jets(self, path, count, chunk):
        with h5py.File(path, "r+") as file:
            for name in list(self.datasets(file)):
                values = file[name][:0] if name.startswith("pf/") else file[name][:1]
                n = 0 if name.startswith("pf/") else count + (name == "offsets")
                del file[name]
                file.create_dataset(name, shape=(n,), dtype=values.dtype, maxshape=(None,), fletcher32=True, shuffle=True,
                                    compression="gzip", compression_opts=9, chunks=(chunk,))
                for begin in range(0, n, 2**22):
                    file[name][begin:begin + 2**22] = 0
            file.attrs["n"], file.attrs["m"] = np.int64(count), np.int64(0)
            del file.attrs["content_xxh3"]

    def datasets(self, file):
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return names

    def test_many_empty_jets(self):
        path = self.jets("jets", 5_000_000)
        self.assertLess(os.path.getsize(path), 1_000_000)
        for arguments in (["check-native", path], ["inspect", "--write-manifest", self.path("jets")]):
            code, megabytes = self.most_memory(*arguments)
            self.assertEqual(code, 65)
            self.assertLess(megabytes, 150)

    def test_one_huge_chunk(self):
        path = self.jets("chunk", 100, chunk=2**25)
        code, megabytes = self.most_memory("check-native", path)
        self.assertEqual(code, 65)
        self.assertLess(megabytes, 150)

    def test_more_class_names_than_labels_can_name(self):
        path = self.dataset("text")
        with h5py.File(path, "r+") as file:
            del file.attrs["content_xxh3"]
            file.create_dataset("label/class", data=np.zeros(120, "u1"), maxshape=(None,), chunks=(120,), fletcher32=True)
            file["label/class"].attrs["classes"] = np.zeros(60000, "S1")
        code, megabytes = self.most_memory("check-native", path)
        self.assertEqual(code, 65)
        self.assertLess(megabytes, 150)


class Killed(Case):
    """Whoever is killed takes its children along."""

    def children_of(self, pid):
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat") as file:
                        if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                            found.append(int(name))
                except OSError:
                    pass
        return found

    def alive(self, pid):
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError:
            return False

    def takes_its_child(self, *arguments):
        self.write("import time\ntime.sleep(300)\n", "slow", "simulate.py")
        shutil.copy(self.path("slow", "simulate.py"), self.path("slow", "convert.py"))
        shutil.copy(self.path("slow", "simulate.py"), self.path("slow", "plot.py"))
        parent = subprocess.Popen([TESSERA, *arguments, "--python", sys.executable, "--scripts", self.path("slow")],
                                  cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(parent.wait)
        self.addCleanup(parent.kill)
        deadline = time.monotonic() + 20
        children = []
        while not children and time.monotonic() < deadline:
            time.sleep(0.05)
            children = self.children_of(parent.pid)
        self.assertTrue(children, "no child was started")
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        while any(map(self.alive, children)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse([c for c in children if self.alive(c)])

    def test_the_generator(self):
        self.takes_its_child("simulate", "--source", "21:0:1", "-o", self.path("x.h5"))

    def test_the_converter(self):
        self.takes_its_child("convert", os.path.join(FIXTURES, "jetclass.root"), self.path("x.h5"), "--dataset", "jetclass")

    def test_the_report(self):
        self.write("{}", "run", "run.json")
        self.takes_its_child("report", self.path("run"))


class Hints(Case):
    """Messages say what to do next, and a command that they name works."""

    def command_in(self, text):
        found = re.search(r"tessera (inspect --write-manifest .*)$", text.strip())
        self.assertTrue(found, text)
        return shlex.split(found.group(1))

    def test_a_folder_of_data_files(self):
        for name in ("plain", "with space", "it's"):
            self.dataset(name)
            text = self.tessera("inspect", self.path(name), code=66)
            self.tessera(*self.command_in(text), code=0)
            self.tessera("inspect", self.path(name), code=0)

    def test_a_lone_file(self):
        path = self.dataset("lone")
        text = self.tessera("inspect", path, code=66)
        self.tessera(*self.command_in(text), code=0)
        self.assertIn(self.path("lone"), self.tessera("inspect", path, code=66))

    def test_a_relative_path_from_another_folder(self):
        self.dataset("data")
        os.mkdir(self.path("elsewhere"))
        text = self.tessera("verify", "data", code=66, cwd=self.path("elsewhere"))
        self.assertIn("data", text)
        text = self.tessera("train-tokenizer", "-c", "tiny", "data.jets=data", code=66, cwd=self.path("elsewhere"))
        self.assertIn("nothing there, seen from " + os.path.realpath(self.path("elsewhere")), text)
        self.assertNotIn("--write-manifest", text)

    def test_a_folder_without_data_names_those_below(self):
        self.dataset("all", "first")
        self.tessera("inspect", "--write-manifest", self.path("all", "first"), code=0)
        self.assertIn(self.path("all", "first"), self.tessera("inspect", self.path("all"), code=66))

    def test_above_a_model_the_models_are_named(self):
        for name in ("a", "b"):
            self.write("{}", "run", "finetune", name, "model", "MANIFEST.json")
        data = self.path("data")
        self.dataset("data")
        for where in (["run"], ["run", "finetune"], ["run", "finetune", "a"], ["run", "finetune", "c", "model"]):
            text = self.tessera("evaluate", self.path(*where), data, code=66)
            self.assertIn(self.path("run", "finetune", "a", "model"), text)
        self.assertIn("nothing there", self.tessera("evaluate", "/no/such/folder", data, code=66))

    def test_an_unknown_preset_names_the_nearest(self):
        for code, *arguments in ((66, "generate", "-c", "tinny"), (66, "pretrain", "--dry-run", "-c", "quick-start"), (64, "inspect", "tessera-l")):
            text = self.tessera(*arguments, code=code)
            self.assertRegex(text, "nearest preset is '(tiny|quickstart|tessera-s)'")

    def test_a_stop_by_signal_is_no_error(self):
        run = self.path("run")
        child = subprocess.Popen([TESSERA, "train-tokenizer", "--quiet", "-c", "tiny", "tokenizer.steps=100000", f"run.directory={run}"],
                                 cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        log = os.path.join(run, "tokenizer", "metrics.jsonl")
        while not (os.path.exists(log) and os.path.getsize(log)) and time.monotonic() < deadline:
            time.sleep(0.05)
        child.terminate()
        text = child.communicate()[1]
        self.assertEqual(child.returncode, 75, text)
        self.assertRegex(text, r"stopped at step \d+.*checkpoint.*the same command goes on")
        self.assertNotIn("error", text)

    def test_bad_values_of_options_of_the_helpers(self):
        source = os.path.join(FIXTURES, "jetclass.root")
        for option, value in (("--id-base", "10M"), ("--id-base", "-1"), ("--id-base", str(2**64)), ("--id-base", "1e6"),
                              ("--checksum", "md5"), ("--checksum", "crc:00"), ("--memory", "x")):
            self.tessera("convert", source, self.path("x.h5"), "--dataset", "jetclass", "--python", sys.executable, f"{option}={value}", code=64)
        self.assertFalse(os.path.exists(self.path("x.h5")))
        scripts = os.path.join(ROOT, "apps", "python")
        for script, *arguments in (("convert.py", "a", "b", "--dataset", "jetclass", "--id-base", "10M"), ("convert.py", "a", "b", "--dataset", "x"),
                                   ("convert.py", "a", "b", "--dataset", "jetclass", "--rows", "0"), ("convert.py",),
                                   ("simulate.py", "--sample", "x"), ("simulate.py", "--sample", "21", "--block", "0"), ("simulate.py",),
                                   ("simulate.py", "--sample", "21", "--chunk", "1.5"), ("plot.py",), ("import_checkpoint.py", "x")):
            done = subprocess.run([sys.executable, os.path.join(scripts, script), *arguments], capture_output=True, text=True)
            if script == "plot.py" and done.returncode == 66:
                continue  # matplotlib is not installed here
            self.assertEqual((done.returncode, done.stderr.count("\n")), (64, 1), (script, arguments, done.stderr))

    def test_the_recorded_command_of_a_simulated_file_makes_it_again(self):
        shutil.copy(STREAM, self.path("my events.particles"))
        out = self.path("x.h5")
        for more in ([], ["--seed", "5", "--mantissa-bits", "12"], ["--deflate", "3", "--literal-delphes"]):
            self.tessera("simulate", "--source", "21:0:3", "--source", "21:1:2", "--file", self.path("my events.particles"), "-o", out, *more, code=0)
            with open(out, "rb") as file:
                first = file.read()
            with h5py.File(out) as file:
                command = shlex.split(file.attrs["command"].decode())
            os.remove(out)
            self.assertEqual(command[0], "tessera")
            self.tessera(*command[1:], code=0)
            with open(out, "rb") as file:
                self.assertEqual(file.read(), first)
            os.remove(out)


if __name__ == "__main__":
    unittest.main()
