// Passes over the edges: one warp a node, which reads its neighbours in ascending order and writes its own row only.
//
// A node of very many neighbours keeps its warp busy long after the others: as on the processor, its sum has one order.
#include <string>
#include <vector>

#include "core/failure.h"
#include "cuda/dccf.h"
#include "cuda/launch.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 128, kWarpsPerBlock = kThreads / kWarpSize;
constexpr float kTinyNorm = 1e-12f;

__device__ __forceinline__ int64_t node_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarpSize;
}

// A row in a warp's registers: lane l has columns l, l + 32, ...
template <int kOwn>
struct Row {
  float value[kOwn];
};
template <int kOwn>
__device__ __forceinline__ Row<kOwn> load_row(const float* x, int64_t dim) {
  Row<kOwn> row;
  COLLIMATE_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const int64_t c = lane_of_thread() + i * kWarpSize;
    row.value[i] = c < dim ? x[c] : 0.0f;
  }
  return row;
}
template <int kOwn>
__device__ __forceinline__ void store_row(const Row<kOwn>& row, float* x, int64_t dim) {
  COLLIMATE_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const int64_t c = lane_of_thread() + i * kWarpSize;
    if (c < dim) x[c] = row.value[i];
  }
}
template <int kOwn>
__device__ __forceinline__ float dot_of(const Row<kOwn>& a, const Row<kOwn>& b) {
  float sum = 0.0f;
  COLLIMATE_UNROLL
  for (int i = 0; i < kOwn; ++i) sum += a.value[i] * b.value[i];
  return warp_sum(sum);
}
template <int kOwn>
__device__ __forceinline__ void add_scaled(Row<kOwn>& to, const Row<kOwn>& x, float scale) {
  COLLIMATE_UNROLL
  for (int i = 0; i < kOwn; ++i) to.value[i] += scale * x.value[i];
}

template <int kOwn>
__global__ void spread_rows(DeviceGraph::View g, dccf::Spread a) {
  const int64_t h = node_of_warp();
  if (h >= g.nodes) return;
  Row<kOwn> sum{};
  if (a.accumulate) sum = load_row<kOwn>(a.y + h * a.dim, a.dim);
  for (int64_t e = g.offsets[h]; e < g.offsets[h + 1]; ++e) {
    const int64_t t = g.neighbours[e];
    add_scaled(sum, load_row<kOwn>(a.x + t * a.dim, a.dim), g.inverse_root_degree[h] * g.inverse_root_degree[t]);
  }
  store_row(sum, a.y + h * a.dim, a.dim);
}

template <int kOwn>
__global__ void norm_rows(int64_t nodes, const float* x, int64_t dim, float* result) {
  const int64_t h = node_of_warp();
  if (h >= nodes) return;
  const Row<kOwn> row = load_row<kOwn>(x + h * dim, dim);
  const float norm = sqrtf(dot_of(row, row));
  if (lane_of_thread() == 0) result[h] = norm > kTinyNorm ? 1.0f / norm : 0.0f;
}

template <int kOwn>
__global__ void masked_rows(DeviceGraph::View g, const float* e, dccf::MaskedView view, int64_t dim) {
  const int64_t h = node_of_warp();
  if (h >= g.nodes) return;
  const Row<kOwn> x = load_row<kOwn>(view.x + h * dim, dim);
  Row<kOwn> out{};
  float sum = 0.0f;
  for (int64_t at = g.offsets[h]; at < g.offsets[h + 1]; ++at) {
    const int64_t t = g.neighbours[at];
    const float cosine =
        dot_of(x, load_row<kOwn>(view.x + t * dim, dim)) * (view.inverse_norm[h] * view.inverse_norm[t]);
    const float mask = (cosine + 1.0f) * 0.5f;
    sum += mask;
    add_scaled(out, load_row<kOwn>(e + t * dim, dim), mask);
  }
  const float inverse_sum = sum > kTinyNorm ? 1.0f / sum : 0.0f;
  COLLIMATE_UNROLL
  for (int i = 0; i < kOwn; ++i) out.value[i] *= inverse_sum;
  store_row(out, view.h + h * dim, dim);
  if (lane_of_thread() == 0) view.inverse_sum[h] = inverse_sum;
}

template <int kOwn>
__global__ void shift_rows(int64_t nodes, const float* dh, const float* h_of, int64_t dim, float* shift) {
  const int64_t h = node_of_warp();
  if (h >= nodes) return;
  const float value = dot_of(load_row<kOwn>(dh + h * dim, dim), load_row<kOwn>(h_of + h * dim, dim));
  if (lane_of_thread() == 0) shift[h] = value;
}

// One view's part of the backward.
struct ViewGradient {
  const float* e;
  dccf::MaskedView view;
  const float* dh;
  const float* shift;
  float* dx;
  float* de;
  int64_t dim;
};

template <int kOwn>
__global__ void masked_gradient_rows(DeviceGraph::View g, ViewGradient a) {
  const int64_t h = node_of_warp(), dim = a.dim;
  if (h >= g.nodes) return;
  const dccf::MaskedView& view = a.view;
  const Row<kOwn> x = load_row<kOwn>(view.x + h * dim, dim), e = load_row<kOwn>(a.e + h * dim, dim);
  const Row<kOwn> dh = load_row<kOwn>(a.dh + h * dim, dim);
  Row<kOwn> de = load_row<kOwn>(a.de + h * dim, dim), unit{};
  const float inverse_norm = view.inverse_norm[h];
  for (int64_t at = g.offsets[h]; at < g.offsets[h + 1]; ++at) {
    const int64_t t = g.neighbours[at];
    const Row<kOwn> x_t = load_row<kOwn>(view.x + t * dim, dim), dh_t = load_row<kOwn>(a.dh + t * dim, dim);
    const float cosine = dot_of(x, x_t) * (inverse_norm * view.inverse_norm[t]);
    const float mask = (cosine + 1.0f) * 0.5f;
    add_scaled(de, dh_t, mask * view.inverse_sum[t]);
    const float from_h = (dot_of(dh, load_row<kOwn>(a.e + t * dim, dim)) - a.shift[h]) * view.inverse_sum[h];
    const float from_t = (dot_of(dh_t, e) - a.shift[t]) * view.inverse_sum[t];
    add_scaled(unit, x_t, 0.5f * (from_h + from_t) * view.inverse_norm[t]);
  }
  store_row(de, a.de + h * dim, dim);
  const float along = dot_of(unit, x) * inverse_norm;
  Row<kOwn> dx = load_row<kOwn>(a.dx + h * dim, dim);
  COLLIMATE_UNROLL
  for (int i = 0; i < kOwn; ++i) dx.value[i] += (unit.value[i] - along * (x.value[i] * inverse_norm)) * inverse_norm;
  store_row(dx, a.dx + h * dim, dim);
}

template <typename Body>
void with_columns(int64_t dim, const Body& body) {
  if (dim <= 32) return body(std::integral_constant<int, 1>{});
  if (dim <= 64) return body(std::integral_constant<int, 2>{});
  if (dim <= 128) return body(std::integral_constant<int, 4>{});
  if (dim <= 256) return body(std::integral_constant<int, 8>{});
  fail_bad_input("DCCF on a device: expected embeddings of at most 256 columns, got " + std::to_string(dim));
}

Launch nodes_of(const DeviceGraph& graph) { return {blocks_for(graph.view().nodes, kWarpsPerBlock), kThreads}; }

}  // namespace

DeviceGraph::DeviceGraph(Device& device, const dccf::Graph& graph) {
  std::vector<int64_t> offsets{0};
  std::vector<int32_t> neighbours;
  for (int64_t node = 0; node < graph.nodes(); ++node) {
    const auto row = graph.neighbours(node);
    neighbours.insert(neighbours.end(), row.begin(), row.end());
    offsets.push_back(static_cast<int64_t>(neighbours.size()));
  }
  offsets_ = DeviceArray<int64_t>(device, offsets);
  neighbours_ = DeviceArray<int32_t>(device, neighbours);
  inverse_root_degree_ = DeviceArray<float>(device, graph.inverse_root_degree());
}

DeviceGraph::View DeviceGraph::view() const {
  return {offsets_.size() - 1, offsets_.data(), neighbours_.data(), inverse_root_degree_.data()};
}

void spread(Device& device, const DeviceGraph& graph, const dccf::Spread& args) {
  with_columns(args.dim,
               [&](auto own) { launch(device, "spread", nodes_of(graph), spread_rows<own()>, graph.view(), args); });
}

void inverse_norms(Device& device, const DeviceGraph& graph, const float* x, int64_t dim, float* result) {
  with_columns(dim, [&](auto own) {
    launch(device, "inverse_norms", nodes_of(graph), norm_rows<own()>, graph.view().nodes, x, dim, result);
  });
}

void masked_forward(Device& device, const DeviceGraph& graph, const dccf::MaskedForward& args) {
  with_columns(args.dim, [&](auto own) {
    for (const dccf::MaskedView& view : args.views)
      launch(device, "masked_forward", nodes_of(graph), masked_rows<own()>, graph.view(), args.e, view, args.dim);
  });
}

void masked_backward(Device& device, const DeviceGraph& graph, const dccf::MaskedBackward& args) {
  float* shift = device.scratch<float>(graph.view().nodes);
  with_columns(args.forward.dim, [&](auto own) {
    for (int i = 0; i < 2; ++i) {
      const dccf::MaskedView& view = args.forward.views[i];
      launch(device, "masked_backward", nodes_of(graph), shift_rows<own()>, graph.view().nodes, args.dh[i],
             static_cast<const float*>(view.h), args.forward.dim, shift);
      launch(device, "masked_backward", nodes_of(graph), masked_gradient_rows<own()>, graph.view(),
             ViewGradient{args.forward.e, view, args.dh[i], shift, args.dx[i], args.de, args.forward.dim});
    }
  });
}

}  // namespace collimate::cuda
