// NCCL as the second way for a gang's bytes, from card to card, loaded when a device is opened since a machine may lack
// it.
//
// 1. It moves bytes and adds nothing: sums stay those of core/lanes.h, so results are those over TCP.
// 2. COLLIMATE_NCCL: `auto` (where it is found; the default), `off`, `on` (a device without it is an error) or the path
//    of the library.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "collective/transport.h"
#include "core/dynamic_library.h"
#include "cuda/device.h"

namespace collimate::cuda {

// The functions that are used, declared here: the library's header belongs to it, its ABI is fixed since version 2.14.
struct NcclLibrary {
  // JobFailure(bad_input) where it is asked for and cannot be had.
  NcclLibrary();
  bool is_usable() const { return version > 0; }

  static constexpr int kSuccess = 0, kSystemError = 2, kRemoteError = 6, kInProgress = 7, kTimeout = 8;
  static constexpr int kTypeByte = 0;  // ncclInt8
  struct UniqueId {
    char bytes[128];
  };
  // As of version 2.14; newer libraries take the rest as not set.
  struct Config {
    size_t size = sizeof(Config);
    unsigned magic = 0xcafebeef;
    unsigned version = 21400;
    int blocking = 0;
  };

  std::string problem;  // why it is not usable
  int version = 0;      // 23203 is 2.32.3
  int (*get_unique_id)(UniqueId* id) = nullptr;
  int (*init)(void** communicator, int world, UniqueId id, int rank, Config* config) = nullptr;
  int (*state)(void* communicator, int* state) = nullptr;
  int (*finalize)(void* communicator) = nullptr;
  int (*destroy)(void* communicator) = nullptr;
  int (*abort)(void* communicator) = nullptr;
  int (*send)(const void* from, size_t count, int type, int peer, void* communicator, void* stream) = nullptr;
  int (*receive)(void* to, size_t count, int type, int peer, void* communicator, void* stream) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;

 private:
  bool bind_all();
  DynamicLibrary library_;
};

// The gang over NCCL where all of its ranks have the same version and each a card of its own, else `tcp` as it came
// with the reason in its description. All ranks of the gang call it as they join, and all come to the same end.
// JobFailure(peer_lost) when one is lost meanwhile.
std::unique_ptr<Transport> connect_nccl(Device& device, const NcclLibrary& nccl, std::unique_ptr<Transport> tcp,
                                        const TcpGang& gang);

}  // namespace collimate::cuda
