#include "train/jets.h"

#include <algorithm>
#include <fastjet/ClusterSequence.hh>
#include <fastjet/JetDefinition.hh>
#include <fastjet/PseudoJet.hh>

namespace tessera {
namespace {

FourVector to_four_vector(const fastjet::PseudoJet& j) { return {j.px(), j.py(), j.pz(), j.e()}; }

std::vector<fastjet::PseudoJet> to_pseudojets(std::span<const FourVector> particles) {
  // the library would print its banner on first use
  fastjet::ClusterSequence::set_fastjet_banner_stream(nullptr);
  std::vector<fastjet::PseudoJet> out;
  out.reserve(particles.size());
  for (const FourVector& p : particles) {
    out.emplace_back(p.px, p.py, p.pz, p.e);
    out.back().set_user_index(static_cast<int>(out.size()) - 1);
  }
  return out;
}

std::vector<ClusteredJet> cluster(std::span<const FourVector> particles,
                                  const fastjet::JetDefinition& definition, double pt_min) {
  if (particles.empty()) {
    return {};
  }
  const fastjet::ClusterSequence sequence(to_pseudojets(particles), definition);
  std::vector<ClusteredJet> jets;
  for (const auto& j : fastjet::sorted_by_pt(sequence.inclusive_jets(pt_min))) {
    ClusteredJet jet{.p4 = to_four_vector(j), .constituents = {}};
    for (const auto& c : j.constituents()) {
      jet.constituents.push_back(c.user_index());
    }
    std::sort(jet.constituents.begin(), jet.constituents.end());
    jets.push_back(std::move(jet));
  }
  return jets;
}

// Large enough that everything ends in one jet.
constexpr double kAllInOne = 1000;

}  // namespace

std::vector<ClusteredJet> cluster_antikt(std::span<const FourVector> particles, double radius,
                                         double pt_min) {
  return cluster(particles, fastjet::JetDefinition(fastjet::antikt_algorithm, radius), pt_min);
}

std::vector<ClusteredJet> cluster_ee_genkt(std::span<const FourVector> particles, double radius,
                                           double p, double pt_min) {
  return cluster(particles, fastjet::JetDefinition(fastjet::ee_genkt_algorithm, radius, p), pt_min);
}

double kt_splitting_scale(std::span<const FourVector> particles, double radius) {
  if (particles.size() < 2) {
    return 0;
  }
  const fastjet::ClusterSequence sequence(to_pseudojets(particles),
                                          fastjet::JetDefinition(fastjet::kt_algorithm, radius));
  return std::sqrt(sequence.exclusive_dmerge(1));
}

ClusterTree cluster_cambridge(std::span<const FourVector> particles) {
  ClusterTree tree;
  if (particles.empty()) {
    return tree;
  }
  const fastjet::ClusterSequence sequence(
      to_pseudojets(particles), fastjet::JetDefinition(fastjet::cambridge_algorithm, kAllInOne));
  const auto& jets = sequence.jets();
  tree.nodes.resize(jets.size());
  for (std::size_t i = 0; i < jets.size(); ++i) {
    auto& node = tree.nodes[i];
    node.p4 = to_four_vector(jets[i]);
    fastjet::PseudoJet a, b;
    if (sequence.has_parents(jets[i], a, b)) {
      node.parent1 =
          sequence.history()[static_cast<std::size_t>(a.cluster_hist_index())].jetp_index;
      node.parent2 =
          sequence.history()[static_cast<std::size_t>(b.cluster_hist_index())].jetp_index;
    }
  }
  tree.root = static_cast<int>(tree.nodes.size()) - 1;
  return tree;
}

std::vector<FourVector> kt_wta_axes(std::span<const FourVector> particles, int n, double radius) {
  std::vector<FourVector> axes;
  if (particles.empty()) {
    return axes;
  }
  const fastjet::JetDefinition definition(fastjet::kt_algorithm, radius, fastjet::WTA_pt_scheme);
  const fastjet::ClusterSequence sequence(to_pseudojets(particles), definition);
  const int count = std::min(n, static_cast<int>(particles.size()));
  for (const auto& j : fastjet::sorted_by_pt(sequence.exclusive_jets(count))) {
    axes.push_back(to_four_vector(j));
  }
  return axes;
}

}  // namespace tessera
