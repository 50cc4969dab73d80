// Forming the mesh: rank i dials every rank below it and answers every rank above it.
//
// 1. Both sides say generation, world and rank before the first byte of a tensor. A caller of another generation is
//    turned away and the wait goes on: a late attempt cannot disturb a newer gang.
// 2. Callers are greeted side by side, so a silent stranger on the port holds nobody up.
// 3. Dialling retries until the deadline: a peer may come up later.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include "collective/tcp_transport.h"
#include "core/failure.h"
#include "core/sha256.h"

namespace collimate::tcp {
namespace {

constexpr int kSliceMs = 20;

// What each side sends first; the generation travels as its SHA-256 so that the size is fixed.
struct Hello {
  std::array<char, 8> magic = {'C', 'O', 'L', 'L', 'I', 'M', '0', '1'};
  std::array<char, 64> generation{};
  uint32_t world = 0;
  uint32_t rank = 0;
};

Hello hello_of(const TcpGang& gang) {
  Hello hello;
  const std::string digest = sha256_hex(std::as_bytes(std::span(gang.generation.data(), gang.generation.size())));
  std::memcpy(hello.generation.data(), digest.data(), hello.generation.size());
  hello.world = static_cast<uint32_t>(gang.addresses.size());
  hello.rank = static_cast<uint32_t>(gang.rank);
  return hello;
}

bool same_gang(const Hello& mine, const Hello& theirs) {
  return mine.magic == theirs.magic && mine.generation == theirs.generation && mine.world == theirs.world;
}

// A greeting in flight.
struct Caller {
  Descriptor stream;
  Hello hello;
  size_t received = 0;
};

class Mesh {
 public:
  Mesh(Descriptor listener, const TcpGang& gang)
      : gang_(gang),
        mine_(hello_of(gang)),
        listener_(std::move(listener)),
        streams_(gang.addresses.size()),
        deadline_(Clock::now() + std::chrono::milliseconds(gang.connect_timeout_ms)) {}

  std::vector<Descriptor> connect() {
    for (int peer = 0; peer < gang_.rank; ++peer) dial(peer);
    while (missing_above()) answer_callers();
    return std::move(streams_);
  }

 private:
  bool missing_above() const {
    for (size_t peer = static_cast<size_t>(gang_.rank) + 1; peer < streams_.size(); ++peer) {
      if (!streams_[peer]) return true;
    }
    return false;
  }

  [[noreturn]] void give_up() const {
    std::string missing;
    for (size_t peer = 0; peer < streams_.size(); ++peer) {
      if (!streams_[peer] && static_cast<int>(peer) != gang_.rank) missing += " " + std::to_string(peer);
    }
    throw JobFailure(FailureCause::peer_lost, "rank" + missing + " did not join generation " + gang_.generation +
                                                  " within " + std::to_string(gang_.connect_timeout_ms) + " ms");
  }

  // Waits in slices, so that a cancelled attempt leaves soon.
  void wait_any(std::span<pollfd> polled) const {
    for (;;) {
      if (gang_.cancelled != nullptr && gang_.cancelled->load()) {
        throw JobFailure(FailureCause::peer_lost, "joining generation " + gang_.generation + " was cancelled");
      }
      const int left_ms = remaining_ms(deadline_);
      const int ready = ::poll(polled.data(), polled.size(), std::min(left_ms, kSliceMs));
      // The deadline holds even while something is always ready, such as a caller that cannot be accepted for want of
      // descriptors.
      if (left_ms == 0) give_up();
      if (ready > 0) return;
    }
  }

  void wait_ready(int fd, short events) const {
    pollfd polled{fd, events, 0};
    wait_any(std::span(&polled, 1));
  }

  // One attempt; an empty descriptor when the peer is not there yet.
  Descriptor try_dial(const std::string& address) const {
    const auto [host, port] = split_address(address);
    const AddressList list = resolve(host, port);
    Descriptor fd(::socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) throw JobFailure(FailureCause::internal, std::string("no socket: ") + std::strerror(errno));
    if (::connect(fd.get(), list->ai_addr, list->ai_addrlen) != 0) {
      if (errno != EINPROGRESS) return {};
      wait_ready(fd.get(), POLLOUT);
      int error = 0;
      socklen_t size = sizeof(error);
      getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) return {};
    }
    configure_stream(fd.get());
    return fd;
  }

  void wait_a_little() const {
    if (remaining_ms(deadline_) == 0) give_up();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (gang_.cancelled != nullptr && gang_.cancelled->load()) give_up();
  }

  void send_hello(int fd) const {
    // A fresh connection's buffer always takes these 80 bytes.
    if (::send(fd, &mine_, sizeof(mine_), MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(mine_))) return;
    throw JobFailure(FailureCause::peer_lost, "a peer closed the connection during the greeting");
  }

  // Reads what has come; false when the stream ended.
  static bool read_hello(Caller& caller) {
    auto* bytes = reinterpret_cast<char*>(&caller.hello);
    while (caller.received < sizeof(Hello)) {
      const ssize_t count =
          ::recv(caller.stream.get(), bytes + caller.received, sizeof(Hello) - caller.received, MSG_DONTWAIT);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
      if (count <= 0) return false;
      caller.received += static_cast<size_t>(count);
    }
    return true;
  }

  void dial(int peer) {
    const std::string& address = gang_.addresses[static_cast<size_t>(peer)];
    Caller called;
    for (;;) {
      called.stream = try_dial(address);
      if (called.stream) break;
      wait_a_little();
    }
    send_hello(called.stream.get());
    while (called.received < sizeof(Hello)) {
      wait_ready(called.stream.get(), POLLIN);
      if (!read_hello(called)) {
        throw JobFailure(FailureCause::peer_lost, "rank " + std::to_string(peer) + " at " + address +
                                                      " refused generation " + gang_.generation +
                                                      " or ended during the greeting");
      }
    }
    if (!same_gang(mine_, called.hello) || called.hello.rank != static_cast<uint32_t>(peer)) {
      throw JobFailure(FailureCause::peer_lost, "at " + address + " answers another gang than rank " +
                                                    std::to_string(peer) + " of generation " + gang_.generation);
    }
    streams_[static_cast<size_t>(peer)] = std::move(called.stream);
  }

  void answer_callers() {
    std::vector<pollfd> polled = {{listener_.get(), POLLIN, 0}};
    for (const Caller& caller : callers_) polled.push_back({caller.stream.get(), POLLIN, 0});
    wait_any(polled);
    for (size_t i = 0; i < callers_.size(); ++i) {
      if (polled[i + 1].revents != 0) greet(callers_[i]);
    }
    std::erase_if(callers_, [](const Caller& caller) { return !caller.stream; });
    const int fd = polled[0].revents != 0 ? ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC) : -1;
    if (fd >= 0) {
      configure_stream(fd);
      callers_.push_back({Descriptor(fd), {}, 0});
    }
  }

  // Leaves the caller's stream empty once it is accepted or turned away.
  void greet(Caller& caller) {
    if (!read_hello(caller)) {
      caller.stream.reset();
      return;
    }
    if (caller.received < sizeof(Hello)) return;
    const size_t peer = caller.hello.rank;
    const bool welcome = same_gang(mine_, caller.hello) && peer > static_cast<size_t>(gang_.rank) &&
                         peer < streams_.size() && !streams_[peer];
    if (!welcome) {
      caller.stream.reset();
      return;
    }
    send_hello(caller.stream.get());
    streams_[peer] = std::move(caller.stream);
  }

  const TcpGang& gang_;
  Hello mine_;
  Descriptor listener_;
  std::vector<Descriptor> streams_;
  std::vector<Caller> callers_;
  Clock::time_point deadline_;
};

}  // namespace

std::vector<Descriptor> connect_mesh(Descriptor listener, const TcpGang& gang) {
  const int world = static_cast<int>(gang.addresses.size());
  if (gang.rank < 0 || gang.rank >= world) {
    fail_bad_input("rank " + std::to_string(gang.rank) + " is not one of the " + std::to_string(world) +
                   " ranks that have an address");
  }
  return Mesh(std::move(listener), gang).connect();
}

}  // namespace collimate::tcp
