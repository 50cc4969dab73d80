// Stands between two ranks and can hold back what one sends to the other: the moment at which one has a step and the
// other has not.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>

#include "collective/tcp_socket.h"
#include "collective/transport.h"

namespace collimate {

// One caller is passed on to `target`. Ends, closing both sides, when either side does.
class StallingProxy {
 public:
  explicit StallingProxy(std::string target)
      : target_(std::move(target)), address_(listener_.address()), thread_([this] { run(); }) {}
  ~StallingProxy() {
    quit_ = true;
    thread_.join();
  }
  const std::string& address() const { return address_; }
  // From now on only so many more bytes of the target reach the caller; the rest is taken and kept back.
  void stall_after(int64_t bytes) { allowance_ = bytes; }

 private:
  static bool ready(int fd) {
    pollfd polled{fd, POLLIN, 0};
    return ::poll(&polled, 1, 5) > 0;
  }
  static void send_all(int fd, const char* bytes, ssize_t size) {
    while (size > 0) {
      const ssize_t sent = ::send(fd, bytes, static_cast<size_t>(size), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes += sent;
      size -= sent;
    }
  }

  void run() {
    const tcp::Descriptor waiting(listener_.release());
    while (!ready(waiting.get())) {
      if (quit_) return;
    }
    const tcp::Descriptor caller(::accept4(waiting.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const auto [host, port] = tcp::split_address(target_);
    const tcp::AddressList list = tcp::resolve(host, port);
    const tcp::Descriptor target(::socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(target.get(), list->ai_addr, list->ai_addrlen) != 0) return;
    std::array<char, 4096> buffer;
    while (!quit_) {
      if (ready(caller.get())) {
        const ssize_t got = ::recv(caller.get(), buffer.data(), buffer.size(), 0);
        if (got <= 0) return;
        send_all(target.get(), buffer.data(), got);
      }
      if (ready(target.get())) {
        const ssize_t got = ::recv(target.get(), buffer.data(), buffer.size(), 0);
        if (got <= 0) return;
        const ssize_t passed = std::min<int64_t>(got, allowance_);
        if (allowance_ != kAll) allowance_ -= passed;
        send_all(caller.get(), buffer.data(), passed);
      }
    }
  }

  static constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  TcpListener listener_{"127.0.0.1"};
  std::string target_, address_;
  std::atomic<int64_t> allowance_{kAll};
  std::atomic<bool> quit_{false};
  std::thread thread_;
};

}  // namespace collimate
