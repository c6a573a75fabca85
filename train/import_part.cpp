// Weaver's Particle Transformer into ours: the order of its features and, of older versions, of the
// channels behind its attention.
#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "core/check.h"
#include "train/import_weights.h"

namespace tessera {
namespace {

constexpr ImportRule kRules[] = {
    {"embed.input_bn.num_batches_tracked", ""},
    {"embed.input_bn.*", "part.embed.bn.*"},
    {"embed.embed.0.*", "part.embed.0.norm.*"},
    {"embed.embed.1.*", "part.embed.0.fc.*"},
    {"embed.embed.3.*", "part.embed.1.norm.*"},
    {"embed.embed.4.*", "part.embed.1.fc.*"},
    {"embed.embed.6.*", "part.embed.2.norm.*"},
    {"embed.embed.7.*", "part.embed.2.fc.*"},
    {"pair_embed.embed.#.num_batches_tracked", ""},
    {"pair_embed.embed.0.*", "part.pair.bn.*"},
    {"pair_embed.embed.1.*", "part.pair.0.conv.*"},
    {"pair_embed.embed.2.*", "part.pair.0.bn.*"},
    {"pair_embed.embed.4.*", "part.pair.1.conv.*"},
    {"pair_embed.embed.5.*", "part.pair.1.bn.*"},
    {"pair_embed.embed.7.*", "part.pair.2.conv.*"},
    {"pair_embed.embed.8.*", "part.pair.2.bn.*"},
    {"pair_embed.embed.10.*", "part.pair.3.conv.*"},
    {"pair_embed.embed.11.*", "part.pair.3.bn.*"},
    {"blocks.#.pre_attn_norm.*", "part.block.#.norm1.*"},
    {"blocks.#.attn.in_proj_*", "part.block.#.attn.qkv.*"},
    {"blocks.#.attn.out_proj.*", "part.block.#.attn.out.*"},
    {"blocks.#.post_attn_norm.*", "part.block.#.post_norm.*"},
    {"blocks.#.pre_fc_norm.*", "part.block.#.norm2.*"},
    {"blocks.#.fc1.*", "part.block.#.fc1.*"},
    {"blocks.#.post_fc_norm.*", "part.block.#.fc_norm.*"},
    {"blocks.#.fc2.*", "part.block.#.fc2.*"},
    {"blocks.#.c_attn", "part.block.#.c_attn"},
    {"blocks.#.w_resid", "part.block.#.w_resid"},
    {"cls_blocks.#.pre_attn_norm.*", "part.cls_block.#.norm1.*"},
    {"cls_blocks.#.attn.in_proj_*", "part.cls_block.#.attn.qkv.*"},
    {"cls_blocks.#.attn.out_proj.*", "part.cls_block.#.attn.out.*"},
    {"cls_blocks.#.post_attn_norm.*", "part.cls_block.#.post_norm.*"},
    {"cls_blocks.#.pre_fc_norm.*", "part.cls_block.#.norm2.*"},
    {"cls_blocks.#.fc1.*", "part.cls_block.#.fc1.*"},
    {"cls_blocks.#.post_fc_norm.*", "part.cls_block.#.fc_norm.*"},
    {"cls_blocks.#.fc2.*", "part.cls_block.#.fc2.*"},
    {"cls_blocks.#.c_attn", "part.cls_block.#.c_attn"},
    {"cls_blocks.#.w_resid", "part.cls_block.#.w_resid"},
    {"cls_token", "part.cls"},
    {"norm.*", "part.norm.*"},
    {"fc.0.*", "part.fc.*"},
};

// Which of their features is each of ours. Theirs, by JetClass_kinpid.yaml: log pt, log e, log of
// both relative to the jet, delta r, charge, charged hadron, neutral hadron, photon, electron,
// muon, delta eta, delta phi.
constexpr std::array<std::int64_t, 13> kTheirFeature{11, 12, 0, 1, 2, 3, 4, 5, 9, 10, 8, 6, 7};

/// The same tensor with the entries of `axis` in another order: entry i is entry order[i] of t.
Tensor reordered(const Tensor& t, int axis, std::span<const std::int64_t> order) {
  const Tensor from = t.to(DType::f32);
  const Tensor to = Tensor::empty(from.shape());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    copy_into(to.slice(axis, at, at + 1), from.slice(axis, order[i], order[i] + 1));
  }
  return to;
}

std::string without_wrapper(const std::string& name) {
  constexpr std::string_view kWrapper = "mod.";
  return name.starts_with(kWrapper) ? name.substr(kWrapper.size()) : name;
}

// Those of the normalisation of the inputs, and of the first layer behind it.
bool over_features(const std::string& name) {
  return (name.starts_with("embed.input_bn.") && !name.ends_with("num_batches_tracked")) ||
         name.starts_with("embed.embed.0.") || name == "embed.embed.1.weight";
}

/// The attention of one block as it is read: its tensors must be there and fit each other.
struct Attention {
  Tensor &weight, &bias, &scales;  // (d, d), (d), (H)

  Attention(TensorMap& map, const std::string& block, const std::string& file)
      : weight(map.at(block + "attn.out_proj.weight")),
        bias(map.at(block + "attn.out_proj.bias")),
        scales(map.at(block + "c_attn")) {
    const bool fits = weight.rank() == 2 && scales.rank() == 1 && scales.size() > 0 &&
                      weight.shape(0) % scales.size() == 0 &&
                      bias.shape() == Shape{weight.shape(0)};
    TESSERA_CHECK_KIND(
        ErrorKind::data, fits,
        "{}: '{}c_attn' has shape {}, which does not divide the rows of out_proj, {}", file, block,
        scales.shape(), weight.shape());
  }

  // Row h (d / H) + k, scaled by c_attn[h], becomes row k H + h; what is left of c_attn is 1.
  void move_heads_out() {
    const std::int64_t heads = scales.size(), width = weight.shape(0) / heads;
    const std::vector<float> c = scales.to(DType::f32).to_vector<float>();
    std::vector<std::int64_t> order;
    std::vector<float> factor;
    for (std::int64_t row = 0; row < weight.shape(0); ++row) {
      order.push_back(row % heads * width + row / heads);
      factor.push_back(c[static_cast<std::size_t>(row % heads)]);
    }
    weight = reordered(weight, 0, order);
    bias = reordered(bias, 0, order);
    const auto w = weight.span<float>(), b = bias.span<float>();
    const std::size_t columns = w.size() / factor.size();
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] *= factor[i / columns];
    }
    for (std::size_t i = 0; i < b.size(); ++i) {
      b[i] *= factor[i];
    }
    scales = Tensor::full(scales.shape(), 1.0F);
  }
};

constexpr std::string_view kScales = "c_attn";

// In front of the name of each block's tensors, such as "cls_blocks.1."; a block that lacks one of
// those that are moved is left to the rules, which name what is missing.
std::vector<std::string> blocks_of(const TensorMap& map) {
  std::vector<std::string> blocks;
  for (const auto& [name, tensor] : map) {
    if (name.ends_with(kScales)) {
      const std::string block = name.substr(0, name.size() - kScales.size());
      if (map.contains(block + "attn.out_proj.weight") &&
          map.contains(block + "attn.out_proj.bias")) {
        blocks.push_back(block);
      }
    }
  }
  return blocks;
}

}  // namespace

std::span<const ImportRule> weaver_part_rules() { return kRules; }

WeaverLayout weaver_layout(const std::string& version) {
  int major = 0, minor = 0;
  const char* end = version.data() + version.size();
  const auto first = std::from_chars(version.data(), end, major);
  const bool dotted = first.ec == std::errc() && first.ptr != end && *first.ptr == '.';
  const auto second = dotted ? std::from_chars(first.ptr + 1, end, minor) : first;
  TESSERA_CHECK(dotted && second.ec == std::errc() && major >= 0 && minor >= 0,
                "weaver: expected a version such as 0.4 or 0.5.1, got '{}'", version);
  return major == 0 && minor < 5 ? WeaverLayout::heads_inner : WeaverLayout::heads_outer;
}

TensorMap weaver_part(const TensorMap& theirs, WeaverLayout layout, const std::string& file) {
  TensorMap map;
  for (const auto& [name, tensor] : theirs) {
    const std::string ours = without_wrapper(name);
    const bool features = over_features(ours);
    TESSERA_CHECK_KIND(
        ErrorKind::data,
        !features || (tensor.rank() > 0 && tensor.shape(-1) == std::ssize(kTheirFeature)),
        "{}: '{}': expected the {} features of JetClass_kinpid, got shape {}", file, name,
        kTheirFeature.size(), tensor.shape());
    map[ours] = features ? reordered(tensor, tensor.rank() - 1, kTheirFeature) : tensor;
  }
  if (layout == WeaverLayout::heads_inner) {
    for (const std::string& block : blocks_of(map)) {
      Attention(map, block, file).move_heads_out();
    }
  }
  return map;
}

}  // namespace tessera
