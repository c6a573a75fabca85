// Jet clustering, behind which FastJet lies (Cacciari, Salam, Soyez, arXiv:1111.6097).
#pragma once

#include <span>
#include <vector>

#include "train/four_vector.h"

namespace tessera {

/// A jet and the input indices of its constituents, ascending.
struct ClusteredJet {
  FourVector p4;
  std::vector<int> constituents;
};

/// Anti-kt jets (E scheme) of radius R with pt > pt_min GeV, in falling pt.
std::vector<ClusteredJet> cluster_antikt(std::span<const FourVector> particles, double radius,
                                         double pt_min);
/// Inclusive generalised kt jets for e+e- (FastJet's ee_genkt_algorithm) with power p and
/// pt > pt_min GeV, in falling pt.
std::vector<ClusteredJet> cluster_ee_genkt(std::span<const FourVector> particles, double radius,
                                           double p, double pt_min);

/// sqrt(d12) of the exclusive kt algorithm with radius R on all particles, GeV; 0 for fewer than
/// two.
double kt_splitting_scale(std::span<const FourVector> particles, double radius);

/// One Cambridge/Aachen recombination tree: nodes 0 .. n-1 are the inputs, each later node merges
/// two earlier ones (larger pt first).
struct ClusterTree {
  struct Node {
    FourVector p4;
    int parent1 = -1, parent2 = -1;
  };
  std::vector<Node> nodes;
  int root = -1;  ///< -1 for no input
};
ClusterTree cluster_cambridge(std::span<const FourVector> particles);
/// Axes of the n exclusive kt jets with winner-take-all recombination (pt), radius R. Fewer inputs
/// than n give as many axes as inputs.
std::vector<FourVector> kt_wta_axes(std::span<const FourVector> particles, int n, double radius);

}  // namespace tessera
