// An exchange in which every rank sends to every other, checked byte for byte.
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "collective/transport.h"

namespace collimate {

inline std::vector<std::byte> pattern(int from, int to, size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 + size_t(from) * 7 + size_t(to) * 13);
  return bytes;
}

// Every rank sends two parts to every other.
inline void all_to_all(Transport& transport, size_t size) {
  std::vector<std::vector<std::byte>> sent;
  std::vector<std::vector<std::byte>> received;
  std::vector<SendPart> sends;
  std::vector<RecvPart> recvs;
  for (int peer = 0; peer < transport.world(); ++peer) {
    sent.push_back(pattern(transport.rank(), peer, size));
    received.emplace_back(size);
  }
  for (int peer = 0; peer < transport.world(); ++peer) {
    if (peer == transport.rank()) continue;
    const std::span<const std::byte> out = sent[size_t(peer)];
    const std::span<std::byte> in = received[size_t(peer)];
    sends.push_back({peer, out.first(size / 3)});
    sends.push_back({peer, out.subspan(size / 3)});
    recvs.push_back({peer, in.first(size / 2)});
    recvs.push_back({peer, in.subspan(size / 2)});
  }
  transport.exchange(sends, recvs);
  for (int peer = 0; peer < transport.world(); ++peer) {
    if (peer != transport.rank() && received[size_t(peer)] != pattern(peer, transport.rank(), size)) {
      throw std::runtime_error("wrong bytes from rank " + std::to_string(peer));
    }
  }
}

}  // namespace collimate
