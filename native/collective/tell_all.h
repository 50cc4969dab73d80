// Every rank tells every other one thing.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

#include "collective/transport.h"

namespace collimate {

// By rank: what each of them called this with. T is sent as its bytes, so it may not have holes.
template <typename T>
std::vector<T> tell_all(Transport& transport, const T& own) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<T> table(static_cast<size_t>(transport.world()));
  table[static_cast<size_t>(transport.rank())] = own;
  std::vector<SendPart> sends;
  std::vector<RecvPart> recvs;
  for (int peer = 0; peer < transport.world(); ++peer) {
    if (peer == transport.rank()) continue;
    sends.push_back({peer, std::as_bytes(std::span(&own, 1))});
    recvs.push_back({peer, std::as_writable_bytes(std::span(&table[static_cast<size_t>(peer)], 1))});
  }
  transport.exchange(sends, recvs);
  return table;
}

}  // namespace collimate
