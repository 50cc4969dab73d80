// Small parts shared by the TCP transport's files: an owned descriptor, addresses, deadlines.
#pragma once

#include <netdb.h>
#include <sys/socket.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

namespace collimate::tcp {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

using Clock = std::chrono::steady_clock;

struct AddressListDeleter {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using AddressList = std::unique_ptr<addrinfo, AddressListDeleter>;

// JobFailure(bad_input) when the name cannot be resolved.
AddressList resolve(const std::string& host, const std::string& port);
// Splits "host:port" or "[v6]:port"; JobFailure(bad_input) otherwise.
std::pair<std::string, std::string> split_address(const std::string& address);
// Non-blocking, no delay, keep-alive probes that find a vanished machine within about ten seconds.
void configure_stream(int fd);
int remaining_ms(Clock::time_point deadline);

}  // namespace collimate::tcp
