// Constrained beam search of the `rank` job: users per second, one JSON line per shape and number of threads.
//
// The shape `scratch` is that of the CPU peers: width 256, 6 layers, 8 heads, feed-forward 688, vocabulary 2,048,
// prompts of 64 random tokens, 16 users, 20 beams, 4 levels over 12,101 random items (duplicates redrawn), log-softmax
// over the whole vocabulary. Not measured: loading the model, building the trie, reading prompts, writing lists. Usage:
// bench_beam [--users N] [--reps N] [threads …]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/model/parameters.h"
#include "core/philox.h"
#include "core/rank/ranker.h"

namespace {

using namespace collimate;

struct Shape {
  int64_t prompt = 64, beams = 20, levels = 4, codes = 256, items = 12101, vocabulary = 2048;
  DecoderConfig::Shape decoder{.layers = 6, .dim = 256, .heads = 8, .kv_heads = 8, .ffn_dim = 688};
};

struct Arguments {
  int64_t users = 16, reps = 5;
  std::vector<int> threads;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if ((word == "--users" || word == "--reps") && i + 1 < argc) {
      (word == "--users" ? arguments.users : arguments.reps) = std::atoll(argv[++i]);
    } else {
      arguments.threads.push_back(std::atoi(argv[i]));
    }
  }
  if (arguments.threads.empty()) arguments.threads = {1, 2};
  return arguments;
}

int32_t draw(uint64_t stream, uint64_t index, int64_t n) {
  return static_cast<int32_t>(
      random_below({.seed = 1, .site = RandomSite::test, .stream = stream}, index, static_cast<uint32_t>(n)));
}

std::vector<int32_t> random_items(const Shape& shape) {
  std::set<std::vector<int32_t>> ids;
  const auto first = static_cast<int32_t>(shape.vocabulary - shape.levels * shape.codes);
  uint64_t drawn = 0;
  while (static_cast<int64_t>(ids.size()) < shape.items) {
    std::vector<int32_t> id;
    for (int64_t level = 0; level < shape.levels; ++level) {
      id.push_back(first + static_cast<int32_t>(level * shape.codes) + draw(1, drawn++, shape.codes));
    }
    ids.insert(id);
  }
  std::vector<int32_t> tokens;
  for (const auto& id : ids) tokens.insert(tokens.end(), id.begin(), id.end());
  return tokens;
}

struct Prompts {
  std::vector<int32_t> tokens, users;
  std::vector<int64_t> offsets{0};
};

Prompts random_prompts(const Shape& shape, int64_t users) {
  Prompts prompts;
  for (int64_t user = 0; user < users; ++user) {
    for (int64_t i = 0; i < shape.prompt; ++i) {
      prompts.tokens.push_back(draw(2, static_cast<uint64_t>(user * shape.prompt + i), shape.vocabulary - 1024));
    }
    prompts.offsets.push_back(static_cast<int64_t>(prompts.tokens.size()));
    prompts.users.push_back(static_cast<int32_t>(user));
  }
  return prompts;
}

}  // namespace

int main(int argc, char** argv) {
  prepare_compute_thread();
  const Arguments arguments = parse(argc, argv);
  const Shape shape;
  Parameters parameters({.config = DecoderConfig::from_shape(shape.decoder, shape.vocabulary)});
  initialise_scratch(parameters, 1);
  const auto item_tokens = random_items(shape);
  const ItemTrie trie = ItemTrie::build(
      {.item_tokens = item_tokens, .items = shape.items, .levels = shape.levels, .vocabulary = shape.vocabulary});
  const Prompts prompts = random_prompts(shape, arguments.users);
  const PromptSet set{prompts.tokens, prompts.offsets, prompts.users};
  for (const int threads : arguments.threads) {
    Pool pool(threads);
    const auto backend = ops_on_processor(pool);
    const DecoderWeights weights(parameters, *backend);
    std::vector<double> seconds;
    for (int64_t rep = 0; rep <= arguments.reps; ++rep) {
      const auto start = std::chrono::steady_clock::now();
      rank_prompts(pool,
                   {.weights = &weights,
                    .trie = &trie,
                    .prompts = &set,
                    .beam = {.beams = shape.beams, .top_k = shape.beams},
                    .first = 0,
                    .count = arguments.users},
                   {});
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (rep > 0) seconds.push_back(took.count());  // the first is a warm-up
    }
    std::sort(seconds.begin(), seconds.end());
    const auto users = static_cast<double>(arguments.users);
    const Json line = {{"bench", "beam"},
                       {"shape", "scratch"},
                       {"threads", threads},
                       {"batch", arguments.users},
                       {"prompt", shape.prompt},
                       {"beams", shape.beams},
                       {"users_s_max", users / seconds.front()},
                       {"users_s_median", users / seconds[seconds.size() / 2]}};
    std::printf("%s\n", line.dump().c_str());
  }
  return 0;
}
