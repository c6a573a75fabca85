// Jets in memory: four-vectors out of a block of decoded columns, and blocks built jet by jet.
#pragma once

#include "train/dataset.h"
#include "train/four_vector.h"

namespace tessera {

/// A block without jets.
JetBlock empty_block();

/// Constituents of a jet as stored.
std::vector<FourVector> particles_of(const JetBlock& block, std::uint64_t row);
FourVector sum_of(const std::vector<FourVector>& particles);

/// Appends the massless particle of core features (kCoreFeatures values) and of a particle class 0
/// .. kPidClasses - 1, in the jet frame: the axis lies at eta = phi = 0.
void push_particle(const float* core, std::int32_t pid_class, JetBlock& block);
/// Ends a jet: its constituents are those pushed since the last one, its kinematics their sum; an
/// empty jet has zeros.
void close_jet(std::uint64_t id, JetBlock& block);
/// Appends a constituent of another block, without its track.
void copy_particle(const JetBlock& from, std::size_t i, JetBlock& to);
/// Appends a jet of another block: constituents without tracks, id and kinematics.
void append_jet(const JetBlock& from, std::uint64_t row, JetBlock& to);

}  // namespace tessera
