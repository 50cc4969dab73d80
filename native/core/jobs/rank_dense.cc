// The `rank_dense` job: the best items of each user by dense models, and the scores of candidates that others found.
//
// 1. The score of an item is the mean over the models of its log-probability: log-softmax of cosine / temperature over
//    the whole catalogue. So scores of several models, and of one, are on one scale.
// 2. Items of the history are left out of the lists; a candidate is scored whatever it is.
// 3. Ties go to the lowest item. Users are in the order of their index; one step = one group of kGroupUsers of them.
#include <algorithm>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/dense/dense_model.h"
#include "core/dense/sequences.h"
#include "core/dense/user_log.h"
#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/recipe_fields.h"
#include "core/rank/decode_ops.h"
#include "core/rank/ranker.h"
#include "core/safetensors.h"

namespace collimate {

namespace {

using dense::Part;

constexpr int64_t kGroupUsers = 64;

struct RankDenseRecipe {
  Part part = Part::test;
  int64_t top_k = 0, first = 0, count = 0;  // count 0: all from the first

  static RankDenseRecipe parse(const Json& json) {
    const bool named = json.contains("part") && json.at("part").is_string();
    return {.part = dense::parse_part(named ? json.at("part").get<std::string>() : ""),
            .top_k = recipe_integer(json, "topK", {1, 1 << 20}),
            .first = recipe_integer(json, "first", {0}),
            .count = recipe_integer(json, "count", {0})};
  }
};

// Lists of others, whose items are to be scored.
class Candidates {
 public:
  Candidates(std::string name, const std::filesystem::path& path, int64_t items)
      : name_(std::move(name)), file_(SafetensorsFile::open(path)), users_(file_.i32("users", {-1})) {
    items_ = file_.i32("items", {static_cast<int64_t>(users_.size()), -1});
    width_ = file_.get("items").shape[1];
    scores_.assign(items_.size(), kPaddingScore);
    for (const int32_t item : items_) {
      if (item < items) continue;
      fail_bad_input(name_ + ": expected items below the dataset's " + std::to_string(items) + ", got " +
                     std::to_string(item) + "; use lists of the same dataset");
    }
    for (size_t row = 0; row < users_.size(); ++row) {
      if (!row_of_.emplace(users_[row], static_cast<int64_t>(row)).second)
        fail_bad_input(name_ + ": expected each user once, got user " + std::to_string(users_[row]) + " twice");
    }
  }

  // Different users may be scored at the same time.
  void score(int64_t user, std::span<const float> scores) {
    const auto row = row_of_.find(static_cast<int32_t>(user));
    if (row == row_of_.end()) return;
    for (int64_t at = row->second * width_; at < (row->second + 1) * width_; ++at) {
      const int32_t item = items_[static_cast<size_t>(at)];
      if (item >= 0) scores_[static_cast<size_t>(at)] = scores[static_cast<size_t>(item)];
    }
  }
  // Users of the lists that this job does not rank would keep a score that means nothing.
  void check_users(const std::vector<int32_t>& ranked) const {
    for (const int32_t user : users_) {
      if (std::binary_search(ranked.begin(), ranked.end(), user)) continue;
      fail_bad_input(name_ + ": expected lists of users that are ranked here, got user " + std::to_string(user) +
                     "; use lists of the same part and shard");
    }
  }
  void write(const std::filesystem::path& path) const {
    const auto rows = static_cast<int64_t>(users_.size());
    SafetensorsWriter writer;
    writer.add_i32("users", {rows}, users_);
    writer.add_i32("items", {rows, width_}, items_);
    writer.add_f32("scores", {rows, width_}, scores_);
    writer.write(path);
  }

 private:
  std::string name_;
  SafetensorsFile file_;
  std::span<const int32_t> users_, items_;
  int64_t width_ = 0;
  std::vector<float> scores_;
  std::map<int32_t, int64_t> row_of_;
};

std::vector<int32_t> users_of(const dense::UserLog& log, const RankDenseRecipe& recipe) {
  std::vector<int32_t> users;
  for (int64_t user = 0; user < log.users(); ++user)
    if (log.has_target(user, recipe.part)) users.push_back(static_cast<int32_t>(user));
  const auto all = static_cast<int64_t>(users.size());
  const int64_t count = recipe.count > 0 ? recipe.count : all - recipe.first;
  if (count < 1 || recipe.first + count > all) {
    fail_bad_input("rank_dense: expected `first` and `count` within the part's " + std::to_string(all) +
                   " users, got " + std::to_string(recipe.first) + " and " + std::to_string(recipe.count));
  }
  return {users.begin() + recipe.first, users.begin() + recipe.first + count};
}

// Inputs named <prefix>0, <prefix>1, … as far as they go.
std::vector<std::string> numbered_inputs(const JobContext& context, const std::string& prefix) {
  std::vector<std::string> names;
  while (context.has_input(prefix + std::to_string(names.size())))
    names.push_back(prefix + std::to_string(names.size()));
  return names;
}

class DenseRanker {
 public:
  explicit DenseRanker(JobContext& context)
      : context_(context),
        recipe_(RankDenseRecipe::parse(context.recipe())),
        log_(context.input("dataset")),
        users_(users_of(log_, recipe_)) {
    for (const std::string& name : numbered_inputs(context, "model_"))
      models_.push_back(dense::DenseModel::load(context.input(name), name));
    if (models_.empty()) context.input("model_0");  // says that it is missing
    for (size_t i = 0; i < models_.size(); ++i) {
      if (models_[i].items() == log_.items()) continue;
      fail_bad_input("model_" + std::to_string(i) + ": expected rows for the dataset's " +
                     std::to_string(log_.items()) + " items, got " + std::to_string(models_[i].items()) +
                     "; use a model trained on this dataset");
    }
    for (const dense::DenseModel& model : models_) {
      weights_.emplace_back(model.parameters, context.ops());
      decoders_.emplace_back(
          weights_.back(), model.items_max,
          Decoder::Options{.hidden_length = dense::hidden_length(model.parameters.config().dim, model.temperature)});
    }
    for (const std::string& name : numbered_inputs(context, "candidates_")) {
      candidates_.emplace_back(name, context.input(name), log_.items());
      candidates_.back().check_users(users_);
    }
    const size_t cells = users_.size() * static_cast<size_t>(recipe_.top_k);
    items_.assign(cells, -1);
    scores_.assign(cells, kPaddingScore);
  }

  JobOutcome run() {
    const auto users = static_cast<int64_t>(users_.size());
    const int64_t groups = (users + kGroupUsers - 1) / kGroupUsers;
    for (int64_t group = 0; group < groups; ++group) {
      context_.throw_if_aborted();
      const int64_t begin = group * kGroupUsers, end = std::min(users, begin + kGroupUsers);
      rank_group(begin, end);
      context_.host().on_step(group + 1, groups, {{"users", static_cast<double>(end - begin)}});
    }
    return result();
  }

 private:
  // Mean log-probabilities of all items, [users, I].
  std::vector<float> group_scores(int64_t begin, int64_t end) {
    std::vector<float> mean;
    const int64_t items = log_.items();
    const auto share = static_cast<float>(1.0 / static_cast<double>(models_.size()));
    for (size_t m = 0; m < models_.size(); ++m) {
      PackedBatch batch;
      for (int64_t i = begin; i < end; ++i) {
        const std::span<const int32_t> known = log_.known_events(users_[static_cast<size_t>(i)], recipe_.part);
        const int32_t unknown = 0;  // what follows is asked for, not told
        dense::append_sequence(batch, known.last(std::min(known.size(), static_cast<size_t>(models_[m].items_max))),
                               std::span(&unknown, 1));
      }
      std::vector<float> logits = decoders_[m].logits(batch);
      if (m == 0) mean.assign(logits.size(), 0.0f);
      context_.pool().for_each(end - begin, [&](int64_t i) {
        const std::span<const float> row =
            std::span(logits).subspan(static_cast<size_t>(i * items), static_cast<size_t>(items));
        const float log_total = ops::log_sum_exp(row);
        float* to = mean.data() + i * items;
        for (int64_t item = 0; item < items; ++item) to[item] += share * (row[static_cast<size_t>(item)] - log_total);
      });
    }
    return mean;
  }

  void rank_group(int64_t begin, int64_t end) {
    const std::vector<float> scores = group_scores(begin, end);
    const auto items = static_cast<size_t>(log_.items());
    context_.pool().for_each(end - begin, [&](int64_t i) {
      const std::span<const float> row = std::span(scores).subspan(static_cast<size_t>(i) * items, items);
      const int64_t user = users_[static_cast<size_t>(begin + i)];
      for (Candidates& candidates : candidates_) candidates.score(user, row);
      list_best(begin + i, row);
    });
  }

  void list_best(int64_t at, std::span<const float> scores) {
    std::vector<uint8_t> seen(scores.size(), 0);
    for (const int32_t item : log_.known_events(users_[static_cast<size_t>(at)], recipe_.part))
      seen[static_cast<size_t>(item)] = 1;
    std::vector<int32_t> order;
    order.reserve(scores.size());
    for (size_t item = 0; item < scores.size(); ++item)
      if (seen[item] == 0) order.push_back(static_cast<int32_t>(item));
    const size_t listed = std::min(order.size(), static_cast<size_t>(recipe_.top_k));
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(listed), order.end(),
                      [&](int32_t a, int32_t b) {
                        const float x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
                        return x != y ? x > y : a < b;
                      });
    for (size_t i = 0; i < listed; ++i) {
      const size_t cell = static_cast<size_t>(at * recipe_.top_k) + i;
      items_[cell] = order[i];
      scores_[cell] = scores[static_cast<size_t>(order[i])];
    }
  }

  JobOutcome result() {
    const std::filesystem::path& folder = context_.spec().output_dir;
    const auto users = static_cast<int64_t>(users_.size());
    JobOutcome outcome{.step = (users + kGroupUsers - 1) / kGroupUsers};
    SafetensorsWriter writer;
    writer.add_i32("users", {users}, users_);
    writer.add_i32("items", {users, recipe_.top_k}, items_);
    writer.add_f32("scores", {users, recipe_.top_k}, scores_);
    writer.write(folder / "lists.safetensors");
    outcome.outputs["lists"] = folder / "lists.safetensors";
    for (size_t i = 0; i < candidates_.size(); ++i) {
      const std::string name = "scores_" + std::to_string(i);
      candidates_[i].write(folder / (name + ".safetensors"));
      outcome.outputs[name] = folder / (name + ".safetensors");
    }
    int64_t short_lists = 0;
    for (int64_t i = 1; i <= users; ++i) short_lists += items_[static_cast<size_t>(i * recipe_.top_k - 1)] < 0 ? 1 : 0;
    outcome.summary = {{"users", users}, {"models", static_cast<int64_t>(models_.size())}, {"shortLists", short_lists}};
    return outcome;
  }

  JobContext& context_;
  RankDenseRecipe recipe_;
  dense::UserLog log_;
  std::vector<int32_t> users_;  // to be ranked, ascending
  std::vector<dense::DenseModel> models_;
  std::deque<DecoderWeights> weights_;  // of the models; decoders point to them
  std::vector<Decoder> decoders_;
  std::vector<Candidates> candidates_;
  std::vector<int32_t> items_;  // [users, K]
  std::vector<float> scores_;
};

}  // namespace

JobOutcome run_rank_dense(JobContext& context) { return DenseRanker(context).run(); }

}  // namespace collimate
