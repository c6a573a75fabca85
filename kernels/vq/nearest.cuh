// What follows the coarse scores of a block of rows (coarse.cuh): unless refined scores
// (refine.cuh) decide, or f32 between two codes that these leave, the best candidates of each row
// are scored exactly, then those within one bound of that score, at most eight in the four lanes of
// a row; a row for which a lane's third is as near goes to the list that scan_kernel takes up.
#pragma once

#include "kernels/vq/exact.cuh"
#include "kernels/vq/refine.cuh"

namespace tessera::TESSERA_GPU_NS {
namespace {

template <int kLanes>
TESSERA_DEVICE Winner best_of_lanes(Winner mine) {
  TESSERA_UNROLL
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const std::int32_t key = shfl_xor(mine.key, step);
    mine.take(key, shfl_xor(mine.code, step));
  }
  return mine;
}

/// What is left to do for the eight rows of a slot, bit l for lane l: whether its best and its
/// second group can hold the winner.
struct Contest {
  std::uint32_t first, second;

  /// The same of one row: bits 0 to 3 the first groups of its lanes, bits 4 to 7 the second.
  TESSERA_DEVICE std::uint32_t of_row(int row) const {
    return (first >> 4 * row & 15U) | (second >> 4 * row & 15U) << 4;
  }
};

// Position of the lowest of eight bits.
TESSERA_DEVICE int lowest(std::uint32_t bits) {
  const std::uint32_t bit = bits & (0U - bits);
  return ((bit & 0xaaU) != 0 ? 1 : 0) + ((bit & 0xccU) != 0 ? 2 : 0) + ((bit & 0xf0U) != 0 ? 4 : 0);
}

// The key of the row in `x` and a code.
template <class P>
TESSERA_DEVICE std::int32_t exact_key(const float* x, const float* exact, int code, int dims,
                                      float half_norm) {
  const int quads = (dims + 3) / 4;
  float score = start_of(half_norm);
  TESSERA_KEEP_ROLLED
  for (int d4 = 0; d4 < quads; ++d4) {
    const auto v = *reinterpret_cast<const Floats*>(x + 4 * d4);
    const auto e = ldg(reinterpret_cast<const Floats*>(exact + exact_place<P>(code, d4, quads)));
    TESSERA_UNROLL
    for (int i = 0; i < 4; ++i) {
      score = fma(v.v[i], e.v[i], score);
    }
  }
  return key_of(score);
}

// Scores the candidates of a slot's rows exactly, a lane per code: 32 / kCandidate rows at a time.
template <class P>
TESSERA_DEVICE void decide(SearchSmem<P>& s, const Search& search, const Contest& contest,
                           const float (&best)[3], int slot, std::uint32_t mask, int dims,
                           View<const float, 1> half_norms) {
  constexpr int kLanes = P::kCandidate;
  if ((contest.first | contest.second) == 0) {
    return;
  }
  const std::uint32_t first = std::bit_cast<std::uint32_t>(best[0]) & mask;
  const std::uint32_t second = std::bit_cast<std::uint32_t>(best[1]) & mask;
  TESSERA_KEEP_ROLLED
  for (int pass = 0; pass < kLanes / 4; ++pass) {
    const int row = pass * (32 / kLanes) + lane() / kLanes;  // of eight
    const int of_block = 32 * warp() + 8 * slot + row;
    std::uint32_t left = contest.of_row(row);
    Winner winner = s.winner[of_block];
    while (any(left != 0)) {
      const int pick = lowest(left);
      const std::uint32_t firsts = shfl_idx(first, 4 * row + pick % 4);
      const std::uint32_t seconds = shfl_idx(second, 4 * row + pick % 4);
      const int group = static_cast<int>(pick < 4 ? firsts : seconds);
      const int code = code_of_candidate<P>(group, pick % 4, lane() % kLanes);
      if (left != 0 && code < half_norms.shape[0]) {
        winner.take(
            exact_key<P>(s.x[of_block], search.exact, code, dims, ldg(half_norms.data + code)),
            code);
      }
      left &= left - 1;
    }
    winner = best_of_lanes<kLanes>(winner);
    sync_warp();  // all have read the winner so far
    if (lane() % kLanes == 0) {
      s.winner[of_block] = winner;
    }
  }
  sync_warp();
}

/// Best groups of one slot of LaneRows: copied out, so that the code for four slots stands once.
struct Best {
  float of[3];
};
template <class P>
TESSERA_DEVICE Best best_of_slot(const LaneRows<P>& rows, int slot) {
  Best best{};
  TESSERA_UNROLL
  for (int i = 0; i < kSlots; ++i) {
    TESSERA_UNROLL
    for (int rank = 0; rank < 3; ++rank) {
      best.of[rank] = i == slot ? rows.best[i][rank] : best.of[rank];
    }
  }
  return best;
}

/// A row of a slot, as each of its four lanes sees it.
struct SlotRow {
  int of_block;
  Bounds bound;
  float top;   // coarse score
  bool known;  // its scores say something
};

// The bits of this lane's row.
TESSERA_DEVICE std::uint32_t of_quad(std::uint32_t lanes) { return lanes >> (lane() & 28) & 15U; }

// Candidates of a row that are refined at most. Predicted for 50,000 rows as far from 512 codes of
// 64 dimensions as these from each other: 7.39 us with one, 6.82 with two, 6.69 with three or four;
// for 1M rows, 2,048 codes, 32 dimensions: 283, 269, 269 and 271 us (kernels_vq_roofline_test).
constexpr int kRefined = 3;

/// What refined scores say of a row.
struct Verdict {
  bool decided;  // it has its winner
  int seen;      // so many of this lane's candidates are the best of the row
};

TESSERA_DEVICE float max_over_quad(float v) {
  v = max(v, shfl_xor(v, 1));
  return max(v, shfl_xor(v, 2));
}

TESSERA_DEVICE float of_rank(const float (&best)[3], int rank) {
  return rank == 0 ? best[0] : rank == 1 ? best[1] : best[2];
}

/// What refinement left of a row, for each of its four lanes.
struct Leaders {
  Refined found;
  int seen = 0;        // of this lane's candidates
  bool first = false;  // no other candidate can win
};

// Refines the row's best candidate and, as long as others can win against it, the next best.
template <class P>
TESSERA_DEVICE Leaders refine_best(const SearchSmem<P>& s, const Search& search, const SlotRow& row,
                                   const RowValues<P>& x, const float (&best)[3],
                                   std::uint32_t mask) {
  Leaders row_has;
  float next = row.top;        // score of the best that is not refined yet
  float least = -4 * kNoCode;  // that such can win with
  TESSERA_KEEP_ROLLED
  for (int i = 0; i < kRefined && any(row.known && next >= least); ++i) {
    const bool open = row.known && next >= least;
    const float mine = of_rank(best, row_has.seen);
    const int leader = lowest(of_quad(ballot(mine == next)));
    const auto group = static_cast<int>(
        shfl_idx(std::bit_cast<std::uint32_t>(mine) & mask, (lane() & 28) + leader));
    refine(s, search, x, group, leader, open, row_has.found);
    row_has.seen += open && lane() % 4 == leader ? 1 : 0;
    next = max_over_quad(of_rank(best, row_has.seen));
    least = max_over_quad(row_has.found.best) - 1.01F * (row.bound.coarse + row.bound.refined);
  }
  row_has.found = found_by_quad(row_has.found);
  row_has.first = row.known && next < least;
  return row_has;
}

// The winner of a row of which refined scores leave one code, or two between which f32 decides.
template <class P>
TESSERA_DEVICE Verdict decide_refined(SearchSmem<P>& s, const Search& search, const SlotRow& row,
                                      const RowValues<P>& x, const Leaders& leaders, int dims,
                                      View<const float, 1> half_norms) {
  const Refined& found = leaders.found;
  const float edge = found.best - 2.02F * row.bound.refined;
  const bool few = leaders.first && found.third < edge;
  const bool two = few && found.second >= edge;
  float lead = found.best - found.second;
  if (any(two)) {
    const float exact =
        lead_of(x, search.exact, found.code, found.second_code, two, dims, half_norms);
    lead = two ? exact : lead;
  }
  const bool decided = few && (!two || max(lead, -lead) > 2.02F * row.bound.full);
  if (decided && lane() % 4 == 0) {
    s.winner[row.of_block] = {0, lead > 0 ? found.code : found.second_code};
  }
  sync_warp();  // others read it
  return {decided, leaders.seen};
}

// Scores the best candidates of each row of a slot exactly. The others, and the list, then need no
// more than to be within one bound of that score. Returns whether this lane is the first of a row
// for which more than one candidate was scored, or any where one was refined.
template <class P>
TESSERA_DEVICE bool decide_exactly(SearchSmem<P>& s, const Search& search, const SlotRow& row,
                                   const float (&best)[3], int slot, std::int64_t first_row,
                                   std::uint32_t mask, View<const float, 2> x,
                                   View<const float, 1> half_norms, const Verdict& verdict) {
  const int dims = static_cast<int>(x.shape[1]);
  const bool there = first_row + row.of_block < x.shape[0];
  const bool undecided = row.known && !verdict.decided;
  const std::uint32_t leads = ballot(undecided && verdict.seen > 0);
  decide<P>(s, search, {leads, ballot(undecided && verdict.seen > 1)}, best, slot, mask, dims,
            half_norms);
  const std::int32_t key = s.winner[row.of_block].key;
  sync_warp();  // before the next winner
  const float edge = max(score_of(key), row.top - row.bound.coarse) - 1.01F * row.bound.coarse;
  const bool near = there && !verdict.decided && (!row.known || best[2] >= edge);
  const bool listed = of_quad(ballot(near)) != 0;
  if (listed && lane() % 4 == 0) {
    stg(search.list + atomic_add(search.counters + VqScratch::kScanned, 1U),
        static_cast<std::int32_t>(first_row + row.of_block));
  }
  const bool open = undecided && !listed;
  const std::uint32_t first = ballot(open && verdict.seen < 1 && best[0] >= edge);
  const Contest contest{first, ballot(open && verdict.seen < 2 && best[1] >= edge)};
  decide<P>(s, search, contest, best, slot, mask, dims, half_norms);
  return open && lane() % 4 == 0 && (P::kRefines || contest.of_row(lane() / 4) != 0);
}

// The winners of a slot's rows. Returns whether this lane has a row that was open for long, see
// decide_exactly.
template <class P>
TESSERA_DEVICE bool finish_slot(SearchSmem<P>& s, const Search& search, const float (&best)[3],
                                int slot, std::int64_t first_row, const Largest& largest,
                                std::uint32_t mask, View<const float, 2> x,
                                View<const float, 1> half_norms) {
  SlotRow row{};
  row.of_block = 32 * warp() + 8 * slot + lane() / 4;
  if (lane() % 4 == 0) {
    s.winner[row.of_block] = {};
  }
  sync_warp();
  const RowValues<P> values(s.x[row.of_block]);
  row.bound = bounds_of<P>(values.size(), largest, mask);
  row.top = max_over_quad(best[0]);
  const bool there = first_row + row.of_block < x.shape[0];
  row.known = there && row.bound.coarse < kHuge && row.top > -0.5F * kNoCode;
  Verdict verdict{false, best[0] == row.top ? 1 : 0};
  if constexpr (P::kRefines) {
    const Leaders leaders = refine_best(s, search, row, values, best, mask);
    verdict =
        decide_refined(s, search, row, values, leaders, static_cast<int>(x.shape[1]), half_norms);
  }
  if (all(verdict.decided || !there)) {
    return false;
  }
  return decide_exactly(s, search, row, best, slot, first_row, mask, x, half_norms, verdict);
}

// The last bits of a score that hold the number of its group.
template <class P>
TESSERA_DEVICE std::uint32_t group_mask(int parts) {
  std::uint32_t mask = 0;
  while (static_cast<int>(mask) < (parts - 1) / P::kGroup) {
    mask = 2 * mask + 1;
  }
  return mask;
}

template <class P>
TESSERA_GLOBAL void __launch_bounds__(kThreads, P::kWhole ? 1 : 2)
    nearest_kernel(View<const float, 2> x, View<const float, 1> half_norms, Search search,
                   View<std::int32_t, 1> codes) {
  TESSERA_SMEM(SearchSmem<P>, s);
  const std::int64_t first_row = static_cast<std::int64_t>(block_idx().x) * kRows;
  const int stages = search.stages(P::kStage);
  load_block_rows(s, x, first_row);
  cp_async_commit();
  load_stage(s, search, 0);
  cp_async_commit();
  if (stages > 1) {
    load_stage(s, search, 1);
  }
  cp_async_commit();
  const std::int64_t left = x.shape[0] - first_row - 32 * warp();
  const int fragments = left > 16 ? 2 : left > 0 ? 1 : 0;
  const std::uint32_t mask = group_mask<P>(search.parts);
  cp_async_wait<2>();
  sync_block();
  LaneRows<P> rows;
  take_rows(s, rows);
  for (int stage = 0; stage < stages; ++stage) {
    cp_async_wait<1>();
    sync_block();  // the stage is here, and the one before has been read
    if (stage + 2 < stages) {
      load_stage(s, search, stage + 2);
    }
    cp_async_commit();
    if (fragments == 2) {
      score_stage<P, 2>(s, stage, search.parts, mask, rows);
    } else if (fragments == 1) {
      score_stage<P, 1>(s, stage, search.parts, mask, rows);
    }
  }
  const Largest largest = largest_of(search);
  std::int32_t contested = 0;
  TESSERA_KEEP_ROLLED
  for (int slot = 0; slot < 2 * fragments; ++slot) {
    const Best best = best_of_slot(rows, slot);
    contested +=
        finish_slot(s, search, best.of, slot, first_row, largest, mask, x, half_norms) ? 1 : 0;
  }
  contested = reduce_add(contested);
  if (lane() == 0) {
    s.contested[warp()] = contested;
  }
  sync_block();
  if (first_row + linear_thread() < x.shape[0]) {
    stg(codes.data + first_row + linear_thread(), s.winner[linear_thread()].code);
  }
  if (linear_thread() == 0) {
    std::uint32_t all = 0;
    for (const std::int32_t each : s.contested) {
      all += static_cast<std::uint32_t>(each);
    }
    if (all > 0) {
      atomic_add(search.counters + VqScratch::kContested, all);
    }
  }
}

}  // namespace
}  // namespace tessera::TESSERA_GPU_NS
