// Run configurations: one table of fields per struct feeds the TOML reader, dotted overrides, help
// and the dump.
//
//   Schema<RunConfig> schema;
//   schema.add("seed", [](RunConfig& c) { return &c.seed; }, {.help = "Seed of all random
//   numbers."})
//         .add_table("train", [](RunConfig& c) { return &c.train; }, train_schema());
//   schema.read_file("run.toml", config);
//   schema.apply("train.lr=3e-4", config);
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tessera {

/// The types a field may have, by address.
using FieldPointer =
    std::variant<bool*, std::int32_t*, std::uint32_t*, std::int64_t*, std::uint64_t*, float*,
                 double*, std::string*, std::vector<std::string>*, std::vector<std::int64_t>*,
                 std::vector<double>*>;

/// What a field's row says beside its name; the default is the struct's own.
struct FieldInfo {
  double min = -std::numeric_limits<double>::infinity();  ///< numbers, and each element of a list
  double max = std::numeric_limits<double>::infinity();
  bool below_max = false;  ///< max itself is not allowed
  std::string unit = {};
  std::string help = {};                  ///< one sentence
  std::vector<std::string> choices = {};  ///< texts: the allowed values
};

struct Field {
  std::string name;  ///< dotted, "train.lr"
  std::function<FieldPointer(void* config)> at;
  FieldInfo info;
};

/// The operations on an untyped table. All mistakes throw Error(usage) as one line with
/// file:line:column, the value, what is allowed, and for an unknown key the nearest known one.
class FieldTable {
 public:
  void read_file(const std::filesystem::path& path, void* config) const;
  /// `source` stands in the messages.
  void read_text(std::string_view text, std::string_view source, void* config) const;
  /// "train.lr=3e-4"; the value is TOML, and a text may go unquoted.
  void apply(std::string_view assignment, void* config) const;
  /// A complete TOML file; reading it back gives the same values.
  [[nodiscard]] std::string dump(const void* config) const;
  /// One line per field: name, type, default, range, unit, help.
  [[nodiscard]] std::string help(const void* defaults) const;
  [[nodiscard]] const std::vector<Field>& fields() const { return fields_; }

 protected:
  void add_field(Field field);

 private:
  const Field* find(std::string_view name) const;
  std::vector<Field> fields_;
};

/// The table of one struct.
template <class Config>
class Schema : private FieldTable {
 public:
  /// `access` maps Config& to the address of the field.
  template <class Access>
  Schema& add(std::string name, Access access, FieldInfo info) {
    add_field(
        {std::move(name),
         [access](void* config) { return FieldPointer(access(*static_cast<Config*>(config))); },
         std::move(info)});
    return *this;
  }
  /// Adds all fields of a nested struct under "prefix."; `access` maps Config& to its address.
  template <class Inner, class Access>
  Schema& add_table(const std::string& prefix, Access access, const Schema<Inner>& inner) {
    for (const Field& f : inner.fields()) {
      add_field(
          {prefix + "." + f.name,
           [access, at = f.at](void* config) { return at(access(*static_cast<Config*>(config))); },
           f.info});
    }
    return *this;
  }

  void read_file(const std::filesystem::path& path, Config& config) const {
    FieldTable::read_file(path, &config);
  }
  void read_text(std::string_view text, std::string_view source, Config& config) const {
    FieldTable::read_text(text, source, &config);
  }
  void apply(std::string_view assignment, Config& config) const {
    FieldTable::apply(assignment, &config);
  }
  [[nodiscard]] std::string dump(const Config& config) const { return FieldTable::dump(&config); }
  [[nodiscard]] std::string help(const Config& defaults = Config()) const {
    return FieldTable::help(&defaults);
  }
  using FieldTable::fields;
};

}  // namespace tessera
