#include "train/jet_block.h"

#include "train/features.h"

namespace tessera {
namespace {

/// What a file says of a particle class: kind and charge, the inverse of pid_class().
struct Kind {
  std::int8_t pid, charge;
};
constexpr Kind kKinds[kPidClasses] = {{1, 1},  {1, -1}, {2, 0},  {3, 0}, {4, 1},
                                      {4, -1}, {5, 1},  {5, -1}, {0, 0}};

}  // namespace

JetBlock empty_block() {
  JetBlock block;
  block.offsets = {0};
  return block;
}

std::vector<FourVector> particles_of(const JetBlock& b, std::uint64_t row) {
  std::vector<FourVector> out;
  for (auto i = static_cast<std::size_t>(b.offsets[row]);
       i < static_cast<std::size_t>(b.offsets[row + 1]); ++i) {
    out.push_back({static_cast<double>(b.px[i]), static_cast<double>(b.py[i]),
                   static_cast<double>(b.pz[i]), static_cast<double>(b.energy[i])});
  }
  return out;
}

FourVector sum_of(const std::vector<FourVector>& particles) {
  FourVector sum;
  for (const FourVector& p : particles) {
    sum += p;
  }
  return sum;
}

void push_particle(const float* core, std::int32_t pid_class, JetBlock& b) {
  const PtDetaDphi p = inverse_core(core);
  const FourVector v = from_pt_eta_phi_m(p.pt, p.deta, p.dphi, 0);
  b.px.push_back(static_cast<float>(v.px));
  b.py.push_back(static_cast<float>(v.py));
  b.pz.push_back(static_cast<float>(v.pz));
  b.energy.push_back(static_cast<float>(v.e));
  const Kind kind = kKinds[static_cast<std::size_t>(pid_class)];
  b.pid.push_back(kind.pid);
  b.charge.push_back(kind.charge);
}

void close_jet(std::uint64_t id, JetBlock& b) {
  b.offsets.push_back(static_cast<std::int64_t>(b.px.size()));
  b.id.push_back(id);
  const FourVector sum = sum_of(particles_of(b, b.jets() - 1));
  const bool some = sum.pt() > 0;
  b.jet_pt.push_back(static_cast<float>(sum.pt()));
  b.jet_eta.push_back(some ? static_cast<float>(sum.eta()) : 0.0F);
  b.jet_phi.push_back(some ? static_cast<float>(sum.phi()) : 0.0F);
  b.jet_energy.push_back(static_cast<float>(sum.e));
}

void copy_particle(const JetBlock& from, std::size_t i, JetBlock& to) {
  to.px.push_back(from.px[i]);
  to.py.push_back(from.py[i]);
  to.pz.push_back(from.pz[i]);
  to.energy.push_back(from.energy[i]);
  to.charge.push_back(from.charge[i]);
  to.pid.push_back(from.pid[i]);
}

void append_jet(const JetBlock& from, std::uint64_t row, JetBlock& to) {
  const std::int64_t begin = from.offsets[row], end = from.offsets[row + 1];
  for (std::int64_t i = begin; i < end; ++i) {
    copy_particle(from, static_cast<std::size_t>(i), to);
  }
  to.offsets.push_back(to.offsets.back() + end - begin);
  to.id.push_back(from.id[row]);
  to.jet_pt.push_back(from.jet_pt[row]);
  to.jet_eta.push_back(from.jet_eta[row]);
  to.jet_phi.push_back(from.jet_phi[row]);
  to.jet_energy.push_back(from.jet_energy[row]);
}

}  // namespace tessera
