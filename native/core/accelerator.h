// A device beside the processor, as core/ sees it: cuda/ implements it, and tells of itself by register_accelerators().
//
// 1. A process uses one device or none, chosen once at its start (`use_device`); the numerics class names it.
// 2. What a kind of job cannot do there it does on the processor, under the same class.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "collective/transport.h"
#include "core/clusterer.h"
#include "core/dccf/passes.h"
#include "core/ops_backend.h"

namespace collimate {

struct AcceleratorMemory {
  int64_t free_bytes = 0, total_bytes = 0;
};

class Accelerator {
 public:
  virtual ~Accelerator() = default;
  virtual std::string name() const = 0;          // NVIDIA H100 …
  virtual std::string architecture() const = 0;  // sm_90
  virtual AcceleratorMemory memory() const = 0;
  // Share of the last moments in which it computed, 0 to 1; nothing where the driver does not tell.
  virtual std::optional<double> utilisation() const = 0;
  // What multiplies matrices there: a library and its version, or the kernels of this build and why.
  virtual std::string products() const = 0;
  // Hash of what its kernels make of fixed inputs: a part of the numerics class.
  virtual std::string probe() = 0;
  // Null where it cannot do it with these levels. Beams wider than one run on `pool`.
  virtual std::unique_ptr<Clusterer> cluster(Pool& pool, const RowSource& rows, int64_t levels) = 0;
  // What decoders run on.
  virtual std::unique_ptr<OpsBackend> ops() = 0;
  // DCCF over this graph; null where embeddings are too wide.
  virtual std::unique_ptr<dccf::Passes> dccf_passes(const dccf::Graph& graph, int64_t dim) = 0;
  // The gang with its bytes sent from device to device where all its ranks can, else as it came. All ranks of the gang
  // call it as they join. JobFailure(peer_lost) as from the gang itself.
  virtual std::unique_ptr<Transport> connect(std::unique_ptr<Transport> gang, const TcpGang& options) = 0;
};

// Makes device `index` of a kind ("cuda"); throws JobFailure(bad_input) where there is none.
using AcceleratorOpener = std::function<std::unique_ptr<Accelerator>(int index)>;
void register_accelerators(const std::string& kind, AcceleratorOpener opener);

// "cpu", or a kind and an index ("cuda:0"). JobFailure(bad_input) for anything else, for a kind that this build lacks,
// and for a device that is not there. To be called before the first job and before numerics_class().
void use_device(const std::string& device);
// The one in use, or null.
Accelerator* accelerator();

// On the accelerator in use where it can, else on the pool.
std::unique_ptr<Clusterer> make_clusterer(Pool& pool, const RowSource& rows, int64_t levels);
std::unique_ptr<OpsBackend> make_ops_backend(Pool& pool);
std::unique_ptr<dccf::Passes> make_passes(Pool& pool, const dccf::Graph& graph, int64_t dim);

}  // namespace collimate
