#include "apps/run_config.h"

#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>

#include "core/check.h"

namespace tessera::apps {
namespace {

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row.back();
}

Field& find(std::vector<Field>& all, const std::string& key, const std::string& where) {
  const auto found = std::ranges::find(all, key, &Field::key);
  if (found != all.end()) {
    return *found;
  }
  const auto nearest =
      std::ranges::min_element(all, {}, [&](const Field& f) { return edit_distance(f.key, key); });
  TESSERA_FAIL(ErrorKind::usage, "{}unknown key '{}'; did you mean '{}'?", where, key,
               nearest->key);
}

template <class T>
T parse_number(const std::string& text, const Field& field, const std::string& where) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  TESSERA_CHECK(error == std::errc() && end == text.data() + text.size(),
                "{}{}: expected {}, got '{}'", where, field.key,
                std::is_integral_v<T> ? "an integer" : "a number", text);
  const auto x = static_cast<double>(value);
  TESSERA_CHECK(x >= field.low && x <= field.high, "{}{}: expected {} to {}, got {}", where,
                field.key, field.low, field.high, text);
  return value;
}

void set(Field& field, const std::string& text, const std::string& where) {
  if (auto** i = std::get_if<std::int64_t*>(&field.target)) {
    **i = parse_number<std::int64_t>(text, field, where);
  } else if (auto** x = std::get_if<float*>(&field.target)) {
    **x = parse_number<float>(text, field, where);
  } else {
    *std::get<std::string*>(field.target) = text;
  }
}

std::string value_text(const Field& field) {
  if (const auto* const* i = std::get_if<std::int64_t*>(&field.target)) {
    return fmt::format("{}", **i);
  }
  if (const auto* const* x = std::get_if<float*>(&field.target)) {
    return fmt::format("{:#}", **x);
  }
  return fmt::format("\"{}\"", *std::get<std::string*>(field.target));
}

std::string text_of(const toml::node& node) {
  if (const auto* s = node.as_string()) {
    return s->get();
  }
  std::ostringstream out;
  node.visit([&](const auto& n) { out << n; });
  return out.str();
}

}  // namespace

std::vector<Field> fields(RunConfig& c) {
  return {
      {"run.directory", &c.run, 0, 0, "Directory of everything that the run writes"},
      {"run.seed", &c.seed, 0, 1e9, "First seed; seed k of a study is run.seed + k"},
      {"run.threads", &c.threads, 0, 256, "Threads; 0 = all cores at hand"},
      {"data.jets", &c.jets, 0, 0, "Dataset of ten-class jets"},
      {"data.taus", &c.taus, 0, 0, "Dataset of tau and quark jets"},
      {"tokenizer.width", &c.tokenizer_width, 4, 1024, "Hidden width"},
      {"tokenizer.blocks", &c.tokenizer_blocks, 1, 32, "Blocks of the encoder, and of the decoder"},
      {"tokenizer.heads", &c.tokenizer_heads, 1, 64, "Attention heads"},
      {"tokenizer.mlp_factor", &c.tokenizer_mlp_factor, 1, 8,
       "Hidden width of the MLP over the width"},
      {"tokenizer.codes", &c.codes, 2, 65536, "Codebook size K"},
      {"tokenizer.latent", &c.latent, 1, 256, "Width of a code"},
      {"tokenizer.steps", &c.tokenizer_steps, 1, 1e8, "Optimizer steps"},
      {"tokenizer.batch", &c.tokenizer_batch, 1, 65536, "Jets in a batch"},
      {"tokenizer.lr", &c.tokenizer_lr, 0, 1, "Peak learning rate"},
      {"backbone.width", &c.width, 4, 4096, "Model width d"},
      {"backbone.blocks", &c.blocks, 1, 96, "Transformer blocks"},
      {"backbone.heads", &c.heads, 1, 64, "Attention heads"},
      {"backbone.registers", &c.registers, 0, 64, "Learned vectors in front of each jet"},
      {"pretrain.max_particles", &c.max_particles, 1, 4096,
       "Particles kept of a jet, by falling pT"},
      {"pretrain.mask_fraction", &c.mask_fraction, 0, 1,
       "Share of particles hidden in the masked stream"},
      {"pretrain.steps", &c.pretrain_steps, 1, 1e9, "Optimizer steps"},
      {"pretrain.batch", &c.pretrain_batch, 1, 65536, "Jets in a batch"},
      {"pretrain.lr", &c.pretrain_lr, 0, 1, "Peak learning rate"},
      {"finetune.tasks", &c.tasks, 0, 0, "Tasks, comma separated: tau-pt, tau-id, tau-dm, tag"},
      {"finetune.seeds", &c.seeds, 1, 100, "Seeds of each task and strategy"},
      {"finetune.train_jets", &c.train_jets, 10, 1e9, "Labelled jets of each task"},
      {"finetune.steps", &c.finetune_steps, 1, 1e9, "Optimizer steps, the same for every strategy"},
      {"finetune.batch", &c.finetune_batch, 1, 65536, "Jets in a batch"},
      {"finetune.lr", &c.finetune_lr, 0, 1,
       "Peak learning rate of heads and of models from scratch"},
      {"finetune.backbone_lr", &c.backbone_lr, 0, 10,
       "Learning rate of a pre-trained backbone over the head's"},
  };
}

void apply_override(RunConfig& config, const std::string& text) {
  const auto at = text.find('=');
  TESSERA_CHECK(at != std::string::npos, "configuration: expected key=value, got '{}'", text);
  std::vector<Field> all = fields(config);
  set(find(all, text.substr(0, at), ""), text.substr(at + 1), "");
}

void read_config(RunConfig& config, const std::string& path) {
  TESSERA_CHECK_KIND(ErrorKind::missing, std::ifstream(path).good(),
                     "{}: no such configuration file", path);
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& e) {
    TESSERA_FAIL(ErrorKind::usage, "{}:{}:{}: {}", path, e.source().begin.line,
                 e.source().begin.column, std::string(e.description()));
  }
  std::vector<Field> all = fields(config);
  for (const auto& [section, node] : table) {
    const auto place = [&](const toml::node& n) {
      return fmt::format("{}:{}:{}: ", path, n.source().begin.line, n.source().begin.column);
    };
    TESSERA_CHECK(node.is_table(), "{}expected a [section], got key '{}'", place(node),
                  std::string(section.str()));
    for (const auto& [key, value] : *node.as_table()) {
      const std::string name =
          fmt::format("{}.{}", std::string(section.str()), std::string(key.str()));
      set(find(all, name, place(value)), text_of(value), place(value));
    }
  }
}

std::string to_toml(RunConfig config) {
  std::string text, section;
  for (const Field& f : fields(config)) {
    const auto dot = f.key.find('.');
    if (f.key.substr(0, dot) != section) {
      section = f.key.substr(0, dot);
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    }
    text += fmt::format("{} = {}  # {}\n", f.key.substr(dot + 1), value_text(f), f.help);
  }
  return text;
}

}  // namespace tessera::apps
