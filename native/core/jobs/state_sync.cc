// Digests, the table of who has what, and the transfer.
#include "core/jobs/state_sync.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "collective/tell_all.h"
#include "core/sha256.h"

namespace collimate {
namespace {

constexpr size_t kHashBlock = size_t{1} << 20;   // bytes
constexpr size_t kSendChunk = size_t{16} << 20;  // bytes of one exchange; the receiver's buffers are the state itself

std::vector<std::span<const std::byte>> hash_blocks(const ReplicatedState& state) {
  std::vector<std::span<const std::byte>> blocks;
  const auto add = [&](std::span<const std::byte> bytes) {
    for (size_t at = 0; at < bytes.size(); at += kHashBlock) {
      blocks.push_back(bytes.subspan(at, std::min(kHashBlock, bytes.size() - at)));
    }
  };
  for (const std::span<float> part : state.parts) add(std::as_bytes(part));
  add(std::as_bytes(std::span(state.curve)));
  return blocks;
}

struct RankState {
  int64_t step = -1;
  int64_t elements = 0;
  std::array<char, 64> digest{};
  std::string digest_text() const { return {digest.data(), digest.size()}; }
};

RankState own_state(Pool& pool, const ReplicatedState& state) {
  RankState own{.step = state.step};
  for (const std::span<float> part : state.parts) own.elements += static_cast<int64_t>(part.size());
  if (state.step >= 0) {
    const std::string digest = state_digest(pool, state);
    std::memcpy(own.digest.data(), digest.data(), own.digest.size());
  }
  return own;
}

// Every rank judges the same table, so all of them come to the same end.
void check_table(const std::vector<RankState>& table) {
  for (size_t rank = 0; rank < table.size(); ++rank) {
    if (table[rank].elements != table[0].elements) {
      throw JobFailure(FailureCause::internal, "rank " + std::to_string(rank) + " trains " +
                                                   std::to_string(table[rank].elements) + " numbers, rank 0 " +
                                                   std::to_string(table[0].elements) +
                                                   "; expected one job on all ranks of a gang");
    }
    if (table[rank].step < 0) continue;
    const auto peer =
        std::find_if(table.begin(), table.end(), [&](const RankState& o) { return o.step == table[rank].step; });
    if (peer->digest == table[rank].digest) continue;
    throw JobFailure(FailureCause::nondeterminism,
                     "expected the same state on ranks " + std::to_string(peer - table.begin()) + " and " +
                         std::to_string(rank) + " after step " + std::to_string(table[rank].step) + ", got " +
                         peer->digest_text() + " and " + table[rank].digest_text() +
                         "; one of these machines computes other bytes: check their memory and numerics class, and "
                         "start from the last checkpoint",
                     table[rank].step);
  }
}

class Transfer {
 public:
  Transfer(Transport& transport, const ReplicatedState& state) : transport_(transport) {
    for (const std::span<float> part : state.parts) parts_.push_back(std::as_writable_bytes(part));
    parts_.push_back(std::as_writable_bytes(std::span(state.curve)));
  }
  void send_to(const std::vector<int>& peers) {
    for_chunks([&](const std::vector<std::span<std::byte>>& chunk) {
      std::vector<SendPart> sends;
      for (const int peer : peers) {
        for (const auto piece : chunk) sends.push_back({peer, piece});
      }
      transport_.exchange(sends, {});
    });
  }
  void receive_from(int source) {
    for_chunks([&](const std::vector<std::span<std::byte>>& chunk) {
      std::vector<RecvPart> recvs;
      for (const auto piece : chunk) recvs.push_back({source, piece});
      transport_.exchange({}, recvs);
    });
  }

 private:
  // Pieces of parts that together fill one exchange; the same on both sides.
  template <typename Body>
  void for_chunks(const Body& body) {
    std::vector<std::span<std::byte>> chunk;
    size_t room = kSendChunk;
    for (std::span<std::byte> part : parts_) {
      while (!part.empty()) {
        const size_t size = std::min(room, part.size());
        chunk.push_back(part.first(size));
        part = part.subspan(size);
        room -= size;
        if (room > 0) continue;
        body(chunk);
        chunk.clear();
        room = kSendChunk;
      }
    }
    if (!chunk.empty()) body(chunk);
  }

  Transport& transport_;
  std::vector<std::span<std::byte>> parts_;
};

void receive(Transport& transport, Pool& pool, const ReplicatedState& state, int source, const RankState& expected) {
  state.step = -1;
  state.curve.assign(static_cast<size_t>(expected.step), 0.0f);
  Transfer(transport, state).receive_from(source);
  state.step = expected.step;
  const std::string digest = state_digest(pool, state);
  if (digest == expected.digest_text()) return;
  state.step = -1;
  throw JobFailure(FailureCause::peer_lost, "the state of rank " + std::to_string(source) +
                                                " arrived damaged: expected digest " + expected.digest_text() +
                                                ", got " + digest);
}

}  // namespace

std::string state_digest(Pool& pool, const ReplicatedState& state) {
  const auto blocks = hash_blocks(state);
  std::vector<std::string> digests(blocks.size());
  pool.for_each(static_cast<int64_t>(blocks.size()), [&](int64_t block) {
    digests[static_cast<size_t>(block)] = sha256_hex(blocks[static_cast<size_t>(block)]);
  });
  Sha256 all;
  const int64_t step = state.step;
  all.update(std::as_bytes(std::span(&step, 1)));
  for (const std::string& digest : digests) all.update(std::as_bytes(std::span(digest.data(), digest.size())));
  return all.finish();
}

bool synchronise(Transport* transport, Pool& pool, const ReplicatedState& state) {
  if (transport == nullptr || transport->world() == 1) {
    if (state.step < 0) throw StateLost();
    return false;
  }
  const std::vector<RankState> table = tell_all(*transport, own_state(pool, state));
  check_table(table);
  const auto furthest = std::max_element(table.begin(), table.end(),
                                         [](const RankState& a, const RankState& b) { return a.step < b.step; });
  if (furthest->step < 0) throw StateLost();
  const int source = static_cast<int>(furthest - table.begin());
  std::vector<int> behind;
  for (size_t rank = 0; rank < table.size(); ++rank) {
    if (table[rank].step < furthest->step) behind.push_back(static_cast<int>(rank));
  }
  if (transport->rank() == source) Transfer(*transport, state).send_to(behind);
  if (table[static_cast<size_t>(transport->rank())].step == furthest->step) return false;
  receive(*transport, pool, state, source, *furthest);
  return true;
}

}  // namespace collimate
