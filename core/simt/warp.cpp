// Collectives of warps and barriers of blocks: who waits for whom, and what is wrong with it.
#include <algorithm>

#include "core/check.h"
#include "core/simt/launch_state.h"

namespace tessera::simt {

void Launch::collective(const char* name, std::uint32_t mask, void* operand, Combine combine,
                        bool orders, Where where) {
  Thread& t = *current_;
  t.where = where;
  const auto warp = static_cast<std::size_t>(t.place.warp);
  const auto lane = static_cast<std::size_t>(t.place.lane);
  Rendezvous& r = warps_[warp];
  if ((mask >> lane & 1U) == 0) {
    fail(fmt::format("{}: the member mask {:#010x} lacks the calling lane", name, mask));
  }
  for (std::size_t l = 0; l < 32; ++l) {
    if ((mask >> l & 1U) != 0 && threads_[warp * 32 + l].run == Run::done) {
      fail(fmt::format("{}: lane {} of the mask {:#010x} has exited", name, l, mask));
    }
  }
  if (r.arrived == 0) {
    r = Rendezvous{name, mask, 0, {}, where};
  } else if (std::string_view(r.name) != name || r.where.line() != where.line()) {
    fail(fmt::format("{} meets {} at {}:{}: lanes of a warp wait at different collectives", name,
                     r.name, r.where.file_name(), r.where.line()));
  } else if (r.mask != mask) {
    fail(fmt::format("{}: member masks differ, {:#010x} and {:#010x}", name, r.mask, mask));
  }
  r.arrived |= 1U << lane;
  r.operands[lane] = operand;
  if (r.arrived == r.mask) {
    complete(r, t.place.warp, combine, orders);
  } else {
    park(name, where);
  }
}

// The last lane is here: the operation runs once for the warp, then the others may go on.
void Launch::complete(Rendezvous& r, int warp, Combine combine, bool orders) {
  ++stats.collectives;
  if (combine != nullptr) {
    t_launch = nullptr;  // it reads the operands on other lanes' stacks, which no kernel may
    combine(r.operands.data(), r.mask);
    t_launch = this;
  }
  std::vector<int> members;
  for (int l = 0; l < 32; ++l) {
    if ((r.mask >> l & 1U) != 0) {
      members.push_back(warp * 32 + l);
    }
  }
  if (orders) {
    order_.meet(members);
  }
  if (schedule_.order == Order::reverse) {
    std::reverse(members.begin(), members.end());
  }
  r.arrived = 0;
  for (const int m : members) {
    if (m != current_->id) {
      make_ready(m);
    }
  }
}

void Launch::check_exit(const Thread& thread) {
  const Rendezvous& r = warps_[static_cast<std::size_t>(thread.place.warp)];
  if (r.arrived != 0 && (r.mask >> thread.place.lane & 1U) != 0) {
    fail(fmt::format("a lane exits while its warp waits for it at {} ({}:{})", r.name,
                     r.where.file_name(), r.where.line()));
  }
  const Barrier& whole = barriers_[0];
  if (whole.arrived != 0) {
    fail(fmt::format("a thread exits while others wait at sync_block ({}:{})",
                     whole.where.file_name(), whole.where.line()));
  }
}

BarrierResult Launch::barrier(int id, int threads, bool predicate, bool wait, Where where) {
  Thread& t = *current_;
  t.where = where;
  const bool whole = threads == 0;
  const int expected = whole ? block_threads_ : threads;
  if (id < 0 || id > 15 || expected % 32 != 0 || expected > block_threads_) {
    fail(fmt::format(
        "barrier {} over {} threads: expected id 0..15 and a multiple of 32 threads up to {}", id,
        expected, block_threads_));
  }
  if (whole && live_ != block_threads_) {
    fail(fmt::format("sync_block after {} threads have exited", block_threads_ - live_));
  }
  Barrier& b = barriers_[static_cast<std::size_t>(id)];
  if (b.arrived == 0) {
    b = Barrier{};
    b.expected = expected;
    b.where = where;
  } else if (b.expected != expected) {
    fail(fmt::format("barrier {}: thread counts differ, {} and {}", id, b.expected, expected));
  } else if (whole && b.where.line() != where.line()) {
    fail(fmt::format("sync_block inside a divergent branch: other threads wait at {}:{}",
                     b.where.file_name(), b.where.line()));
  }
  ++b.arrived;
  b.members.push_back(t.id);
  b.count += predicate ? 1 : 0;
  b.all = b.all && predicate;
  b.any = b.any || predicate;
  if (wait) {
    b.parked.push_back(t.id);
  }
  if (b.arrived == b.expected) {
    open_barrier(b, id);
  } else if (wait) {
    park(whole ? "sync_block" : "bar_sync", where);
  }
  return t.result;
}

void Launch::open_barrier(Barrier& b, int id) {
  ++stats.barriers;
  if (id == 0 && b.expected == block_threads_ && b.parked.size() == b.members.size()) {
    order_.barrier();
  } else {
    order_.meet(b.members, b.parked);
  }
  b.arrived = 0;
  if (schedule_.order == Order::reverse) {
    std::reverse(b.parked.begin(), b.parked.end());
  }
  for (const int p : b.parked) {
    threads_[static_cast<std::size_t>(p)].result = {b.count, b.all, b.any};
    if (p != current_->id) {
      make_ready(p);
    }
  }
}

}  // namespace tessera::simt
