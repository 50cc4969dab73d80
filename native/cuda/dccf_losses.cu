// DCCF's losses on a device.
//
// 1. Rows of a batch repeat: its references are grouped by row on the host, and one warp adds those of a row in the
// order of
//    the batch.
// 2. Sums of losses are taken of all terms on the host, in tree order, in double.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/tree_sum.h"
#include "cuda/dccf.h"
#include "cuda/gemm.h"
#include "cuda/launch.h"
#include "cuda/math.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 128, kWarpsPerBlock = kThreads / kWarpSize;
constexpr float kTinyNorm = 1e-12f;

__device__ __forceinline__ int64_t item_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarpSize;
}

__device__ __forceinline__ float dot_of_rows(const float* a, const float* b, int64_t dim) {
  float sum = 0.0f;
  for (int64_t c = lane_of_thread(); c < dim; c += kWarpSize) sum += a[c] * b[c];
  return warp_sum(sum);
}

// The batch's node numbers: users, then positives, then negatives.
struct Triples {
  int64_t count;
  const int32_t* nodes;  // [3, count]
};

__global__ void score_triples(Triples t, dccf::RankLoss a, float* slopes, double* rank, double* decay) {
  const int64_t b = item_of_warp();
  if (b >= t.count) return;
  const float* rows[3];
  float squares[3];
  for (int part = 0; part < 3; ++part) {
    const int64_t node = t.nodes[part * t.count + b];
    rows[part] = a.final + node * a.dim;
    const float* e = a.embedding + node * a.dim;
    squares[part] = dot_of_rows(e, e, a.dim);
  }
  const float margin = dot_of_rows(rows[0], rows[2], a.dim) - dot_of_rows(rows[0], rows[1], a.dim);
  if (lane_of_thread() != 0) return;
  rank[b] = static_cast<double>(softplus_f32(margin));
  slopes[b] = sigmoid_f32(margin);
  decay[b] = static_cast<double>(squares[0]) + static_cast<double>(squares[1]) + static_cast<double>(squares[2]);
}

// References to rows, grouped: references[offsets[r] .. offsets[r + 1]) are those of rows[r], each part * count + b.
struct Grouped {
  int64_t rows;
  const int32_t* row;
  const int64_t* offsets;
  const int32_t* references;
};

__global__ void add_triple_gradients(Triples t, Grouped g, dccf::RankLoss a, const float* slopes) {
  const int64_t number = item_of_warp();
  if (number >= g.rows) return;
  const int64_t node = g.row[number];
  const float mean = 1.0f / static_cast<float>(t.count);
  for (int64_t c = lane_of_thread(); c < a.dim; c += kWarpSize) {
    float dfinal = a.dfinal[node * a.dim + c], dembedding = a.dembedding[node * a.dim + c];
    const float e = a.embedding[node * a.dim + c];
    for (int64_t at = g.offsets[number]; at < g.offsets[number + 1]; ++at) {
      const int64_t part = g.references[at] / t.count, b = g.references[at] % t.count;
      const float slope = slopes[b] * mean;
      const auto value = [&](int64_t of) { return a.final[t.nodes[of * t.count + b] * a.dim + c]; };
      if (part == 0) {
        dfinal += slope * value(2);
        dfinal += -slope * value(1);
      } else {
        dfinal += (part == 1 ? -slope : slope) * value(0);
      }
      dembedding += 2.0f * a.weight_decay * e;
    }
    a.dfinal[node * a.dim + c] = dfinal;
    a.dembedding[node * a.dim + c] = dembedding;
  }
}

// L2-normalised copies of the rows named; 0 for a vanishing row.
__global__ void take_unit_rows(const float* x, const int32_t* nodes, int64_t count, int64_t dim, float* unit,
                               float* inverse_norms) {
  const int64_t i = item_of_warp();
  if (i >= count) return;
  const float* row = x + nodes[i] * dim;
  const float norm = sqrtf(dot_of_rows(row, row, dim));
  const float inverse = norm > kTinyNorm ? 1.0f / norm : 0.0f;
  for (int64_t c = lane_of_thread(); c < dim; c += kWarpSize) unit[i * dim + c] = row[c] * inverse;
  if (lane_of_thread() == 0) inverse_norms[i] = inverse;
}

// Scores become probabilities less one at the row's own place; losses[i] = log-sum-exp - own score.
__global__ void contrast_rows(float* scores, int64_t rows, double* losses) {
  const int64_t i = item_of_warp();
  if (i >= rows) return;
  float* row = scores + i * rows;
  const float own = row[i];
  float top = -INFINITY;
  for (int64_t c = lane_of_thread(); c < rows; c += kWarpSize) top = row[c] > top ? row[c] : top;
  top = warp_largest(top);
  float sum = 0.0f;
  __syncwarp();
  for (int64_t c = lane_of_thread(); c < rows; c += kWarpSize) {
    row[c] = exp_f32(row[c] - top);
    sum += row[c];
  }
  sum = warp_sum(sum);
  const float inverse = 1.0f / sum;
  for (int64_t c = lane_of_thread(); c < rows; c += kWarpSize) row[c] = row[c] * inverse - (c == i ? 1.0f : 0.0f);
  if (lane_of_thread() == 0) losses[i] = static_cast<double>(top + log_f32(sum)) - static_cast<double>(own);
}

__global__ void add_unit_gradients(const float* unit, const float* inverse_norms, const float* dunit,
                                   const int32_t* nodes, int64_t count, int64_t dim, float* dx) {
  const int64_t i = item_of_warp();
  if (i >= count) return;
  const float along = dot_of_rows(dunit + i * dim, unit + i * dim, dim);
  for (int64_t c = lane_of_thread(); c < dim; c += kWarpSize)
    dx[nodes[i] * dim + c] += (dunit[i * dim + c] - along * unit[i * dim + c]) * inverse_norms[i];
}

Launch warps(int64_t count) { return {blocks_for(count, kWarpsPerBlock), kThreads}; }

double sum_of(const DeviceArray<double>& terms) {
  std::vector<double> values(static_cast<size_t>(terms.size()));
  terms.download(values);
  return tree_sum(values);
}

}  // namespace

dccf::RankLossValue rank_loss(Device& device, const dccf::Batch& batch, const dccf::RankLoss& args) {
  const int64_t count = batch.size();
  std::vector<int32_t> nodes(batch.users);
  nodes.insert(nodes.end(), batch.positives.begin(), batch.positives.end());
  nodes.insert(nodes.end(), batch.negatives.begin(), batch.negatives.end());
  // References in the order of the batch (triple by triple), stable by node.
  std::vector<int32_t> references;
  for (int64_t b = 0; b < count; ++b)
    for (int64_t part = 0; part < 3; ++part) references.push_back(static_cast<int32_t>(part * count + b));
  std::stable_sort(references.begin(), references.end(), [&](int32_t a, int32_t b) { return nodes[a] < nodes[b]; });
  std::vector<int32_t> rows;
  std::vector<int64_t> offsets;
  for (size_t i = 0; i < references.size(); ++i) {
    if (i > 0 && nodes[references[i]] == nodes[references[i - 1]]) continue;
    rows.push_back(nodes[references[i]]);
    offsets.push_back(static_cast<int64_t>(i));
  }
  offsets.push_back(static_cast<int64_t>(references.size()));

  const DeviceArray<int32_t> nodes_there(device, nodes), rows_there(device, rows), references_there(device, references);
  const DeviceArray<int64_t> offsets_there(device, offsets);
  DeviceArray<float> slopes(device, count);
  DeviceArray<double> rank(device, count), decay(device, count);
  const Triples triples{count, nodes_there.data()};
  launch(device, "rank_loss", warps(count), score_triples, triples, args, slopes.data(), rank.data(), decay.data());
  launch(device, "rank_loss", warps(rows_there.size()), add_triple_gradients, triples,
         Grouped{rows_there.size(), rows_there.data(), offsets_there.data(), references_there.data()}, args,
         slopes.data());
  return {sum_of(rank) / static_cast<double>(count), args.weight_decay * sum_of(decay)};
}

double contrast_loss(Device& device, const dccf::ContrastLoss& a) {
  const int64_t rows = static_cast<int64_t>(a.nodes.size()), dim = a.dim;
  const DeviceArray<int32_t> nodes(device, a.nodes);
  DeviceArray<float> anchor(device, rows * dim), view(device, rows * dim), danchor(device, rows * dim),
      dview(device, rows * dim), anchor_norms(device, rows), view_norms(device, rows), scores(device, rows * rows);
  DeviceArray<double> losses(device, rows);
  launch(device, "contrast_loss", warps(rows), take_unit_rows, a.anchor, nodes.data(), rows, dim, anchor.data(),
         anchor_norms.data());
  launch(device, "contrast_loss", warps(rows), take_unit_rows, a.view, nodes.data(), rows, dim, view.data(),
         view_norms.data());
  const float inverse_temperature = 1.0f / a.temperature;
  gemm_fp32(device, {.transpose_b = true,
                     .m = rows,
                     .n = rows,
                     .k = dim,
                     .alpha = inverse_temperature,
                     .a = anchor.data(),
                     .lda = dim,
                     .b = view.data(),
                     .ldb = dim,
                     .c = scores.data(),
                     .ldc = rows});
  launch(device, "contrast_loss", warps(rows), contrast_rows, scores.data(), rows, losses.data());
  const float slope = a.scale * inverse_temperature / static_cast<float>(rows);
  gemm_fp32(device, {.m = rows,
                     .n = dim,
                     .k = rows,
                     .alpha = slope,
                     .a = scores.data(),
                     .lda = rows,
                     .b = view.data(),
                     .ldb = dim,
                     .c = danchor.data(),
                     .ldc = dim});
  gemm_fp32(device, {.transpose_a = true,
                     .m = rows,
                     .n = dim,
                     .k = rows,
                     .alpha = slope,
                     .a = scores.data(),
                     .lda = rows,
                     .b = anchor.data(),
                     .ldb = dim,
                     .c = dview.data(),
                     .ldc = dim});
  launch(device, "contrast_loss", warps(rows), add_unit_gradients, anchor.data(), anchor_norms.data(), danchor.data(),
         nodes.data(), rows, dim, a.danchor);
  launch(device, "contrast_loss", warps(rows), add_unit_gradients, view.data(), view_norms.data(), dview.data(),
         nodes.data(), rows, dim, a.dview);
  return sum_of(losses) / static_cast<double>(rows);
}

}  // namespace collimate::cuda
