// The transport over connected streams, and the parts of it that connecting fills.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "collective/tcp_socket.h"
#include "collective/transport.h"

namespace collimate::tcp {

// streams[p] is the connection to rank p; the own place is empty.
std::vector<Descriptor> connect_mesh(Descriptor listener, const TcpGang& gang);

class TcpTransport : public Transport {
 public:
  TcpTransport(const TcpGang& gang, std::vector<Descriptor> streams);
  int rank() const override { return rank_; }
  int world() const override { return static_cast<int>(streams_.size()); }
  void exchange(std::span<const SendPart> sends, std::span<const RecvPart> recvs) override;
  void abort() override;
  bool is_connected(int peer) const override;

 private:
  struct Progress;
  [[noreturn]] void lose(const std::string& message);
  void check_part(int peer) const;
  void send_some(int peer, Progress& progress);
  void receive_some(int peer, Progress& progress);
  void wait_for_events(std::vector<Progress>& progress);
  void check_silence(const std::vector<Progress>& progress);

  int rank_ = 0;
  int silence_timeout_ms_ = 0;
  std::vector<Descriptor> streams_;
  Descriptor wake_;
  std::atomic<bool> aborted_{false};
  std::string lost_;  // why the transport is dead; empty while it lives
};

}  // namespace collimate::tcp
