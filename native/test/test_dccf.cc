// DCCF: values and gradients against a dense double reference, batches, determinism, resume, and that it learns.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/dccf/trainer.h"
#include "core/failure.h"
#include "core/philox.h"
#include "test/dccf_reference.h"

namespace collimate::dccf {
namespace {

// 6 users (user 4 without edges) and 7 items (item 6 without edges).
Graph tiny_graph() {
  const std::vector<int32_t> users = {0, 0, 0, 1, 1, 2, 2, 2, 3, 5, 5};
  const std::vector<int32_t> items = {0, 1, 4, 1, 2, 0, 2, 3, 5, 3, 5};
  return {6, 7, users, items};
}

// Repeated rows, and a negative (node 12) that has no edges.
Batch tiny_batch() {
  return {.users = {0, 2, 5, 0, 1, 3}, .positives = {6, 9, 11, 10, 7, 11}, .negatives = {12, 7, 6, 8, 12, 9}};
}

// Heavy weights, so that no part of the loss hides behind another.
ModelOptions tiny_options(int64_t dim) {
  return {.dim = dim,
          .layers = 2,
          .intents = 3,
          .weight_decay = 0.03f,
          .intent_weight = 0.02f,
          .contrast_weight = 0.4f,
          .temperature = 0.6f,
          .contrast_rows_max = 4,
          .seed = 9};
}

std::vector<float> tiny_parameters(const Model& model) {
  std::vector<float> parameters = model.initial_parameters();
  for (size_t i = 0; i < parameters.size(); ++i) parameters[i] = 0.5f * random_normal({.seed = 3}, i);
  return parameters;
}

// 300 users and 120 items in 6 blocks; each user has 12 items of the own block (of 20) and 2 of any; 3 more are held
// out.
struct Planted {
  std::vector<int32_t> users, items;
  std::vector<std::vector<int32_t>> held_out;
};

Planted planted_graph() {
  Planted planted;
  for (int32_t u = 0; u < 300; ++u) {
    const std::vector<int64_t> order = random_permutation({.seed = 1, .stream = static_cast<uint64_t>(u)}, 20);
    std::set<int32_t> row;
    for (int k = 0; k < 12; ++k) row.insert(u % 6 * 20 + static_cast<int32_t>(order[k]));
    for (int k = 0; k < 2; ++k) row.insert(static_cast<int32_t>(random_below({.seed = 2}, 2 * u + k, 120)));
    std::vector<int32_t> held;
    for (int k = 12; k < 20 && held.size() < 3; ++k)
      if (row.count(u % 6 * 20 + static_cast<int32_t>(order[k])) == 0)
        held.push_back(u % 6 * 20 + static_cast<int32_t>(order[k]));
    planted.held_out.push_back(held);
    for (const int32_t item : row) {
      planted.users.push_back(u);
      planted.items.push_back(item);
    }
  }
  return planted;
}

// Mean share of held-out items among the first 20 by `score(user, item)`, training items left out.
template <typename Score>
double recall_at_20(const Graph& graph, const Planted& planted, const Score& score) {
  double sum = 0;
  for (int64_t u = 0; u < graph.users(); ++u) {
    std::vector<std::pair<double, int32_t>> ranked;
    for (int32_t i = 0; i < graph.items(); ++i)
      if (!graph.has_edge(u, i)) ranked.push_back({-score(u, i), i});
    std::sort(ranked.begin(), ranked.end());
    double hits = 0;
    for (int k = 0; k < 20; ++k)
      hits += std::count(planted.held_out[u].begin(), planted.held_out[u].end(), ranked[k].second);
    sum += hits / static_cast<double>(planted.held_out[u].size());
  }
  return sum / static_cast<double>(graph.users());
}

}  // namespace

TEST_CASE("dccf: forward and loss equal the dense reference") {
  Pool pool(2);
  const Graph graph = tiny_graph();
  const auto plain = [](int64_t dim) {  // LightGCN
    ModelOptions options = tiny_options(dim);
    options.intents = 0;
    options.intent_weight = options.contrast_weight = 0;
    return options;
  };
  for (const ModelOptions& options : {tiny_options(5), tiny_options(32), tiny_options(64), plain(5), plain(32)}) {
    const std::unique_ptr<Passes> passes = passes_on_processor(pool, graph);
    Model model(*passes, graph, options);
    ReferenceModel reference(graph, options);
    const std::vector<float> parameters = tiny_parameters(model);
    const std::vector<double> exact(parameters.begin(), parameters.end());
    const std::span<const float> final = model.forward(parameters);
    const std::vector<double> expected = reference.forward(exact);
    for (size_t i = 0; i < expected.size(); ++i)
      REQUIRE(std::fabs(final[i] - expected[i]) < 2e-5 * (1 + std::fabs(expected[i])));
    std::vector<float> gradient(parameters.size());
    const LossValue loss = model.loss_and_gradient(parameters, tiny_batch(), gradient);
    CHECK(loss.total == doctest::Approx(reference.loss(exact, tiny_batch())).epsilon(1e-5));
    CHECK(loss.total == doctest::Approx(loss.rank + loss.decay + options.contrast_weight * loss.contrast));
  }
}

// Central differences of the double reference have an error of about 1e-9 here, so the tolerance is that of fp32.
TEST_CASE("dccf: the gradient of every parameter equals finite differences, with all terms and with each alone") {
  Pool pool(1);
  const Graph graph = tiny_graph();
  ModelOptions all = tiny_options(5), rank = all, contrast = all, decay = all, plain = all;
  rank.weight_decay = rank.intent_weight = rank.contrast_weight = 0;
  contrast.weight_decay = contrast.intent_weight = 0;
  contrast.contrast_weight = 30;  // drowns the ranking loss
  decay.contrast_weight = 0;
  decay.weight_decay = decay.intent_weight = 5;
  plain.intents = 0;
  plain.intent_weight = plain.contrast_weight = 0;
  for (const ModelOptions& options : {all, rank, contrast, decay, plain}) {
    const std::unique_ptr<Passes> passes = passes_on_processor(pool, graph);
    Model model(*passes, graph, options);
    ReferenceModel reference(graph, options);
    const std::vector<float> parameters = tiny_parameters(model);
    std::vector<float> gradient(parameters.size());
    model.loss_and_gradient(parameters, tiny_batch(), gradient);
    std::vector<double> moved(parameters.begin(), parameters.end());
    double largest = 0, groups[4] = {0, 0, 0, 0};
    for (const float value : gradient) largest = std::max(largest, std::fabs(static_cast<double>(value)));
    const size_t user_end = 6 * 5, item_end = 13 * 5, user_intents_end = item_end + 5 * 3;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const double at = moved[i], width = 1e-5;
      moved[i] = at + width;
      const double above = reference.loss(moved, tiny_batch());
      moved[i] = at - width;
      const double below = reference.loss(moved, tiny_batch());
      moved[i] = at;
      const double expected = (above - below) / (2 * width);
      REQUIRE_MESSAGE(std::fabs(gradient[i] - expected) < 2e-5 * largest + 1e-6,
                      "parameter " << i << ": " << gradient[i] << " against " << expected);
      groups[i < user_end ? 0 : i < item_end ? 1 : i < user_intents_end ? 2 : 3] += std::fabs(expected);
    }
    for (int group = 0; group < (options.intents > 0 ? 4 : 2); ++group) CHECK(groups[group] > 1e-3);
  }
}

TEST_CASE("dccf: an epoch visits every edge once, negatives are no neighbours") {
  const Graph graph = tiny_graph();
  Batches batches(graph, 4, 5);
  CHECK(batches.steps_per_epoch() == 3);
  std::vector<std::pair<int32_t, int32_t>> first_epoch;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    std::vector<std::pair<int32_t, int32_t>> seen;
    for (int64_t step = 3 * epoch; step < 3 * epoch + 3; ++step) {
      const Batch batch = batches.at(step);
      for (int64_t b = 0; b < batch.size(); ++b) {
        REQUIRE(graph.has_edge(batch.users[b], batch.positives[b] - 6));
        REQUIRE(!graph.has_edge(batch.users[b], batch.negatives[b] - 6));
        seen.push_back({batch.users[b], batch.positives[b]});
      }
    }
    CHECK(seen.size() == 11);
    if (epoch == 0) first_epoch = seen;
    if (epoch == 1) CHECK(seen != first_epoch);
    CHECK(std::set(seen.begin(), seen.end()).size() == 11);
  }
  Batches again(graph, 4, 5);
  CHECK(again.at(4).negatives == batches.at(4).negatives);
  // A user with every item still gets one.
  const std::vector<int32_t> users = {0, 0, 1}, items = {0, 1, 0};
  const Graph full(2, 2, users, items);
  Batches of_full(full, 8, 1);
  const Batch batch = of_full.at(0);
  for (int64_t b = 0; b < 3; ++b) CHECK((batch.users[b] == 0 || batch.negatives[b] == 3));
}

TEST_CASE("dccf: 1, 2 and 3 threads train to the same bytes; a state taken up again goes on with them") {
  const Planted planted = planted_graph();
  const Graph graph(300, 120, planted.users, planted.items);
  TrainerOptions options{.model = {.dim = 32, .layers = 2, .intents = 16, .contrast_rows_max = 200, .seed = 4},
                         .epochs = 3,
                         .batch_size = 1000,
                         .learning_rate = 0.01f};
  std::vector<float> expected;
  for (const int threads : {1, 2, 3}) {
    Pool pool(threads);
    Trainer trainer(pool, graph, options);
    while (!trainer.done()) trainer.run_step();
    if (expected.empty()) expected = trainer.state().parameters;
    CHECK(trainer.state().parameters == expected);
  }
  Pool pool(1);
  Trainer before(pool, graph, options), after(pool, graph, options);
  for (int i = 0; i < 7; ++i) before.run_step();
  after.set_state(before.state());
  while (!after.done()) after.run_step();
  CHECK(after.state().parameters == expected);
  CHECK_THROWS_AS(after.set_state({.step = 1, .parameters = {1.0f}}), JobFailure);
}

TEST_CASE("dccf: it learns planted blocks, far above popularity") {
  Pool pool(2);
  const Planted planted = planted_graph();
  const Graph graph(300, 120, planted.users, planted.items);
  Trainer trainer(pool, graph,
                  {.model = {.dim = 16, .layers = 2, .intents = 16, .contrast_rows_max = 128, .seed = 1},
                   .epochs = 15,
                   .batch_size = 1024,
                   .learning_rate = 0.01f});
  const double first = trainer.run_step().rank;
  double last = first;
  while (!trainer.done()) last = trainer.run_step().rank;
  CHECK(last < 0.6 * first);
  const std::span<const float> f = trainer.embeddings();
  const double learned = recall_at_20(graph, planted, [&](int64_t u, int64_t i) {
    double score = 0;
    for (int64_t c = 0; c < 16; ++c) score += static_cast<double>(f[u * 16 + c]) * f[(300 + i) * 16 + c];
    return score;
  });
  const double popularity = recall_at_20(
      graph, planted, [&](int64_t, int64_t i) { return static_cast<double>(graph.neighbours(300 + i).size()); });
  MESSAGE("recall@20: learned " << learned << ", popularity " << popularity);
  CHECK(learned > 0.9);
  CHECK(learned > 3 * popularity);
}

TEST_CASE("dccf: a loss that is not finite ends the run and leaves the state alone") {
  Pool pool(1);
  const Graph graph = tiny_graph();
  Trainer trainer(pool, graph, {.model = tiny_options(5), .epochs = 2, .batch_size = 4, .learning_rate = 0.01f});
  trainer.run_step();
  TrainerState state = trainer.state();
  state.parameters[0] = std::nanf("");
  trainer.set_state(state);
  try {
    trainer.run_step();
    FAIL("expected a JobFailure");
  } catch (const JobFailure& failure) {
    CHECK(failure.cause() == FailureCause::nan_loss);
  }
  CHECK(trainer.step() == 1);
  CHECK(trainer.state().parameters[1] == state.parameters[1]);
}

TEST_CASE("dccf: a graph out of order, out of range or empty is bad input") {
  using Ids = std::vector<int32_t>;
  CHECK_THROWS_WITH_AS(Graph(2, 2, Ids{}, Ids{}), doctest::Contains("at least one"), JobFailure);
  CHECK_THROWS_WITH_AS(Graph(2, 2, Ids{0, 2}, Ids{0, 0}), doctest::Contains("pair 1 is (2, 0)"), JobFailure);
  CHECK_THROWS_WITH_AS(Graph(2, 2, Ids{1, 0}, Ids{0, 0}), doctest::Contains("out of order"), JobFailure);
  CHECK_THROWS_WITH_AS(Graph(2, 2, Ids{0, 0}, Ids{1, 1}), doctest::Contains("out of order"), JobFailure);
  CHECK_THROWS_WITH_AS(Graph(0, 2, Ids{0}, Ids{0}), doctest::Contains("counts"), JobFailure);
  CHECK_THROWS_WITH_AS(Graph(2, 2, Ids{0, 1}, Ids{0}), doctest::Contains("one length"), JobFailure);
}

}  // namespace collimate::dccf
