// From a committed particle stream to a native file.
#include "train/simulation/simulate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "core/check.h"
#include "support/temp_dir.h"
#include "train/dataset.h"
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
std::string as_hepmc(EventSource& source) {
  std::string text = "HepMC::Version 3.01.02\nHepMC::Asciiv3-START_EVENT_LISTING\n";
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
    text += fmt::format("E {} {} {}\nU GEV MM\n{}", event->number, mothers.size(),
                        event->particles.size(), lines);
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

}  // namespace
}  // namespace tessera
