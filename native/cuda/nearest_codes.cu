// Nearest codes: bf16 products rule out, fp32 scores decide.
//
// 1. A block owns 128 rows, which it reads from memory once: rounded to bf16 they stay in shared memory for all levels
//    (up to 768 columns; wider rows come slice by slice again).
// 2. Of level l the product is x . e, with x the row itself. What earlier codes take away from it, sum of c . e, is
// read from
//    the table of products. So no residual is written or rounded to bf16.
// 3. The error of such a score is at most |e| (a |x| + b S) + absolute, S the sum of |c| over the codes taken:
//    products round both operands (a), sums and the table round in fp32, and the defined residual rounds once a
//    level (b). Whatever may be least is scored again as core/nearest_centroids.h defines it, on the row's true
//    residual; lowest index wins a tie.
// 4. Candidates are gathered in any order: which one wins does not depend on it.
// Floors for 4 M x 768, 4 x 256, on an H100: 12.3 GB at 3 TB/s = 4.1 ms, 6.3 TFLOP at 778 = 8.1 ms. Not measured yet:
// no card.
#include "cuda/nearest_codes.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kRows = 128, kCodes = 256, kDepth = 32, kThreads = 256;
constexpr int kWarpRows = 32, kWarpCodes = 128, kWarpsAcross = kCodes / kWarpCodes;
constexpr int kPitch = kDepth + 8;
constexpr int kCandidatesMax = 8;  // kept a row; with more the row is scored in full
constexpr int64_t kResidentColumns = 768;

constexpr float kFloatUnit = 1.0f / (1 << 24), kBf16Unit = 1.0f / (1 << 8);

struct Shared {
  float half_limit[kWarpsAcross][kRows];  // least upper bound of what each half has seen
  float norm[kRows];                      // |x|, a little more
  float taken[kRows];                     // S
  int counts[kRows];
  int candidates[kRows][kCandidatesMax];
  int32_t codes[kRows][kDeviceLevelsMax];
  uint16_t right[kCodes * kPitch];
};

// The tile's rows as the tensor cores read them, `pitch` values apart; the norms are found on the way.
__device__ __forceinline__ void load_rows(const NearestCodes& a, int64_t row, int64_t first, int64_t columns,
                                          uint16_t* to, int64_t pitch, float (&squares)[kRows / 16]) {
  // Sixteen threads a row, sixteen rows at a time.
  const int thread = static_cast<int>(threadIdx.x);
  COLLIMATE_UNROLL
  for (int e = 0; e < kRows / 16; ++e) {
    const int i = 16 * e + thread / 16;
    for (int64_t p = 2 * (thread % 16); p < columns; p += 32) {
      const int64_t c = first + p;
      const bool inside = row + i < a.rows;
      const float low = inside && c < a.view.dim ? a.view.values[(row + i) * a.view.dim + c] : 0.0f;
      const float high = inside && c + 1 < a.view.dim ? a.view.values[(row + i) * a.view.dim + c + 1] : 0.0f;
      squares[e] = fmaf(low, low, fmaf(high, high, squares[e]));
      *reinterpret_cast<unsigned*>(to + i * pitch + p) = pack_bf16(low, high);
    }
  }
}

__device__ __forceinline__ void load_codes(const NearestCodes& a, int level, int64_t first_code, int64_t first,
                                           uint16_t* right) {
  const int64_t codes = a.view.codes_per_level, dim = a.view.dim;
  for (int e = static_cast<int>(threadIdx.x); e < kCodes * kDepth; e += kThreads) {
    const int64_t j = first_code + e / kDepth, c = first + e % kDepth;
    right[e / kDepth * kPitch + e % kDepth] =
        j < codes && c < dim ? a.rounded[(level * codes + j) * dim + c] : uint16_t{0};
  }
}

// The definition: |e|^2 / 2 - r . e.
__device__ __forceinline__ float exact_score(const NearestCodes& a, int64_t row, const int32_t* codes, int level,
                                             int64_t code) {
  const int64_t at = level * a.view.codes_per_level + code;
  const float* centroid = a.view.centroids + at * a.view.dim;
  return a.half_norms[at] -
         exact_row_sum(a.view.dim, [&](int64_t c) { return residual_at(a.view, row, codes, level, c) * centroid[c]; });
}

// One warp: of the row's candidates, or of all codes, the least score.
__device__ __forceinline__ int32_t decide(const NearestCodes& a, const Shared& s, int i, int64_t row, int level) {
  const int count = s.counts[i];
  if (count == 1) return s.candidates[i][0];
  const bool all = count == 0 || count > kCandidatesMax;  // none: products that overflowed rule nothing out
  const int64_t tried = all ? a.view.codes_per_level : count;
  float least = INFINITY;
  int32_t nearest = 0;
  for (int64_t t = 0; t < tried; ++t) {
    const int32_t code = all ? static_cast<int32_t>(t) : s.candidates[i][t];
    const float score = exact_score(a, row, s.codes[i], level, code);
    if (score < least || (score == least && code < nearest)) {
      least = score;
      nearest = code;
    }
  }
  return nearest;
}

template <bool kResident>
__global__ void __launch_bounds__(kThreads) nearest_of_tile(NearestCodes a) {
  Shared& s = *dynamic_shared<Shared>();
  uint16_t* left = reinterpret_cast<uint16_t*>(&s + 1);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows, dim = a.view.dim, codes = a.view.codes_per_level;
  const int64_t padded = (dim + kDepth - 1) / kDepth * kDepth, left_pitch = kResident ? padded + 8 : kPitch;
  const int thread = static_cast<int>(threadIdx.x), lane = lane_of_thread(), warp = thread / kWarpSize;
  const int warp_row = warp / kWarpsAcross * kWarpRows, half = warp % kWarpsAcross, warp_code = half * kWarpCodes;
  float squares[kRows / 16] = {};
  if (kResident) {
    load_rows(a, row, 0, padded, left, left_pitch, squares);
  } else {
    for (int64_t first = 0; first < padded; first += kDepth)
      load_rows(a, row, first, kDepth, left, left_pitch, squares);
  }
  COLLIMATE_UNROLL
  for (int e = 0; e < kRows / 16; ++e) {
    float sum = squares[e];
    for (int distance = 8; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
    if (thread % 16 == 0) s.norm[16 * e + thread / 16] = 1.0001f * sqrtf(sum);
  }
  for (int i = thread; i < kRows; i += kThreads) {
    s.taken[i] = 0.0f;
    for (int level = 0; level < a.first_level; ++level) {
      s.codes[i][level] = row + i < a.rows ? a.codes[(row + i) * a.codes_stride + level] : 0;
      s.taken[i] += a.norms[level * codes + s.codes[i][level]];
    }
  }
  // As shares of |e| |x| and of |e| S; the slack is for the bound's own arithmetic.
  const float sums = 2.0f * static_cast<float>(dim + 4) * kFloatUnit;
  const float of_row = 1.01f * (2.0f * kBf16Unit + kBf16Unit * kBf16Unit + sums + 16.0f * kFloatUnit);
  const float of_taken = 1.01f * (2.0f * sums + 32.0f * kFloatUnit);
  for (int level = a.first_level; level < a.levels; ++level) {
    for (int i = thread; i < kRows; i += kThreads) {
      s.counts[i] = 0;
      for (int h = 0; h < kWarpsAcross; ++h) s.half_limit[h][i] = INFINITY;
    }
    __syncthreads();
    for (int64_t first_code = 0; first_code < codes; first_code += kCodes) {
      float sum[kWarpRows / 16][kWarpCodes / 8][4] = {};
      for (int64_t first = 0; first < padded; first += kDepth) {
        __syncthreads();
        if (!kResident) {
          float unused[kRows / 16] = {};
          load_rows(a, row, first, kDepth, left, left_pitch, unused);
        }
        load_codes(a, level, first_code, first, s.right);
        __syncthreads();
        COLLIMATE_UNROLL
        for (int depth = 0; depth < kDepth; depth += 16) {
          MatrixFragments x[kWarpRows / 16];
          COLLIMATE_UNROLL
          for (int i = 0; i < kWarpRows / 16; ++i)
            x[i] = load_matrices<false>(left + (warp_row + 16 * i + lane % 16) * left_pitch + (kResident ? first : 0) +
                                        depth + lane / 16 * 8);
          COLLIMATE_UNROLL
          for (int j = 0; j < kWarpCodes / 16; ++j) {
            const MatrixFragments e = load_matrices<false>(
                s.right + (warp_code + 16 * j + lane / 16 * 8 + lane % 8) * kPitch + depth + lane / 8 % 2 * 8);
            COLLIMATE_UNROLL
            for (int i = 0; i < kWarpRows / 16; ++i) {
              multiply_add(sum[i][2 * j], x[i].part, e.part[0], e.part[1]);
              multiply_add(sum[i][2 * j + 1], x[i].part, e.part[2], e.part[3]);
            }
          }
        }
      }
      // Scores in place of products, and the least that any can be at most.
      COLLIMATE_UNROLL
      for (int i = 0; i < kWarpRows / 16; ++i) {
        COLLIMATE_UNROLL
        for (int below = 0; below < 2; ++below) {
          const int at_row = warp_row + 16 * i + lane / 4 + 8 * below;
          const float scale = of_row * s.norm[at_row] + of_taken * s.taken[at_row];
          float upper = INFINITY;
          COLLIMATE_UNROLL
          for (int j = 0; j < kWarpCodes / 8; ++j) {
            COLLIMATE_UNROLL
            for (int right = 0; right < 2; ++right) {
              const int64_t code = first_code + warp_code + 8 * j + lane % 4 * 2 + right;
              float& score = sum[i][j][2 * below + right];
              if (code >= codes) {
                score = INFINITY;
                continue;
              }
              const int64_t at = level * codes + code;
              float taken = 0.0f;
              for (int before = 0; before < level; ++before)
                taken += a.products[(before * codes + s.codes[at_row][before]) * (a.levels * codes) + at];
              score = a.half_norms[at] - (score - taken);
              const float bound = score + scale * a.norms[at];
              upper = bound < upper ? bound : upper;
            }
          }
          for (int distance = 1; distance < 4; distance *= 2) {
            const float other = __shfl_xor_sync(kAllLanes, upper, distance);
            upper = other < upper ? other : upper;
          }
          if (lane % 4 == 0 && upper < s.half_limit[half][at_row]) s.half_limit[half][at_row] = upper;
        }
      }
      __syncthreads();
      COLLIMATE_UNROLL
      for (int i = 0; i < kWarpRows / 16; ++i) {
        COLLIMATE_UNROLL
        for (int below = 0; below < 2; ++below) {
          const int at_row = warp_row + 16 * i + lane / 4 + 8 * below;
          const float scale = of_row * s.norm[at_row] + of_taken * s.taken[at_row];
          float limit = s.half_limit[0][at_row];
          for (int h = 1; h < kWarpsAcross; ++h)
            limit = s.half_limit[h][at_row] < limit ? s.half_limit[h][at_row] : limit;
          limit += 2.0f * a.absolute_error;
          COLLIMATE_UNROLL
          for (int j = 0; j < kWarpCodes / 8; ++j) {
            COLLIMATE_UNROLL
            for (int right = 0; right < 2; ++right) {
              const int64_t code = first_code + warp_code + 8 * j + lane % 4 * 2 + right;
              if (code >= codes) continue;
              if (sum[i][j][2 * below + right] - scale * a.norms[level * codes + code] > limit) continue;
              const int place = atomicAdd(&s.counts[at_row], 1);
              if (place < kCandidatesMax) s.candidates[at_row][place] = static_cast<int>(code);
            }
          }
        }
      }
      __syncthreads();
    }
    for (int i = warp; i < kRows; i += kThreads / kWarpSize) {
      if (row + i >= a.rows) break;  // the whole warp
      const int32_t code = decide(a, s, i, row + i, level);
      __syncwarp();
      if (lane == 0) {
        s.codes[i][level] = code;
        s.taken[i] += a.norms[level * codes + code];
        a.codes[(row + i) * a.codes_stride + level] = code;
      }
    }
    __syncthreads();
  }
}

}  // namespace

void nearest_codes(Device& device, const NearestCodes& a) {
  const bool resident = a.view.dim <= kResidentColumns;
  const int64_t padded = (a.view.dim + kDepth - 1) / kDepth * kDepth;
  const size_t left = static_cast<size_t>(kRows * (resident ? padded + 8 : kPitch)) * sizeof(uint16_t);
  const Launch shape{blocks_for(a.rows, kRows), kThreads, sizeof(Shared) + left};
  if (resident)
    launch(device, "nearest_codes", shape, nearest_of_tile<true>, a);
  else
    launch(device, "nearest_codes", shape, nearest_of_tile<false>, a);
}

}  // namespace collimate::cuda
