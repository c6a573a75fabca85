#include "train/substructure.h"

#include <algorithm>
#include <limits>

#include "train/jets.h"

namespace tessera {
namespace {

double rapidity_distance(const FourVector& a, const FourVector& b) {
  return std::hypot(a.rapidity() - b.rapidity(), delta_phi(a.phi(), b.phi()));
}

}  // namespace

FourVector soft_drop(std::span<const FourVector> constituents, const SoftDropConfig& config) {
  const ClusterTree tree = cluster_cambridge(constituents);
  if (tree.root < 0) {
    return {};
  }
  int at = tree.root;
  for (;;) {
    const ClusterTree::Node& node = tree.nodes[static_cast<std::size_t>(at)];
    if (node.parent1 < 0) {
      return node.p4;
    }
    const FourVector& a = tree.nodes[static_cast<std::size_t>(node.parent1)].p4;
    const FourVector& b = tree.nodes[static_cast<std::size_t>(node.parent2)].p4;
    const double share = std::min(a.pt(), b.pt()) / (a.pt() + b.pt());
    if (share > config.zcut * std::pow(rapidity_distance(a, b) / config.r0, config.beta)) {
      return node.p4;
    }
    at = a.pt() >= b.pt() ? node.parent1 : node.parent2;
  }
}

double n_subjettiness(std::span<const FourVector> constituents, int n, double r0) {
  if (constituents.size() <= static_cast<std::size_t>(n)) {
    return 0;
  }
  const auto axes = kt_wta_axes(constituents, n, r0);
  double sum = 0, norm = 0;
  for (const FourVector& p : constituents) {
    double closest = std::numeric_limits<double>::infinity();
    for (const FourVector& axis : axes) {
      closest = std::min(closest, rapidity_distance(p, axis));
    }
    sum += p.pt() * closest;
    norm += p.pt() * r0;
  }
  return norm > 0 ? sum / norm : 0;
}

}  // namespace tessera
