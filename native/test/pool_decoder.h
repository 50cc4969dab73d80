// Decoders on a pool, with the weights and the backend that they need.
#pragma once

#include <memory>

#include "core/model/decoder.h"
#include "core/model/decoder_weights.h"
#include "core/ops_backend.h"
#include "core/pool.h"

namespace collimate {

// Of parameters and a pool that outlive it.
struct PoolWeights {
  std::unique_ptr<OpsBackend> backend;
  DecoderWeights weights;
  PoolWeights(const Parameters& parameters, Pool& pool, Precision precision = Precision::fp32)
      : backend(ops_on_processor(pool)), weights(parameters, *backend, precision) {}
};

class PoolDecoder : private PoolWeights, public Decoder {
 public:
  PoolDecoder(const Parameters& parameters, Pool& pool, int64_t positions, const Options& options = {})
      : PoolWeights(parameters, pool), Decoder(weights, positions, options) {}
};

}  // namespace collimate
