// The tensor plane: bytes between the ranks of one gang. Sums are never its business (see core/lanes.h).
//
// 1. One Transport belongs to one generation (job id, epoch); a peer that presents another generation is refused.
// 2. A lost or silent peer is JobFailure(peer_lost) naming the rank; the transport is dead afterwards.
// 3. Not encrypted: it binds to a private interface only, and the worker says so at start.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace collimate {

struct SendPart {
  int peer = 0;
  std::span<const std::byte> bytes;
};
struct RecvPart {
  int peer = 0;
  std::span<std::byte> bytes;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int world() const = 0;
  // Runs all parts to their end, progressing them together; parts of one peer keep their order. The two ends of a pair
  // agree on how many bytes go each way in each exchange; how they are cut into parts is each one's own business.
  virtual void exchange(std::span<const SendPart> sends, std::span<const RecvPart> recvs) = 0;
  // Makes a blocked or later exchange fail at once; callable from any thread.
  virtual void abort() = 0;
  // Whether the peer's connection still stands. Reads nothing.
  virtual bool is_connected(int peer) const = 0;

  // How the bytes travel, for the log.
  const std::string& description() const { return description_; }
  void describe(std::string description) { description_ = std::move(description); }

  // While an exchange waits, `waiting_for` holds the lowest rank with unfinished parts, else -1. It outlives this.
  void tell_waiting(std::atomic<int>* waiting_for) { waiting_for_ = waiting_for; }

 protected:
  void set_waiting_for(int rank) {
    if (waiting_for_ != nullptr) waiting_for_->store(rank, std::memory_order_relaxed);
  }

 private:
  std::atomic<int>* waiting_for_ = nullptr;
  std::string description_ = "TCP";
};

// A listening socket on `host` (a private interface), made before the addresses of the gang are known. Port 0 lets the
// system choose. A public or wildcard address is refused unless COLLIMATE_PUBLIC_COLLECTIVES=1.
class TcpListener {
 public:
  explicit TcpListener(const std::string& host, int port = 0);
  ~TcpListener();
  TcpListener(TcpListener&&) noexcept;
  TcpListener& operator=(TcpListener&&) noexcept;
  std::string address() const;  // host:port
  int release();                // the descriptor; the listener no longer owns it

 private:
  int fd_ = -1;
  std::string host_;
};

struct TcpGang {
  std::string generation;  // job id and epoch
  int rank = 0;
  std::vector<std::string> addresses;  // host:port in rank order
  int connect_timeout_ms = 10000;
  int silence_timeout_ms = 60000;                // no byte from a peer for so long while one is awaited: lost
  const std::atomic<bool>* cancelled = nullptr;  // ends connect_tcp early when it becomes true
};

// Full mesh: rank i connects to every rank below it. Throws JobFailure(peer_lost) naming the ranks that did not come,
// or that presented another generation.
std::unique_ptr<Transport> connect_tcp(TcpListener listener, const TcpGang& gang);

}  // namespace collimate
