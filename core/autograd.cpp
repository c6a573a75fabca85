#include "core/autograd.h"

#include <algorithm>
#include <atomic>
#include <map>

namespace tessera {

/// One recorded op.
struct Node {
  std::uint64_t number = 0;    // creation order
  std::vector<Tensor> inputs;  // handles on the producers' outputs and on leaves
  std::vector<Shape> output_shapes;
  Backward backward;
  bool freed = false;

  ~Node();
};

namespace {

thread_local bool grad_mode = true;
std::atomic<std::uint64_t> next_number{0};

// Long chains must not be destroyed recursively: a 10,000-op tape would overflow the stack.
thread_local std::vector<std::shared_ptr<Node>>* graveyard = nullptr;

bool needs_grad(const Tensor& t) { return t.defined() && t.requires_grad(); }

}  // namespace

Node::~Node() {
  std::vector<std::shared_ptr<Node>> local;
  const bool outermost = graveyard == nullptr;
  if (outermost) {
    graveyard = &local;
  }
  for (Tensor& t : inputs) {
    if (t.defined() && t.impl().use_count() == 1 && t.impl()->node) {
      graveyard->push_back(std::move(t.impl()->node));
    }
  }
  inputs.clear();
  if (outermost) {
    while (!local.empty()) {
      const std::shared_ptr<Node> last = std::move(local.back());
      local.pop_back();
    }
    graveyard = nullptr;
  }
}

bool grad_enabled() { return grad_mode; }
NoGrad::NoGrad() : previous_(grad_mode) { grad_mode = false; }
NoGrad::~NoGrad() { grad_mode = previous_; }

Saved::Saved(const Tensor& tensor)
    : tensor_(tensor.defined() ? tensor.detach() : Tensor()),
      version_(tensor.defined() ? tensor.version() : 0) {}

const Tensor& Saved::get() const {
  TESSERA_CHECK_KIND(ErrorKind::internal, !tensor_.defined() || tensor_.version() == version_,
                     "backward: a saved tensor {} was written to after the forward pass",
                     tensor_.shape());
  return tensor_;
}

std::vector<Tensor> differentiable(std::vector<Tensor> outputs, std::vector<Tensor> inputs,
                                   Backward backward) {
  if (!grad_mode || std::ranges::none_of(inputs, needs_grad)) {
    return outputs;
  }
  auto node = std::make_shared<Node>();
  node->number = next_number++;
  node->backward = std::move(backward);
  node->inputs = std::move(inputs);
  for (Tensor& t : node->inputs) {
    if (!needs_grad(t)) {
      t = Tensor();
    }
  }
  node->output_shapes.reserve(outputs.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    node->output_shapes.push_back(outputs[i].defined() ? outputs[i].shape() : Shape());
    if (!outputs[i].defined()) {
      continue;
    }
    if (outputs[i].impl()->node || outputs[i].impl().use_count() > 1) {
      outputs[i] =
          outputs[i]
              .detach();  // an op that returns its input or a saved tensor gets a fresh handle
    }
    outputs[i].impl()->node = node;
    outputs[i].impl()->output = static_cast<int>(i);
    outputs[i].impl()->requires_grad = true;
  }
  return outputs;
}

Tensor differentiable(Tensor output, std::vector<Tensor> inputs, Backward backward) {
  std::vector<Tensor> outputs;
  outputs.push_back(std::move(output));
  return differentiable(std::move(outputs), std::move(inputs), std::move(backward))[0];
}

namespace {

/// Gradients waiting for a node, one slot per output.
struct Pending {
  std::shared_ptr<Node> node;
  std::vector<Tensor> grads;
};

// Whether nobody else can see what is written to t.
bool sole_handle(const Tensor& t) {
  return t.impl().use_count() == 1 && t.impl()->storage.use_count() == 1;
}

// The first contribution is kept as it came. Later ones are added to it in place, or to a copy
// where others hold it too: an upstream gradient that went on to several inputs, or a saved tensor.
void add_to(Tensor& slot, const Tensor& g) {
  if (!slot.defined()) {
    slot = g;
    return;
  }
  if (!sole_handle(slot)) {
    slot = slot.clone();
  }
  accumulate(slot, g);
}

void add_to_leaf(const Tensor& leaf, const Tensor& g) {
  TESSERA_CHECK_KIND(ErrorKind::internal, g.shape() == leaf.shape(),
                     "backward: gradient {} does not match its leaf {}", g.shape(), leaf.shape());
  if (leaf.grad().defined()) {
    accumulate(leaf.grad(), g);
  } else {
    const NoArena heap;
    leaf.set_grad(g.clone());
  }
}

class Tape {
 public:
  void add(const Tensor& t, const Tensor& g) {
    const auto& impl = *t.impl();
    TESSERA_CHECK_KIND(ErrorKind::internal, g.dtype() == t.dtype(),
                       "backward: a gradient of {} for a tensor of {}", name(g.dtype()),
                       name(t.dtype()));
    TESSERA_CHECK_KIND(ErrorKind::internal, g.device() == t.device(),
                       "backward: a gradient on {} for a tensor on {}", name(g.device()),
                       name(t.device()));
    if (!impl.node) {
      add_to_leaf(t, g);
      return;
    }
    Pending& p = pending_[impl.node->number];
    if (!p.node) {
      p.node = impl.node;
      p.grads.resize(impl.node->output_shapes.size());
    }
    add_to(p.grads[static_cast<std::size_t>(impl.output)], g);
  }
  bool empty() const { return pending_.empty(); }
  Pending take_last() {
    auto last = std::prev(pending_.end());
    Pending p = std::move(last->second);
    pending_.erase(last);
    return p;
  }

 private:
  std::map<std::uint64_t, Pending> pending_;
};

void run_node(Pending p, Tape& tape) {
  Node& node = *p.node;
  TESSERA_CHECK(!node.freed, "backward: this tape was freed by an earlier backward");
  const std::vector<Tensor> grads = node.backward(p.grads);
  TESSERA_CHECK_KIND(ErrorKind::internal, grads.size() == node.inputs.size(),
                     "backward: an op returned {} gradients for {} inputs", grads.size(),
                     node.inputs.size());
  node.backward = nullptr;  // frees what the closure saved
  node.freed = true;
  const std::vector<Tensor> inputs = std::move(node.inputs);
  node.inputs.clear();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].defined() && grads[i].defined()) {
      tape.add(inputs[i], grads[i]);
    }
  }
}

}  // namespace

void backward(const Tensor& loss) {
  TESSERA_CHECK(loss.defined() && loss.size() == 1, "backward: the loss must have one element");
  TESSERA_CHECK(loss.requires_grad(),
                "backward: the loss depends on no tensor that requires a gradient");
  const NoGrad off;
  Tape tape;
  tape.add(loss, Tensor::full(loss.shape(), 1.0F, loss.dtype(), loss.device()));
  while (!tape.empty()) {
    run_node(tape.take_last(), tape);
  }
}

}  // namespace tessera
