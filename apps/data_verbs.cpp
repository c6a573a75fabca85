#include "apps/data_verbs.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/file_splits.h"
#include "apps/output.h"
#include "apps/programs.h"
#include "core/check.h"
#include "train/file_kind.h"
#include "train/manifest.h"
#include "train/native_file.h"
#include "train/path_hints.h"
#include "train/simulation/particles.h"
#include "train/simulation/simulate.h"

namespace tessera::apps {
namespace {

struct SimulateArguments {
  std::vector<std::string> sources;
  std::string output, file;
  Helpers helpers;
  std::uint64_t seed = 0, skip_events = 0;
  int mantissa_bits = 23, deflate = 1;
  bool overwrite = false, literal_delphes = false, quiet = false;
};

SimulateSource parse_source(const std::string& text, const std::string& file) {
  SimulateSource source{.file = file};
  unsigned long long jets = 0;
  char rest = 0;
  const int read =
      std::sscanf(text.c_str(), "%d:%d:%llu%c", &source.sample, &source.chunk, &jets, &rest);
  TESSERA_CHECK(read == 3, "--source: expected SAMPLE:CHUNK:JETS, for example 21:0:5000, got '{}'",
                text);
  source.jets = jets;
  return source;
}

// Returns the command that makes the file again, with the names as the user gave them. The file
// records it.
std::string command_of(const SimulateArguments& args) {
  std::string text = "tessera simulate --output " + shell_word(args.output);
  if (args.mantissa_bits != 23) {
    text += fmt::format(" --mantissa-bits {}", args.mantissa_bits);
  }
  if (args.deflate != 1) {
    text += fmt::format(" --deflate {}", args.deflate);
  }
  if (args.seed != 0) {
    text += fmt::format(" --seed {}", args.seed);
  }
  if (args.literal_delphes) {
    text += " --literal-delphes";
  }
  if (args.skip_events != 0) {
    text += fmt::format(" --skip-events {}", args.skip_events);
  }
  if (!args.file.empty()) {
    text += " --file " + shell_word(args.file);
  }
  for (const std::string& s : args.sources) {
    text += " --source " + shell_word(s);
  }
  return text;
}

void print_report(const SimulateReport& report) {
  print_out("{:>6} {:>5} {:>8} {:>8} {:>11} {:>12} {:>8} {:>8} {:>8}\n", "sample", "chunk",
            "events", "jets", "sigma / pb", "constituents", "charged", "mass", "pt");
  for (const SourceReport& s : report.sources) {
    print_out("{:>6} {:>5} {:>8} {:>8} {:>11.4g} {:>12.1f} {:>8.1f} {:>8.1f} {:>8.1f}\n", s.sample,
              s.chunk, s.events, s.jets, s.sigma_pb, s.mean_constituents, s.mean_charged,
              s.mean_mass, s.mean_pt);
  }
  for (const auto& [file, next] : report.next_event) {
    print_out("{}: read up to event {}; --skip-events {} goes on behind it\n", file,
              next > 0 ? next - 1 : 0, next);
  }
}

void simulate_verb(const SimulateArguments& args) {
  SimulateConfig config;
  for (const std::string& s : args.sources) {
    config.sources.push_back(parse_source(s, args.file));
  }
  config.output = args.output;
  config.detector_seed = args.seed;
  config.skip_events = args.skip_events;
  config.native = {
      .deflate = args.deflate, .mantissa_bits = args.mantissa_bits, .overwrite = args.overwrite};
  config.track_momentum = args.literal_delphes ? TrackMomentum::delphes : TrackMomentum::smeared;
  config.command = command_of(args);
  config.event_reader = event_reader();
  if (args.file.empty()) {
    config.generator = helper_command(args.helpers, "simulate.py");
  }
  const bool terminal = ::isatty(STDERR_FILENO) != 0 && !args.quiet;
  const SimulateReport report = simulate(config, [&](const SimulateProgress& p) {
    if (terminal) {
      print_err("\rsource {}/{}  {} of {} jets  {} events   ", p.source + 1, args.sources.size(),
                p.jets, p.wanted, p.events);
    }
  });
  if (terminal) {
    print_err("\n");
  }
  print_report(report);
}

void add_simulate(CLI::App& app, std::function<void()>& action) {
  auto args = std::make_shared<SimulateArguments>();
  CLI::App* verb =
      app.add_subcommand("simulate", "Make simulated jets: Pythia, our detector, FastJet, truth");
  verb->add_option("--source", args->sources,
                   "SAMPLE:CHUNK:JETS, repeated; their jets alternate in the file")
      ->required();
  verb->add_option("-o,--output", args->output, "Native HDF5 file to write")->required();
  verb->add_option("--file", args->file,
                   "Read events from HepMC3 ASCII or a particle stream instead of Pythia; each "
                   "source begins behind the last event of the one before");
  verb->add_option("--skip-events", args->skip_events,
                   "Events of the file to pass over: those that earlier runs read");
  verb->add_option("--seed", args->seed, "Detector seed; the generator's is 100 sample + chunk");
  verb->add_option("--mantissa-bits", args->mantissa_bits, "Kept of constituent floats, 23 = all")
      ->check(CLI::Range(8, 23));
  verb->add_option("--deflate", args->deflate, "zlib level, 0 = none")->check(CLI::Range(0, 9));
  add_helper_options(*verb, args->helpers, "Interpreter that has pythia8mc");
  verb->add_flag("--literal-delphes", args->literal_delphes,
                 "Track momenta as Delphes literally has them");
  verb->add_flag("--overwrite", args->overwrite, "Replace the output");
  verb->add_flag("--quiet", args->quiet, "No progress");
  verb->footer(
      "Samples: 1 QCD, 2 Hbb, 3 Hcc, 4 Hgg, 5 H4q, 6 Hqql, 7 Zqq, 8 Wqq, 9 Tbqq, 10 Tbl (pp, 13 "
      "TeV, 500 < pt < "
      "1000 GeV);\n21 Z to tau tau, 22 ZH with H to tau tau, 23 Z to quarks (e+e-, 380 GeV).\n"
      "Chunks 0-79 train, 80-89 validation, 90-99 test. Same command, same bytes.");
  verb->callback([args, &action] { action = [args] { simulate_verb(*args); }; });
}

struct ConvertArguments {
  std::string source, destination, dataset, checksum;
  std::optional<std::uint64_t> id_base;
  Helpers helpers;
  std::uint64_t memory_gib = 4;
};

void convert_verb(const ConvertArguments& args) {
  check_plain_file(args.source);
  auto argv = helper_command(args.helpers, "convert.py");
  argv.insert(argv.end(), {args.source, args.destination, "--dataset", args.dataset});
  if (!args.checksum.empty()) {
    argv.insert(argv.end(), {"--checksum", args.checksum});
  }
  if (args.id_base) {
    argv.insert(argv.end(), {"--id-base", std::to_string(*args.id_base)});
  }
  run_bounded(argv, args.source, reader_bounds(args.source, args.memory_gib << 30U));
  check_foreign_file(args.destination);  // the reader's word, not the converter's
}

void add_convert(CLI::App& app, std::function<void()>& action) {
  auto args = std::make_shared<ConvertArguments>();
  CLI::App* verb = app.add_subcommand("convert", "Convert public jet data to the native format");
  verb->add_option("source", args->source, "JetClass ROOT or Fu-tau-re Parquet file")->required();
  verb->add_option("destination", args->destination, "Native HDF5 file to write")->required();
  verb->add_option("--dataset", args->dataset, "jetclass or fu-tau-re")
      ->required()
      ->check(CLI::IsMember({"jetclass", "fu-tau-re"}));
  verb->add_option("--checksum", args->checksum,
                   "md5:HEX or sha256:HEX of the source as published: any damage is noticed");
  verb->add_option("--id-base", args->id_base,
                   "First jet id; from the hash of the source if not given");
  verb->add_option("--memory", args->memory_gib, "GiB of address space that the converter may use")
      ->check(CLI::Range(1, 1024));
  add_helper_options(*verb, args->helpers, "Interpreter that has uproot, awkward, pyarrow, h5py");
  verb->callback([args, &action] { action = [args] { convert_verb(*args); }; });
}

void send_events(const std::string& path) { write_particle_stream(*open_event_file(path), stdout); }

// A verb that reads a stranger's file in a bounded child; not in the help. That the file asks for
// more memory than the bound is the file's fault.
void add_reader(CLI::App& app, const char* name, const char* help, void (*read)(const std::string&),
                std::function<void()>& action) {
  auto path = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand(name, help)->group("");
  verb->add_option("file", *path)->required();
  verb->callback([path, read, &action] {
    action = [path, read] {
      try {
        read(*path);
      } catch (const std::bad_alloc&) {
        TESSERA_FAIL(ErrorKind::data, "{}: it asks for more memory than a file of its size may",
                     *path);
      }
    };
  });
}

void say(const std::string& line) { print_err("inspect: {}\n", line); }

}  // namespace

void write_manifest_verb(const std::string& directory, const ManifestArguments& arguments) {
  TESSERA_CHECK_KIND(ErrorKind::missing, std::filesystem::is_directory(directory),
                     "{}: no such folder", directory);
  const FileSplits files(directory, arguments.splits);
  for (const std::string& name : files.names()) {
    check_foreign_file((std::filesystem::path(directory) / name).string());
  }
  const auto absolute = std::filesystem::weakly_canonical(directory);
  const OnEqualJets tell = [](const EqualJets& equal) {
    say(fmt::format(
        "{} jets are there twice under different ids, the first in row {} of {} and row "
        "{} of {}; --allow-equal-jets keeps them",
        equal.others + 1, equal.first.row, equal.first.file.string(), equal.second.row,
        equal.second.file.string()));
  };
  const OnEqualJets on_equal = arguments.allow_equal_jets ? tell : refuse_equal_jets;
  const DatasetManifest manifest =
      make_manifest(directory, absolute.filename().string(), files.splits(say), on_equal);
  write_manifest(directory, manifest);
  for (const auto& [split, entries] : manifest.splits) {
    for (const FileEntry& f : entries) {
      print_out("{:6} {:24} {:>10} jets {:>12} constituents\n", split, f.file, f.n, f.m);
    }
  }
}

void add_data_verbs(CLI::App& app, std::function<void()>& action) {
  add_simulate(app, action);
  add_convert(app, action);
  add_reader(
      app, "check-native", "Read a native file whole",
      [](const std::string& path) { check_native_file(path); }, action);
  add_reader(app, "read-events", "Write the events of a file as a particle stream", send_events,
             action);
}

}  // namespace tessera::apps
