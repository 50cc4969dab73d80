// The ops that only decoding needs: backend interface like core/ops.h, implemented in cpu/.
//
// They run on the calling thread: decoding is parallel over users, not inside one.
#pragma once

#include <cstdint>
#include <span>

namespace collimate::ops {

// log(sum(exp(x))), x not empty, with an order of additions fixed by its size. NaN when any x is NaN or +inf.
float log_sum_exp(std::span<const float> x);

// What a search needs of rows of logits: their log_sum_exp, and some of their columns.
struct ColumnChoice {
  int64_t rows = 0, width = 0, count = 0;
  const float* x = nullptr;         // [R, width]
  const int32_t* chosen = nullptr;  // [count], of the columns
  float* y = nullptr;               // [R, count]
  float* log_sum_exp = nullptr;     // [R]
};
void choose_columns(const ColumnChoice& args);

// Attention of one user's hypotheses, one query row each: over the keys and values of the prompt, which all rows share,
// and over those of the tokens after it, which lie in one block per decoding step and are found through `ancestors`. So
// choosing other hypotheses moves indices, never keys or values.
//
// Shapes: R rows, H query heads, K key/value heads, D head width, P prompt rows, S steps.
struct DecodeAttention {
  int64_t rows = 0, heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0.0f;
  const float* q = nullptr;  // [R, H * D]
  int64_t q_stride = 0;
  int64_t prompt_rows = 0;          // that are seen; not 0 together with `steps`
  const float* prompt_k = nullptr;  // [P, K * D]
  const float* prompt_v = nullptr;
  int64_t steps = 0;
  const float* const* step_k = nullptr;  // [S] blocks of rows [K * D]
  const float* const* step_v = nullptr;
  const int32_t* ancestors = nullptr;  // [R, S]: row of block s that row r sees
  int64_t ancestors_stride = 0;
  float* scratch = nullptr;  // [R * (P + S)]
  float* out = nullptr;      // [R, H * D], contiguous
};
void decode_attention(const DecodeAttention& args);

// The same for the users of a group, whose rows lie side by side.
struct GroupAttention {
  int64_t users = 0, rows = 0;  // rows: of each user
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0.0f;
  int64_t window = 0;        // a row sees itself and so many less one before it; 0: all before it
  const float* q = nullptr;  // [users * R, H * D]
  int64_t q_stride = 0;
  const int32_t* live = nullptr;         // [users]: rows that are attended; what is left of `out` becomes zero
  const int32_t* prompt_rows = nullptr;  // [users]; 0: nobody is there
  const float* prompt_k = nullptr;       // [P, K * D] of the first user
  const float* prompt_v = nullptr;
  int64_t prompt_stride = 0;  // floats between users
  int64_t prompt_max = 0;     // bound of prompt_rows
  int64_t steps = 0;
  const float* step_k = nullptr;  // of the first step: rows [K * D], those of a user side by side
  const float* step_v = nullptr;
  int64_t step_stride = 0;             // floats between steps
  const int32_t* step_rows = nullptr;  // [S]: rows of a user in that step
  const int32_t* ancestors = nullptr;  // [R, S] of the first user
  int64_t ancestors_user_stride = 0;   // between users
  float* scratch = nullptr;            // [R * (P + S)]; a device has its own
  float* out = nullptr;                // [users * R, H * D], contiguous
};
void decode_attention(const GroupAttention& args);

}  // namespace collimate::ops
