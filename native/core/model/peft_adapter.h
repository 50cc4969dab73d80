// An adapter that PEFT wrote (adapter_config.json, adapter_model.safetensors), as the start of a tune run.
//
// 1. A setting that this decoder does not compute is refused by its name, known to this version or not; nothing is
//    ignored that would change a logit.
// 2. Every tensor of the file has a place, every place that the config names has its tensor.
// 3. Token rows come as trainable_tokens_delta (rows that replace the base's) or as whole tables. A table in
//    modules_to_save is trained whole, as PEFT does; of another only the rows that the base lacks are taken, and the
//    rest must be the base's own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/model/parameters.h"
#include "core/safetensors.h"

namespace collimate {

class PeftAdapter {
 public:
  // From the job inputs adapter/adapter_config.json and adapter/adapter_model.safetensors, for this base; nothing when
  // both are absent.
  static std::optional<PeftAdapter> from_inputs(const std::map<std::string, std::filesystem::path>& inputs,
                                                const DecoderConfig& base);

  // JobFailure(bad_input) naming the field in which the recipe says something else.
  void check_agrees(const Trainable& recipe) const;
  // First trained rows of embedding and head, where rows from `first_new` on are trained anyway.
  Parameters::FirstTrainedRows first_trained_rows(int64_t first_new) const;
  // Over the values of a base that is loaded.
  void load_into(Parameters& parameters) const;

 private:
  // Token rows of one module, embed_tokens or lm_head.
  struct Table {
    std::string module, prefix;  // lm_head, base_model.model.lm_head
    bool saved = false;          // in modules_to_save
    std::vector<int64_t> indices{};
  };

  struct Source {
    const std::filesystem::path& config;
    const std::filesystem::path& weights;
    bool tied_base = false;  // its head is its embedding
  };
  explicit PeftAdapter(const Source& source);
  void read_tables(const Json& config);
  void read_token_indices(const Json& config);
  static bool is_of(const Table& table, const std::string& name);  // whether the table has such a tensor
  void check_nothing_is_left_out(const Parameters& parameters) const;
  std::vector<float> values(const std::string& name, const std::vector<int64_t>& shape) const;
  void load_table(Parameters& parameters, int number, const Table& table) const;
  void check_tied_head(const Parameters& parameters) const;

  Trainable trainable_;
  Table embedding_, head_;
  SafetensorsFile file_;
};

}  // namespace collimate
