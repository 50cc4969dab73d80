// Progress of many sends and receives over non-blocking streams.
//
// 1. Each peer has a queue of sends and a queue of receives; both advance whenever the kernel takes or gives bytes, so
//    two ranks that send to each other never wait in a circle.
// 2. Only peers with unfinished parts are watched: a peer that finished and left is none of our business.
#include "collective/tcp_transport.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/failure.h"

namespace collimate::tcp {

struct TcpTransport::Progress {
  std::vector<std::span<const std::byte>> sends;
  std::vector<std::span<std::byte>> recvs;
  size_t send_index = 0;
  size_t recv_index = 0;
  Clock::time_point last_byte;
  bool readable = true;
  bool writable = true;
  bool sending() const { return send_index < sends.size(); }
  bool receiving() const { return recv_index < recvs.size(); }
  bool busy() const { return sending() || receiving(); }
};

TcpTransport::TcpTransport(const TcpGang& gang, std::vector<Descriptor> streams)
    : rank_(gang.rank),
      silence_timeout_ms_(gang.silence_timeout_ms),
      streams_(std::move(streams)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_) throw JobFailure(FailureCause::internal, "no descriptor is left for the collective; raise ulimit -n");
}

void TcpTransport::lose(const std::string& message) {
  set_waiting_for(-1);
  lost_ = message;
  // Closing tells the other survivors at once.
  for (Descriptor& stream : streams_) stream.reset();
  throw JobFailure(FailureCause::peer_lost, message);
}

void TcpTransport::check_part(int peer) const {
  if (peer < 0 || peer >= world() || peer == rank_) {
    throw JobFailure(FailureCause::internal, "an exchange of rank " + std::to_string(rank_) + " names peer " +
                                                 std::to_string(peer) + " of " + std::to_string(world()));
  }
}

void TcpTransport::abort() {
  aborted_.store(true);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

bool TcpTransport::is_connected(int peer) const {
  const int fd = streams_[static_cast<size_t>(peer)].get();
  if (fd < 0) return false;
  std::byte next;
  const ssize_t count = ::recv(fd, &next, 1, MSG_PEEK | MSG_DONTWAIT);
  return count > 0 || (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR));
}

void TcpTransport::send_some(int peer, Progress& progress) {
  while (progress.sending()) {
    auto& part = progress.sends[progress.send_index];
    const ssize_t count = ::send(streams_[static_cast<size_t>(peer)].get(), part.data(), part.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      progress.writable = false;
      return;
    }
    if (count < 0) lose("rank " + std::to_string(peer) + " is lost: " + std::strerror(errno) + " while sending");
    progress.last_byte = Clock::now();
    part = part.subspan(static_cast<size_t>(count));
    if (part.empty()) ++progress.send_index;
  }
}

void TcpTransport::receive_some(int peer, Progress& progress) {
  while (progress.receiving()) {
    auto& part = progress.recvs[progress.recv_index];
    const ssize_t count = ::recv(streams_[static_cast<size_t>(peer)].get(), part.data(), part.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      progress.readable = false;
      return;
    }
    if (count < 0) lose("rank " + std::to_string(peer) + " is lost: " + std::strerror(errno) + " while receiving");
    if (count == 0) lose("rank " + std::to_string(peer) + " is lost: it closed the connection");
    progress.last_byte = Clock::now();
    part = part.subspan(static_cast<size_t>(count));
    if (part.empty()) ++progress.recv_index;
  }
}

void TcpTransport::check_silence(const std::vector<Progress>& progress) {
  const auto limit = Clock::now() - std::chrono::milliseconds(silence_timeout_ms_);
  for (size_t peer = 0; peer < progress.size(); ++peer) {
    if (progress[peer].busy() && progress[peer].last_byte < limit) {
      lose("rank " + std::to_string(peer) + " is lost: silent for more than " + std::to_string(silence_timeout_ms_) +
           " ms");
    }
  }
}

void TcpTransport::wait_for_events(std::vector<Progress>& progress) {
  std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0}};
  std::vector<size_t> peers;
  auto earliest = Clock::time_point::max();
  for (size_t peer = 0; peer < progress.size(); ++peer) {
    const Progress& p = progress[peer];
    if (!p.busy()) continue;
    const int events = (p.sending() ? POLLOUT : 0) | (p.receiving() ? POLLIN : 0) | POLLRDHUP;
    polled.push_back({streams_[peer].get(), static_cast<short>(events), 0});
    peers.push_back(peer);
    earliest = std::min(earliest, p.last_byte);
  }
  set_waiting_for(static_cast<int>(peers.front()));
  const auto deadline = earliest + std::chrono::milliseconds(silence_timeout_ms_ + 1);
  const int ready = ::poll(polled.data(), polled.size(), remaining_ms(deadline));
  if (ready == 0) check_silence(progress);
  if (ready <= 0) return;
  for (size_t i = 0; i < peers.size(); ++i) {
    Progress& p = progress[peers[i]];
    const short events = polled[i + 1].revents;
    // A hang-up shows up as an error or an end of stream when the stream is used.
    p.readable = (events & (POLLIN | POLLHUP | POLLERR | POLLRDHUP)) != 0;
    p.writable = (events & (POLLOUT | POLLHUP | POLLERR)) != 0;
    if ((events & POLLRDHUP) != 0 && !p.receiving() && p.sending()) {
      lose("rank " + std::to_string(peers[i]) + " is lost: it closed the connection");
    }
  }
}

void TcpTransport::exchange(std::span<const SendPart> sends, std::span<const RecvPart> recvs) {
  if (!lost_.empty()) throw JobFailure(FailureCause::peer_lost, lost_);
  std::vector<Progress> progress(streams_.size());
  const auto now = Clock::now();
  for (Progress& p : progress) p.last_byte = now;
  for (const SendPart& part : sends) {
    check_part(part.peer);
    if (!part.bytes.empty()) progress[static_cast<size_t>(part.peer)].sends.push_back(part.bytes);
  }
  for (const RecvPart& part : recvs) {
    check_part(part.peer);
    if (!part.bytes.empty()) progress[static_cast<size_t>(part.peer)].recvs.push_back(part.bytes);
  }
  for (;;) {
    if (aborted_.load()) lose("the collective was aborted by this worker");
    bool busy = false;
    for (int peer = 0; peer < world(); ++peer) {
      Progress& p = progress[static_cast<size_t>(peer)];
      if (p.writable) send_some(peer, p);
      if (p.readable) receive_some(peer, p);
      busy = busy || p.busy();
    }
    if (!busy) {
      set_waiting_for(-1);
      return;
    }
    wait_for_events(progress);
  }
}

}  // namespace collimate::tcp

namespace collimate {

std::unique_ptr<Transport> connect_tcp(TcpListener listener, const TcpGang& gang) {
  tcp::Descriptor descriptor(listener.release());
  if (!descriptor) fail_bad_input("the listener was used up by an earlier job; make a new one for each attempt");
  std::vector<tcp::Descriptor> streams = tcp::connect_mesh(std::move(descriptor), gang);
  return std::make_unique<tcp::TcpTransport>(gang, std::move(streams));
}

}  // namespace collimate
