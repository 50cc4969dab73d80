// The passes on the processor: host values are used where they lie.
#include "core/dccf/passes.h"

#include <algorithm>
#include <deque>

#include "core/large_buffer.h"
#include "core/ops.h"

namespace collimate::dccf {
namespace {

constexpr int64_t kElementsPerBlock = 16384;

class ProcessorPasses final : public Passes {
 public:
  ProcessorPasses(Pool& pool, const Graph& graph) : pool_(pool), graph_(graph) {}

  float* allocate(int64_t count) override {
    buffers_.emplace_back().resize(static_cast<size_t>(count));
    return buffers_.back().data();
  }
  const float* resident(std::span<const float> host) override { return host.data(); }
  float* target(std::span<float> host) override {
    std::fill(host.begin(), host.end(), 0.0f);
    return host.data();
  }
  void collect(std::span<float>) override {}
  std::span<const float> on_host(const float* x, int64_t count) override { return {x, static_cast<size_t>(count)}; }

  void zero(float* x, int64_t count) override { std::fill_n(x, count, 0.0f); }
  void copy(float* to, const float* from, int64_t count) override { std::copy_n(from, count, to); }
  void add(float* to, const float* a, const float* b, int64_t count) override {
    for_elements(count, [&](int64_t i) { to[i] = a[i] + b[i]; });
  }
  void add_scaled(float* to, const float* x, float factor, int64_t count) override {
    for_elements(count, [&](int64_t i) { to[i] += factor * x[i]; });
  }
  double sum_squares(const float* x, int64_t count) override {
    return ops::sum_squares(pool_, {x, static_cast<size_t>(count)});
  }
  void sum_layer(const LayerSum& a) override {
    for_elements(a.count, [&](int64_t i) {
      a.next[i] = (((a.z[i] + a.r[i]) + a.hz[i]) + a.hr[i]) + a.e[i];
      a.final[i] += a.next[i];
    });
  }

  void spread(const Spread& args) override { dccf::spread(pool_, graph_, args); }
  void inverse_norms(const float* x, int64_t dim, float* result) override {
    dccf::inverse_norms(pool_, graph_, x, dim, result);
  }
  void masked_forward(const MaskedForward& args) override { dccf::masked_forward(pool_, graph_, args); }
  void masked_backward(const MaskedBackward& args) override { dccf::masked_backward(pool_, graph_, args); }
  void intents_forward(const IntentsForward& args) override { dccf::intents_forward(pool_, args); }
  void intents_backward(const IntentsBackward& args) override { dccf::intents_backward(pool_, args); }
  RankLossValue rank_loss(const Batch& batch, const RankLoss& args) override {
    return dccf::rank_loss(pool_, batch, args);
  }
  double contrast_loss(const ContrastLoss& args) override { return dccf::contrast_loss(pool_, args); }

 private:
  template <typename Body>
  void for_elements(int64_t size, const Body& body) {
    pool_.for_blocks(size, kElementsPerBlock, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i);
    });
  }

  Pool& pool_;
  const Graph& graph_;
  std::deque<LargeBuffer<float>> buffers_;
};

}  // namespace

std::unique_ptr<Passes> passes_on_processor(Pool& pool, const Graph& graph) {
  return std::make_unique<ProcessorPasses>(pool, graph);
}

}  // namespace collimate::dccf
