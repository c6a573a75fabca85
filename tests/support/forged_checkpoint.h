// Checkpoints whose hashes are right and whose content is not.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "support/fuzz.h"
#include "support/temp_dir.h"
#include "train/checkpoint.h"
#include "train/hash.h"
#include "train/model_store.h"

namespace tessera {

/// A checkpoint directory whose MANIFEST.json fits whatever its other files hold.
class Forged {
 public:
  Forged() {
    Checkpoint c;
    c.config_json = "{\"d\": 8}\n";
    c.model["w"] = Tensor::full({3}, 1);
    c.state = {{"step", "7"}, {"rng", "0x17"}, {"batch", "3"}};
    write_checkpoint(path(), 7, c);
  }
  Forged(const Module& model, const std::string& card) {
    Checkpoint c;
    c.config_json = card;
    c.model = tensor_map(state(model));
    write_checkpoint(path(), 0, c);
  }
  [[nodiscard]] std::filesystem::path path() const { return dir_.path() / "step-000007"; }
  void put(const std::string& file, const std::string& bytes) const {
    write(path() / file, bytes);
    nlohmann::ordered_json j = nlohmann::ordered_json::parse(read_text(path() / "MANIFEST.json"));
    for (auto& entry : j.at("files")) {
      if (entry.at("name") == file) {
        entry["bytes"] = bytes.size();
        entry["xxh3_128"] = hash_text(bytes);
      }
    }
    j.erase("self");
    j["self"] = hash_text(j.dump());
    write(path() / "MANIFEST.json", j.dump(1) + "\n");
  }

 private:
  TempDir dir_;
};

}  // namespace tessera
