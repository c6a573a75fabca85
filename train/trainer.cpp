#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "core/autograd.h"
#include "train/schedule.h"

namespace tessera {
namespace {

std::vector<NamedTensor> all_parameters(const std::vector<ParameterGroup>& groups) {
  std::vector<NamedTensor> all;
  for (const ParameterGroup& g : groups) {
    all.insert(all.end(), g.parameters.begin(), g.parameters.end());
  }
  return all;
}

// Decay belongs to the matrices of linear layers.
bool decays(const NamedTensor& p) {
  const bool table = p.name.find("embed.pid") != std::string::npos ||
                     p.name.find("embed.token") != std::string::npos;
  return p.tensor.rank() == 2 && p.name.ends_with("weight") && !table;
}

// What a step leaves on its device: AdamW's report, then the loss, then what was watched.
constexpr std::int64_t kLossSlot = AdamWReport::count;
constexpr std::int64_t kBoardSlots = kLossSlot + 1 + std::int64_t{Trainer::kWatched};

std::vector<float> clean_board() {
  std::vector<float> board = AdamWOnDevice::clean_report();
  board.resize(kBoardSlots);
  return board;
}

bool graphs_wanted() {
  const char* asked = std::getenv("TESSERA_GRAPH");
  return asked == nullptr || std::string_view(asked) != "off";
}

double scheduled_rate(const TrainerConfig& c, std::int64_t step) {
  const double lr = static_cast<double>(c.lr);
  const std::int64_t warmup = c.warmup < 0 ? c.steps / 20 : c.warmup;
  return learning_rate({.kind = c.schedule,
                        .lr = lr,
                        .total_steps = static_cast<std::uint64_t>(c.steps),
                        .warmup_steps = static_cast<std::uint64_t>(warmup),
                        .final_lr = lr * static_cast<double>(c.final_lr_fraction),
                        .steps_per_epoch = static_cast<std::uint64_t>(c.epoch_steps)},
                       static_cast<std::uint64_t>(step));
}

}  // namespace

Trainer::Trainer(const std::vector<ParameterGroup>& groups, const TrainerConfig& config)
    : config_(config), flat_(all_parameters(groups)), use_graphs_(graphs_wanted()) {
  for (const ParameterGroup& g : groups) {
    lr_scale_.insert(lr_scale_.end(), g.parameters.size(), g.lr_scale);
  }
  const Device device = flat_.values.device();
  m_ = Tensor::zeros(flat_.values.shape(), DType::f32, device);
  v_ = Tensor::zeros(flat_.values.shape(), DType::f32, device);
  if (device != kCpu) {
    adamw_.emplace(spans(), device);
    board_ = Tensor::from(clean_board(), {kBoardSlots}, device);
    for (auto& read : reads_) {
      read.emplace(device, kBoardSlots);
    }
  }
}

std::vector<AdamWSpan> Trainer::spans() const {
  const bool all = config_.decay == Decay::everything;
  std::vector<AdamWSpan> spans;
  for (std::size_t i = 0; i < flat_.parameters.size(); ++i) {
    const std::int64_t begin = flat_.offsets[i];
    spans.push_back({.begin = begin,
                     .end = begin + flat_.parameters[i].tensor.size(),
                     .lr_scale = lr_scale_[i],
                     .weight_decay_scale = all || decays(flat_.parameters[i]) ? 1.0F : 0.0F});
  }
  return spans;
}

// The name of the first parameter whose gradient holds a NaN or an infinity; empty if none does.
std::string Trainer::non_finite_gradient() const {
  for (const NamedTensor& p : flat_.parameters) {
    const auto g = p.tensor.grad().to_vector<float>();
    if (!std::ranges::all_of(g, [](float x) { return std::isfinite(x); })) {
      return p.name;
    }
  }
  return "";
}

std::string Trainer::owner_of(std::int64_t element) const {
  const auto after = std::ranges::upper_bound(flat_.offsets, element);
  return flat_.parameters[static_cast<std::size_t>(after - flat_.offsets.begin()) - 1].name;
}

void Trainer::fail_loss(float loss) const {
  TESSERA_FAIL(ErrorKind::numeric, "training: the loss is {} at step {}", loss, done_);
}

void Trainer::fail_gradient(const std::string& name) const {
  TESSERA_FAIL(ErrorKind::numeric,
               "training: the gradient of '{}' is not finite at step {}; weights unchanged", name,
               done_);
}

AdamWOptions Trainer::options() const {
  return {.lr = static_cast<float>(adamw_ ? making_.lr : last_.lr),
          .beta2 = config_.beta2,
          .weight_decay = config_.weight_decay,
          .clip_norm = config_.clip_norm,
          .step = done_ - skipped_ + 1};
}

float Trainer::step(const std::function<Tensor()>& loss) {
  queue(loss);
  while (in_flight() > 0) {
    settle();
  }
  return static_cast<float>(last_.watched.front().value);
}

void Trainer::queue(const std::function<Tensor()>& loss) {
  TESSERA_CHECK_KIND(ErrorKind::internal, in_flight() < kInFlight,
                     "training: expected fewer than {} steps in flight", kInFlight);
  making() = {.step = done_, .lr = scheduled_rate(config_, done_)};
  if (adamw_) {
    queue_on_device(loss);
    in_flight_.push_back(making_);
  } else {
    step_on_cpu(loss);
  }
  ++done_;
}

void Trainer::settle() {
  if (in_flight_.empty()) {
    return;
  }
  last_ = std::move(in_flight_.front());
  in_flight_.pop_front();
  read_board(readback(last_.step).get());
}

void Trainer::skip_step() {
  ++done_;
  ++skipped_;
  last_.norm = NAN;
  for (Metric& m : last_.watched) {
    m.value = NAN;
  }
}

void Trainer::watch(const char* name, const Tensor& scalar) {
  Metrics& watched = making().watched;
  TESSERA_CHECK(watched.size() <= kWatched, "training: {} is one number too many to watch", name);
  const auto slot = kLossSlot + std::ssize(watched);
  watched.push_back({name, NAN});
  if (adamw_) {
    copy_into(board_.slice(0, slot, slot + 1), scalar.detach().reshape({1}));
  } else {
    watched.back().value = static_cast<double>(scalar.item());
  }
}

void Trainer::step_on_cpu(const std::function<Tensor()>& loss_function) {
  flat_.zero_gradients();
  {
    const ArenaScope scope(arena_);
    const Tensor loss = loss_function();
    const float loss_value = loss.item();
    last_.watched[0].value = static_cast<double>(loss_value);
    if (!std::isfinite(loss_value)) {
      fail_loss(loss_value);
    }
    backward(loss);
  }
  arena_.reset();
  try {
    last_.norm = adamw_step(flat_.values, flat_.gradients, m_, v_, spans(), options());
  } catch (const Error&) {
    const std::string name = non_finite_gradient();
    if (!name.empty()) {
      fail_gradient(name);
    }
    throw;
  }
}

// Nothing is known of the step while it is queued: a loss or gradient that is not finite makes its
// update do nothing, and those of later steps until the board is clean again.
void Trainer::queue_on_device(const std::function<Tensor()>& loss_function) {
  const auto compute = [&] { compute_on_device(loss_function); };
  // Modules and libraries that load at their first use may wait for the device, which a recording
  // forbids.
  const bool first = !std::exchange(has_queued_, true);
  GraphQueue* graphs = first ? nullptr : graph_queue();
  if (graphs != nullptr) {
    graphs->run(compute);
  } else {
    compute();
  }
  readback(making_.step).start(board_);
}

// For the current stream; null where steps are not recorded. The default stream cannot be.
GraphQueue* Trainer::graph_queue() {
  const Device device = flat_.values.device();
  const Stream stream = current_stream(device);
  if (!use_graphs_ || stream == Stream{}) {
    return nullptr;
  }
  if (!graphs_ || graphs_->stream() != stream) {
    graphs_.emplace(device, stream);
  }
  return &*graphs_;
}

GraphQueue::Counts Trainer::graphs() const {
  return graphs_ ? graphs_->counts() : GraphQueue::Counts{};
}

void Trainer::compute_on_device(const std::function<Tensor()>& loss_function) {
  flat_.zero_gradients();
  adamw_->set_rates(options());
  {
    const ArenaScope scope(arena_);  // what the host keeps beside the device's tensors
    const Tensor loss = loss_function();
    copy_into(board_.slice(0, kLossSlot, kLossSlot + 1), loss.detach().reshape({1}));
    backward(loss);
  }
  arena_.reset();
  adamw_->step(buffers(), options(), board_.slice(0, kLossSlot, kLossSlot + 1),
               board_.slice(0, 0, AdamWReport::count));
}

void Trainer::read_board(std::span<const float> board) {
  const AdamWVerdict verdict = adamw_verdict(board.first(AdamWReport::count));
  last_.norm = verdict.norm;
  for (std::size_t i = 0; i < last_.watched.size(); ++i) {
    last_.watched[i].value = static_cast<double>(board[kLossSlot + i]);
  }
  if (verdict.good()) {
    return;
  }
  in_flight_.clear();
  done_ = last_.step;
  copy_into(board_, Tensor::from(clean_board(), board_.shape()));
  if (!verdict.loss_finite) {
    fail_loss(board[kLossSlot]);
  }
  fail_gradient(owner_of(verdict.first_bad));
}

void Trainer::forget(const Tensor& parameter, std::span<const std::int64_t> rows) {
  const auto found = std::ranges::find_if(
      flat_.parameters, [&](const NamedTensor& p) { return p.tensor.impl() == parameter.impl(); });
  TESSERA_CHECK(found != flat_.parameters.end(),
                "optimizer: expected a parameter that it trains, got a tensor of shape {}",
                parameter.shape());
  const std::int64_t begin =
      flat_.offsets[static_cast<std::size_t>(found - flat_.parameters.begin())];
  const std::int64_t width = parameter.size() / parameter.shape(0);
  for (const std::int64_t row : rows) {
    const std::int64_t first = begin + row * width;
    fill(m_.slice(0, first, first + width), 0.0F);
    fill(v_.slice(0, first, first + width), 0.0F);
  }
}

std::vector<NamedTensor> Trainer::optimizer_state() const {
  return {{"adamw.m", m_}, {"adamw.v", v_}};
}

void Trainer::load_optimizer_state(const std::vector<NamedTensor>& state, std::int64_t steps_done,
                                   std::int64_t skipped) {
  for (const auto& [name, target] : optimizer_state()) {
    const auto found = std::ranges::find(state, name, &NamedTensor::name);
    TESSERA_CHECK_KIND(
        ErrorKind::data, found != state.end() && found->tensor.shape() == target.shape(),
        "optimizer: expected {} of shape {}, the checkpoint holds another", name, target.shape());
    copy_into(target, found->tensor);
  }
  done_ = steps_done;
  skipped_ = skipped;
}

Rng dropout_of(std::uint64_t seed, const Trainer& trainer) {
  return Rng(seed).fork("dropout").fork(static_cast<std::uint64_t>(trainer.steps_done()));
}

}  // namespace tessera
