// Stands in for libnccl in tests without a card: the functions that cuda/nccl_library.cu loads, for ranks that are
// threads of one process. Built as a shared library of its own, so that the tests load it as they would the real one.
//
// 1. Nothing blocks, as with a communicator that was asked not to: what is under way advances when its state is asked
//    for.
// 2. Sizes that do not match are an error, and so is a call outside a group.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr int kSuccess = 0, kRemoteError = 6, kInvalid = 4, kInProgress = 7;

struct UniqueId {
  std::array<char, 128> bytes;
};
struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};

struct Gang {
  std::mutex mutex;
  int world = 0, arrived = 0;
  std::map<std::pair<int, int>, std::deque<std::vector<char>>> messages;  // by sender and receiver
};
std::mutex gangs_mutex;
std::map<std::string, std::shared_ptr<Gang>> gangs;
int64_t sent_bytes = 0;  // by all ranks, under gangs_mutex

struct Receive {
  void* to;
  size_t bytes;
  int peer;
};
struct Communicator {
  std::shared_ptr<Gang> gang;
  int rank = 0;
  std::vector<Receive> pending;
  int error = kSuccess;
};
thread_local int group_depth = 0;

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int64_t stand_in_sent_bytes() {
  const std::lock_guard lock(gangs_mutex);
  return sent_bytes;
}

EXPORTED int ncclGetVersion(int* version) {
  *version = 23203;
  return kSuccess;
}
EXPORTED int ncclGetUniqueId(UniqueId* id) {
  static int next = 0;
  const std::lock_guard lock(gangs_mutex);
  *id = {};
  const std::string text = "gang " + std::to_string(++next);
  std::memcpy(id->bytes.data(), text.data(), text.size());
  return kSuccess;
}

EXPORTED int ncclCommInitRankConfig(void** communicator, int world, UniqueId id, int rank, const Config* config) {
  if (config->size != sizeof(Config) || config->magic != 0xcafebeefu || config->blocking != 0) return kInvalid;
  const std::lock_guard lock(gangs_mutex);
  std::shared_ptr<Gang>& gang = gangs[id.bytes.data()];
  if (!gang) gang = std::make_shared<Gang>();
  gang->world = world;
  ++gang->arrived;
  *communicator = new Communicator{gang, rank, {}, kSuccess};
  return kInProgress;
}

EXPORTED int ncclCommGetAsyncError(void* communicator, int* state) {
  auto& own = *static_cast<Communicator*>(communicator);
  const std::lock_guard all(gangs_mutex);
  const std::lock_guard lock(own.gang->mutex);
  std::vector<Receive> left;
  for (const Receive& receive : own.pending) {
    auto& queue = own.gang->messages[{receive.peer, own.rank}];
    if (queue.empty()) {
      left.push_back(receive);
      continue;
    }
    if (queue.front().size() != receive.bytes)
      own.error = kRemoteError;
    else
      std::memcpy(receive.to, queue.front().data(), receive.bytes);
    queue.pop_front();
  }
  own.pending = std::move(left);
  const bool is_waiting = own.gang->arrived < own.gang->world || !own.pending.empty();
  *state = own.error != kSuccess ? own.error : is_waiting ? kInProgress : kSuccess;
  return kSuccess;
}

EXPORTED int ncclCommFinalize(void*) { return kSuccess; }
EXPORTED int ncclCommDestroy(void* communicator) {
  delete static_cast<Communicator*>(communicator);
  return kSuccess;
}
EXPORTED int ncclCommAbort(void* communicator) { return ncclCommDestroy(communicator); }

EXPORTED int ncclGroupStart() {
  ++group_depth;
  return kSuccess;
}
EXPORTED int ncclGroupEnd() { return --group_depth == 0 ? kInProgress : kInvalid; }

EXPORTED int ncclSend(const void* from, size_t count, int type, int peer, void* communicator, void*) {
  auto& own = *static_cast<Communicator*>(communicator);
  if (group_depth != 1 || type != 0 || peer == own.rank) return kInvalid;
  const std::lock_guard all(gangs_mutex);
  const std::lock_guard lock(own.gang->mutex);
  const char* bytes = static_cast<const char*>(from);
  own.gang->messages[{own.rank, peer}].emplace_back(bytes, bytes + count);
  sent_bytes += static_cast<int64_t>(count);
  return kInProgress;
}
EXPORTED int ncclRecv(void* to, size_t count, int type, int peer, void* communicator, void*) {
  auto& own = *static_cast<Communicator*>(communicator);
  if (group_depth != 1 || type != 0 || peer == own.rank) return kInvalid;
  const std::lock_guard lock(own.gang->mutex);
  own.pending.push_back({to, count, peer});
  return kInProgress;
}
