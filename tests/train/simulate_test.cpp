// From a committed particle stream to a native file.
#include "train/simulate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/check.h"
#include "support/temp_dir.h"
#include "train/dataset.h"

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
