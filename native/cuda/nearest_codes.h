// The kernel behind clustering.h: codes of levels [first_level, levels) of every row, one after the other.
#pragma once

#include "cuda/device.h"
#include "cuda/exact_rows.h"

namespace collimate::cuda {

constexpr int kDeviceLevelsMax = 8;

struct NearestCodes {
  int64_t rows = 0;
  ResidualView view;
  int first_level = 0, levels = 0;
  const uint16_t* rounded = nullptr;  // bf16 [L, K, D]
  const float* half_norms = nullptr;  // [L, K]: |e|^2 / 2, by the definition
  const float* norms = nullptr;       // [L, K]: |e|
  const float* products = nullptr;    // [L * K, L * K]: e . e' of different levels; null for a level alone
  float absolute_error = 0;           // of any score, whatever the row
  int32_t* codes = nullptr;           // [N, codes_stride]; levels before first_level are known
  int64_t codes_stride = 0;
};
void nearest_codes(Device& device, const NearestCodes& args);

}  // namespace collimate::cuda
