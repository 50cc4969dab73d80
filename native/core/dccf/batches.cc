#include "core/dccf/batches.h"

#include <algorithm>

#include "core/philox.h"

namespace collimate::dccf {

Batches::Batches(const Graph& graph, int64_t batch_size, uint64_t seed)
    : graph_(graph), batch_size_(std::min(batch_size, graph.edges())), seed_(seed) {}

Batch Batches::at(int64_t step) {
  const int64_t epoch = step / steps_per_epoch();
  if (epoch != epoch_) {
    order_ = random_permutation({.seed = seed_, .site = RandomSite::edge_order, .stream = static_cast<uint64_t>(epoch)},
                                graph_.edges());
    epoch_ = epoch;
  }
  const int64_t first = step % steps_per_epoch() * batch_size_;
  const int64_t end = std::min(first + batch_size_, graph_.edges());
  const int32_t users = static_cast<int32_t>(graph_.users());
  Batch batch;
  for (int64_t i = first; i < end; ++i) {
    const int64_t edge = order_[i];
    const int32_t user = graph_.edge_user(edge);
    batch.users.push_back(user);
    batch.positives.push_back(users + graph_.edge_item(edge));
    batch.negatives.push_back(users + draw_negative(epoch, edge, user));
  }
  return batch;
}

int32_t Batches::draw_negative(int64_t epoch, int64_t edge, int32_t user) const {
  const RandomStream stream{.seed = seed_, .site = RandomSite::negative_item, .stream = static_cast<uint64_t>(epoch)};
  const uint32_t items = static_cast<uint32_t>(graph_.items());
  uint32_t item = 0;
  for (int64_t attempt = 0; attempt < kNegativeTriesMax; ++attempt) {
    item = random_below(stream, static_cast<uint64_t>(edge * kNegativeTriesMax + attempt), items);
    if (!graph_.has_edge(user, item)) return static_cast<int32_t>(item);
  }
  for (uint32_t offset = 1; offset < items; ++offset) {
    const uint32_t next = (item + offset) % items;
    if (!graph_.has_edge(user, next)) return static_cast<int32_t>(next);
  }
  return static_cast<int32_t>(item);
}

}  // namespace collimate::dccf
