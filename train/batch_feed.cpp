#include "train/batch_feed.h"

#include <utility>

namespace tessera {

BatchFeed::BatchFeed(FeedConfig config, BatchSource source)
    : config_(std::move(config)), source_(std::move(source)) {
  if (config_.device != kCpu) {
    copies_.emplace(config_.device);
    arrived_.emplace(config_.device);
  }
}

Batch BatchFeed::sent(std::int64_t step) {
  Batch batch = source_.next(step);
  const StreamGuard copying(*copies_);
  send_tables(batch, config_.tables, config_.device);
  arrived_->record(*copies_);
  return batch;
}

Batch BatchFeed::next(std::int64_t step) {
  if (!copies_) {
    return source_.next(step);
  }
  Batch batch = ahead_ ? std::move(*ahead_) : sent(step);
  ahead_.reset();
  arrived_->wait(current_stream(config_.device));
  if (step + 1 < config_.steps) {
    before_ahead_ = source_.cursors();
    ahead_ = sent(step + 1);
  }
  return batch;
}

std::vector<Cursor> BatchFeed::cursors() const {
  return ahead_ ? before_ahead_ : source_.cursors();
}

}  // namespace tessera
