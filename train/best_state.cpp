#include "train/best_state.h"

#include <algorithm>
#include <cstdlib>

namespace tessera {

void Selection::check() const {
  TESSERA_CHECK(patience == 0 || evaluations > 0,
                "patience: {} evaluations without a better one need evaluations > 0, got {}",
                patience, evaluations);
}

bool Selection::due(const TrainingRun& run) const {
  if (evaluations == 0) {
    return false;
  }
  const std::int64_t every = std::max<std::int64_t>(1, run.steps() / evaluations);
  return run.steps_done() % every == 0 || run.finished();
}

BestState::BestState(std::vector<NamedTensor> state, const TrainingRun& run)
    : state_(std::move(state)) {
  for (const auto& [name, tensor] : state_) {
    copies_.push_back({"best." + name, tensor.detach().clone()});
  }
  if (const auto found = run.texts().find("best.loss"); found != run.texts().end()) {
    loss_ = std::strtod(found->second.c_str(), nullptr);  // hex float: exact
    stale_ = count_in(run.texts(), "best.stale");
    copy_state(run.tensors(), copies_);
    check_finite(tensor_map(copies_), ErrorKind::data, "checkpoint");
  }
}

void BestState::offer(double loss) {
  ++stale_;
  if (loss < loss_) {
    loss_ = loss;
    stale_ = 0;
    for (std::size_t i = 0; i < state_.size(); ++i) {
      copy_into(copies_[i].tensor, state_[i].tensor);
    }
  }
}

void BestState::restore() const {
  for (std::size_t i = 0; i < state_.size(); ++i) {
    copy_into(state_[i].tensor, copies_[i].tensor);
  }
}

void BestState::save(Checkpoint& c) const {
  c.state["best.loss"] = fmt::format("{:a}", loss_);
  c.state["best.stale"] = std::to_string(stale_);
  for (const auto& [name, tensor] : copies_) {
    c.optimizer[name] = tensor;
  }
}

}  // namespace tessera
