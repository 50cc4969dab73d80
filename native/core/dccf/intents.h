// Intent-aware representations: R = softmax(E C) C^T, with C [d, K] the intent prototypes of one side (users or items).
//
// The softmax is never stored: fixed blocks of rows compute it, use it, and the backward computes it again. Gradients
// of C are summed over those blocks in tree order.
#pragma once

#include <cstdint>

#include "core/pool.h"

namespace collimate::dccf {

struct IntentsForward {
  int64_t rows = 0, dim = 0, intents = 0;
  const float* e = nullptr;           // [rows, d]
  const float* prototypes = nullptr;  // [d, K]
  float* r = nullptr;                 // [rows, d]
};
void intents_forward(Pool& pool, const IntentsForward& args);

struct IntentsBackward {
  int64_t rows = 0, dim = 0, intents = 0;
  const float* e = nullptr;
  const float* prototypes = nullptr;
  const float* dr = nullptr;     // [rows, d]
  float* de = nullptr;           // [rows, d], accumulates
  float* dprototypes = nullptr;  // [d, K], accumulates
};
void intents_backward(Pool& pool, const IntentsBackward& args);

}  // namespace collimate::dccf
