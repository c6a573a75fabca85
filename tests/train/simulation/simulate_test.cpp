// From a committed particle stream to a native file.
#include "train/simulation/simulate.h"

#include <gtest/gtest.h>

#include <fmt/ranges.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <set>

#include "core/check.h"
#include "support/temp_dir.h"
#include "train/dataset.h"
#include "train/equal_jets.h"
#include "train/simulation/truth.h"

namespace tessera {
namespace {

const std::filesystem::path kFixtures =
    std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/fixtures";

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

SimulateConfig taus(const std::filesystem::path& output) {
  SimulateConfig config;
  config.sources = {
      {.sample = 21, .chunk = 99, .jets = 20, .file = kFixtures / "ee_tautau.particles"}};
  config.output = output;
  return config;
}

TEST(Simulate, SameSeedGivesTheSameBytes) {
  const TempDir d;
  simulate(taus(d.path() / "a.h5"));
  simulate(taus(d.path() / "b.h5"));
  EXPECT_EQ(bytes_of(d.path() / "a.h5"), bytes_of(d.path() / "b.h5"));
  SimulateConfig other = taus(d.path() / "c.h5");
  other.detector_seed = 1;
  simulate(other);
  EXPECT_NE(bytes_of(d.path() / "a.h5"), bytes_of(d.path() / "c.h5"));
}

TEST(Simulate, TauFilesAreReadByTheNativeReader) {
  const TempDir d;
  const SimulateReport report = simulate(taus(d.path() / "a.h5"));
  EXPECT_EQ(report.jets, 20U);
  EXPECT_NEAR(report.sources.at(0).sigma_pb, 1.77, 0.3);  // 40 events
  write_manifest(d.path(), make_manifest(d.path(), "a", {{"train", {"a.h5"}}}));
  const Dataset data(d.path());
  EXPECT_EQ(data.size(), 20U);
  for (const auto mode : data.decay_modes()) {
    EXPECT_TRUE(mode >= 0 && mode <= 15);
  }
}

TEST(Simulate, TopJetsCarryLabelMatchAndSubstructure) {
  const TempDir d;
  SimulateConfig config;
  config.sources = {
      {.sample = 9, .chunk = 99, .jets = 2, .file = kFixtures / "pp_ttbar.particles"}};
  config.output = d.path() / "a.h5";
  simulate(config);
  const H5File file = H5File::open(config.output);
  for (const auto label : file.read_column<std::uint8_t>("label/class")) {
    EXPECT_EQ(label, 8);
  }
  for (const auto pid : file.read_column<std::int32_t>("truth/genpart_pid")) {
    EXPECT_EQ(std::abs(pid), 6);
  }
  const auto tau1 = file.read_column<float>("jet/tau1"), tau4 = file.read_column<float>("jet/tau4");
  for (std::size_t i = 0; i < tau1.size(); ++i) {
    EXPECT_GT(tau1[i], tau4[i]);
  }
}

TEST(Simulate, ASourceThatEndsEarlySaysHowFarItCame) {
  const TempDir d;
  SimulateConfig config = taus(d.path() / "a.h5");
  config.sources[0].jets = 1000;
  try {
    simulate(config);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::missing);
    EXPECT_NE(e.message().find("of 1000 jets"), std::string::npos) << e.message();
  }
  EXPECT_FALSE(std::filesystem::exists(config.output));
}

// Sources of `jets` jets each in chunks 85, 86, ..., from one file.
SimulateConfig parts(const std::filesystem::path& output, const std::vector<std::uint64_t>& jets,
                     const std::filesystem::path& file = kFixtures / "ee_tautau.particles") {
  SimulateConfig config{.sources = {}, .output = output};
  for (const std::uint64_t n : jets) {
    const int chunk = 85 + static_cast<int>(config.sources.size());
    config.sources.push_back({.sample = 21, .chunk = chunk, .jets = n, .file = file});
  }
  return config;
}

std::optional<EqualJets> equal_jets(const std::vector<std::filesystem::path>& files) {
  EqualJetSearch search;
  for (const auto& file : files) {
    search.add(file);
  }
  return search.find();
}

TEST(Simulate, SourcesOfOneFileShareItsEvents) {
  const TempDir d;
  const auto out = d.path() / "a.h5";
  const SimulateReport report = simulate(parts(out, {6, 7, 5}));
  EXPECT_FALSE(equal_jets({out}));
  std::uint64_t next = 0;
  for (const SourceReport& s : report.sources) {
    EXPECT_EQ(s.first_event, next);
    next += s.events;
  }
  EXPECT_EQ(report.next_event.begin()->second, next);
  // the same file under another name is still the same file
  SimulateConfig two = parts(d.path() / "b.h5", {6, 7});
  two.sources[1].file = kFixtures / "../fixtures/ee_tautau.particles";
  EXPECT_EQ(simulate(two).sources.at(1).first_event, report.sources.at(1).first_event);
  for (const std::uint64_t id : NativeFile(out).ids()) {
    EXPECT_LT((id & 0xFFFFFFFFU) >> 6U, next) << "the event's number";
  }
}

TEST(Simulate, AnEventOfAFileGivesTheSameJetsWhateverReadsIt) {
  const TempDir d;
  SimulateConfig train = taus(d.path() / "train.h5"), test = taus(d.path() / "test.h5");
  train.sources[0].chunk = 0;
  test.sources[0] = {.sample = 22, .chunk = 90, .jets = 12, .file = train.sources[0].file};
  const SimulateReport report = simulate(train);
  simulate(test);
  const auto equal = equal_jets({train.output, test.output});
  ASSERT_TRUE(equal);
  EXPECT_EQ(equal->others, 11U);
  try {
    make_manifest(d.path(), "a", {{"test", {"test.h5"}}, {"train", {"train.h5"}}});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    EXPECT_NE(e.message().find("train.h5: row 0"), std::string::npos) << e.message();
    EXPECT_NE(e.message().find("row 0 of " + test.output.string()), std::string::npos);
  }
  // the run that goes on behind the first one has jets of its own
  test.output = d.path() / "more.h5";
  test.skip_events = report.next_event.begin()->second;
  test.sources[0].jets = 5;
  simulate(test);
  EXPECT_FALSE(equal_jets({train.output, test.output}));
}

TEST(Simulate, ASourceBehindTheEndSaysHowManyEventsItHad) {
  const TempDir d;
  SimulateConfig config = parts(d.path() / "a.h5", {6, 1000});
  try {
    simulate(config);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("chunk 86 ended with"), std::string::npos) << e.message();
    EXPECT_NE(e.message().find("of 1000 jets after"), std::string::npos) << e.message();
  }
  config.skip_events = 50;
  try {
    simulate(config);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::missing);
    EXPECT_NE(e.message().find("40 events"), std::string::npos) << e.message();
  }
}

TEST(Simulate, AMissingGeneratorIsNamed) {
  const TempDir d;
  SimulateConfig config = taus(d.path() / "a.h5");
  config.sources[0].file.clear();
  config.generator = {"no-such-generator"};
  try {
    simulate(config);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::missing);
    EXPECT_NE(e.message().find("no-such-generator"), std::string::npos);
  }
}

TEST(Simulate, ExistingFilesAndUnknownSamplesAreRefused) {
  const TempDir d;
  simulate(taus(d.path() / "a.h5"));
  EXPECT_THROW(simulate(taus(d.path() / "a.h5")), Error);
  SimulateConfig config = taus(d.path() / "b.h5");
  config.sources[0].sample = 12;
  EXPECT_THROW(simulate(config), Error);
}

// Reads a stream to its end; the number of events, or -1 after an Error.
int events_in(const std::filesystem::path& path) {
  try {
    const auto source = open_particle_file(path);
    int n = 0;
    while (source->next()) {
      ++n;
    }
    return n;
  } catch (const Error&) {
    return -1;
  }
}

TEST(ParticleStream, DamageAnywhereIsNoticed) {
  const TempDir d;
  const std::string whole = bytes_of(kFixtures / "ee_tautau.particles");
  const auto path = d.path() / "x.particles";
  const auto with = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    return events_in(path);
  };
  EXPECT_EQ(with(whole), 40);
  for (std::size_t cut = 0; cut < whole.size(); cut += 997) {
    EXPECT_EQ(with(whole.substr(0, cut)), -1) << "cut at " << cut;
  }
  const std::size_t body = whole.find("BLK1");
  for (std::size_t at = body; at < whole.size(); at += 701) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    EXPECT_EQ(with(damaged), -1) << "flipped at " << at;
  }
}

// The stream's events as HepMC3 ASCII; vertices with one incoming particle are implied by its
// number.
// `weights` of an event by its number, as many as there are `names`; before HepMC3 3.2 the names
// stood in another line.
using WeightsOf = std::function<std::vector<double>(std::uint64_t number)>;
std::string as_hepmc(EventSource& source, const std::vector<std::string>& names = {},
                     const WeightsOf& weights = {}, bool old_names = false) {
  std::string text = "HepMC::Version 3.01.02\nHepMC::Asciiv3-START_EVENT_LISTING\n";
  if (!names.empty()) {
    const std::string list = fmt::format("{}", fmt::join(names, "\\|"));
    text += old_names ? "W " + list + "\n" : fmt::format("W {}\nN {}\n", names.size(), list);
  }
  while (const auto event = source.next()) {
    std::set<int> mothers;
    std::string lines;
    for (std::size_t i = 0; i < event->particles.size(); ++i) {
      const Particle& p = event->particles[i];
      if (p.mother >= 0) {
        mothers.insert(p.mother);
      }
      lines += fmt::format("P {} {} {} {:.16e} {:.16e} {:.16e} {:.16e} {:.16e} {}\n", i + 1,
                           p.mother + 1, p.pid, p.p4.px, p.p4.py, p.p4.pz, p.p4.e, p.m,
                           p.status > 0 ? 1 : 2);
    }
    const std::string w =
        weights ? fmt::format("W {}\n", fmt::join(weights(event->number), " ")) : "";
    text += fmt::format("E {} {} {}\nU GEV MM\n{}{}", event->number, mothers.size(),
                        event->particles.size(), w, lines);
  }
  return text + "HepMC::Asciiv3-END_EVENT_LISTING\n\n";
}

TEST(HepMc, AFileOfAnyGeneratorGivesTheSameTausAndFinalState) {
  const TempDir d;
  const auto stream = kFixtures / "ee_tautau.particles";
  std::ofstream(d.path() / "a.hepmc") << as_hepmc(*open_particle_file(stream));
  const auto a = open_particle_file(stream), b = open_event_file(d.path() / "a.hepmc");
  int events = 0;
  while (const auto expected = a->next()) {
    const auto got = b->next();
    ASSERT_TRUE(got.has_value());
    const auto taus_a = visible_taus(*expected), taus_b = visible_taus(*got);
    ASSERT_EQ(taus_a.size(), taus_b.size());
    for (std::size_t i = 0; i < taus_a.size(); ++i) {
      EXPECT_EQ(taus_a[i].decay_mode, taus_b[i].decay_mode);
      EXPECT_NEAR(taus_a[i].p4.e, taus_b[i].p4.e, 1e-9);
    }
    EXPECT_EQ(expected->particles.size(), got->particles.size());
    ++events;
  }
  EXPECT_FALSE(b->next().has_value());
  EXPECT_EQ(events, 40);
}

// The weights of the jets of a file that is made of such events.
std::vector<float> weights_of(const std::vector<std::string>& names, const WeightsOf& weights,
                              bool old_names = false) {
  const TempDir d;
  const auto hepmc = d.path() / "a.hepmc";
  std::ofstream(hepmc) << as_hepmc(*open_particle_file(kFixtures / "ee_tautau.particles"), names,
                                   weights, old_names);
  simulate(parts(d.path() / "a.h5", {20}, hepmc));
  const JetBlock block = NativeFile(d.path() / "a.h5").read(0, 20);
  for (std::size_t j = 0; j < block.weight.size() && weights; ++j) {
    EXPECT_FLOAT_EQ(block.weight[j],
                    static_cast<float>(weights((block.id[j] & 0xFFFFFFFFU) >> 6U).back()));
  }
  return block.weight;
}

TEST(HepMc, EventWeightsEnterTheFileWhereOneDiffersFromOne) {
  const auto w = [](std::uint64_t n) { return n % 3 == 0 ? -0.25 : 1.0 + static_cast<double>(n); };
  EXPECT_EQ(weights_of({}, [&](std::uint64_t n) { return std::vector{w(n)}; }).size(), 20U);
  // of several the one that is called nominal, else the first
  EXPECT_EQ(weights_of({"up", "Nominal"},
                       [&](std::uint64_t n) {
                         return std::vector{7.0, w(n)};
                       })
                .size(),
            20U);
  EXPECT_EQ(weights_of({"MUR 2.0 MUF 2.0", "default"},
                       [&](std::uint64_t n) {
                         return std::vector{7.0, w(n)};
                       })
                .size(),
            20U);
  EXPECT_EQ(weights_of(
                {"up 2", "Nominal"},
                [&](std::uint64_t n) {
                  return std::vector{7.0, w(n)};
                },
                true)
                .size(),
            20U);
  EXPECT_EQ(weights_of({"up", "down"}, [&](std::uint64_t) { return std::vector{3.0, 3.0}; })[0], 3);
  EXPECT_TRUE(weights_of({}, {}).empty());
  EXPECT_TRUE(weights_of({"a"}, [](std::uint64_t) { return std::vector{1.0}; }).empty());
  EXPECT_THROW(weights_of({}, [](std::uint64_t) { return std::vector{double(INFINITY)}; }), Error);
  EXPECT_THROW(weights_of({}, [](std::uint64_t) { return std::vector{1e300}; }), Error);
  EXPECT_THROW(weights_of({"a", "b"}, [](std::uint64_t) { return std::vector{2.0}; }), Error);
}

TEST(HepMc, ACutFileIsRefused) {
  const TempDir d;
  const std::string whole = as_hepmc(*open_particle_file(kFixtures / "ee_tautau.particles"));
  for (const std::size_t part : {0, 1, 5, 9}) {
    std::ofstream(d.path() / "cut.hepmc") << whole.substr(0, whole.size() * part / 10);
    EXPECT_THROW(open_event_file(d.path() / "cut.hepmc"), Error);
  }
}

TEST(HepMc, ADamagedEventIsRefusedByItsNumber) {
  const TempDir d;
  std::string text = as_hepmc(*open_particle_file(kFixtures / "ee_tautau.particles"));
  text.replace(text.find("\nP ", text.size() / 2), 3, "\nQ ");
  std::ofstream(d.path() / "a.hepmc") << text;
  const auto source = open_event_file(d.path() / "a.hepmc");
  try {
    while (source->next()) {
    }
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    EXPECT_NE(e.message().find("of 40 cannot be read"), std::string::npos) << e.message();
  }
}

TEST(NativeWriter, MantissaRoundingStaysWithinHalfAUnit) {
  Rng rng(1);
  for (int i = 0; i < 10000; ++i) {
    const auto x = static_cast<float>(std::exp(20 * rng.normal()));
    EXPECT_LE(std::abs(round_mantissa(x, 14) / x - 1), 0x1.0p-15);
    EXPECT_EQ(round_mantissa(x, 23), x);
    EXPECT_EQ(round_mantissa(round_mantissa(x, 14), 14), round_mantissa(x, 14));
  }
  EXPECT_TRUE(std::isnan(round_mantissa(NAN, 14)));
  EXPECT_EQ(round_mantissa(INFINITY, 14), INFINITY);
}

TEST(NativeWriter, ColumnsOfTheWrongLengthAreNamed) {
  const TempDir d;
  NativeJets jets;
  jets.offsets = {0, 2};
  jets.columns["pf/px"] = std::vector<float>{1, 2, 3};
  try {
    write_native_jets(d.path() / "a.h5", jets);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("pf/px has 3 values, expected 2"), std::string::npos) << e.message();
  }
}

TEST(HepMc, ADamagedCrossSectionIsRefusedByItsEvent) {
  const TempDir d;
  const std::string good = as_hepmc(*open_particle_file(kFixtures / "ee_tautau.particles"));
  const std::size_t at = good.find("\nP ", good.size() / 2);
  for (const char* text : {"x", "1e", "nan", "-1 0", "inf", "--5"}) {
    std::string bad = good;
    bad.insert(at, std::string("\nA 0 GenCrossSection ") + text);
    std::ofstream(d.path() / "a.hepmc") << bad;
    const auto source = open_event_file(d.path() / "a.hepmc");
    EXPECT_THROW(while (source->next()){}, Error) << text;
  }
  std::string short_line = good;
  short_line.insert(at, "\nA 0 GenCrossSection 150");
  std::ofstream(d.path() / "a.hepmc") << short_line;
  const auto source = open_event_file(d.path() / "a.hepmc");
  while (source->next()) {
  }
  EXPECT_NEAR(source->sigma_mb(), 150e-9, 1e-15);
}

// The library would read an empty field as 0: another particle, or one with its numbers shifted.
TEST(HepMc, AnEmptyFieldIsRefusedByItsLine) {
  const TempDir d;
  const std::string good = as_hepmc(*open_particle_file(kFixtures / "ee_tautau.particles"));
  for (const char* kind : {"\nP ", "\nV "}) {
    std::string bad = good;
    const std::size_t line = good.find(kind, good.size() / 2);
    if (line == std::string::npos) continue;
    bad.insert(bad.find(' ', line + 3), " ");
    std::ofstream(d.path() / "a.hepmc") << bad;
    EXPECT_THROW((void)open_event_file(d.path() / "a.hepmc"), Error) << kind;
  }
}

TEST(ParticleStream, WhatIsWrittenIsReadAgain) {
  const TempDir d;
  std::ofstream(d.path() / "a.hepmc")
      << as_hepmc(*open_particle_file(kFixtures / "ee_tautau.particles"));
  std::FILE* out = std::fopen((d.path() / "a.particles").c_str(), "wb");
  write_particle_stream(*open_event_file(d.path() / "a.hepmc"), out);
  std::fclose(out);
  const auto a = open_event_file(d.path() / "a.hepmc"),
             b = open_event_file(d.path() / "a.particles");
  EXPECT_EQ(a->header().settings, b->header().settings);
  while (const auto expected = a->next()) {
    const auto got = b->next();
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(a->tried(), b->tried());
    EXPECT_EQ(a->sigma_mb(), b->sigma_mb());
    EXPECT_EQ(expected->number, got->number);
    EXPECT_EQ(expected->weight, got->weight);
    ASSERT_EQ(expected->particles.size(), got->particles.size());
    for (std::size_t i = 0; i < got->particles.size(); ++i) {
      const Particle &x = expected->particles[i], &y = got->particles[i];
      EXPECT_TRUE(x.p4 == y.p4 && x.pid == y.pid && x.status == y.status && x.mother == y.mother &&
                  x.daughter1 == y.daughter1 && x.daughter2 == y.daughter2 && x.m == y.m &&
                  x.vx == y.vx && x.vy == y.vy && x.vz == y.vz);
    }
  }
  EXPECT_FALSE(b->next().has_value());
}

TEST(ParticleStream, AFileThatAnnouncesMoreThanItHoldsTakesNoMemory) {
  const TempDir d;
  std::ifstream in(kFixtures / "ee_tautau.particles", std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), {});
  const std::size_t block = text.find("BLK1");
  const std::uint32_t particles = 99'000'000;  // 8 GB
  std::memcpy(text.data() + block + 8, &particles, 4);
  std::ofstream(d.path() / "a.particles") << text;
  const auto source = open_event_file(d.path() / "a.particles");
  EXPECT_THROW((void)source->next(), Error);
}

}  // namespace
}  // namespace tessera
