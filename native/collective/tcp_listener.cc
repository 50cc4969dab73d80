// The listening socket: one private interface, a port chosen by the system.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "collective/tcp_socket.h"
#include "collective/transport.h"
#include "core/failure.h"

namespace collimate {
namespace {

bool is_private_v4(uint32_t address) {
  const auto within = [address](uint32_t prefix, int bits) {
    return (address >> (32 - bits)) == (prefix >> (32 - bits));
  };
  return within(0x7f000000, 8) || within(0x0a000000, 8) || within(0xac100000, 12) || within(0xc0a80000, 16) ||
         within(0xa9fe0000, 16) || within(0x64400000, 10);
}

bool is_private(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    return is_private_v4(ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr));
  }
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_LINKLOCAL(&v6) || (v6.s6_addr[0] & 0xfe) == 0xfc;
}

// The tensor plane is not encrypted, so a public address must be asked for by name.
void check_private(const std::string& host, const sockaddr* address) {
  const char* allowed = std::getenv("COLLIMATE_PUBLIC_COLLECTIVES");
  if (is_private(address) || (allowed != nullptr && std::string(allowed) == "1")) return;
  fail_bad_input("the collective would listen on \"" + host +
                 "\", which is not a private address, and its traffic is not encrypted; give the address of a private "
                 "interface, or set COLLIMATE_PUBLIC_COLLECTIVES=1 where the network itself is protected");
}

}  // namespace

TcpListener::TcpListener(const std::string& host, int port) : host_(host) {
  const tcp::AddressList list = tcp::resolve(host, std::to_string(port));
  check_private(host, list->ai_addr);
  tcp::Descriptor fd(::socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int yes = 1;
  if (fd && port != 0) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (!fd || ::bind(fd.get(), list->ai_addr, list->ai_addrlen) != 0 || ::listen(fd.get(), 1024) != 0) {
    fail_bad_input("cannot listen on " + host + ", port " + std::to_string(port) + " (" + std::strerror(errno) +
                   "); give an address of this machine and a free port");
  }
  fd_ = fd.release();
}

TcpListener::~TcpListener() { tcp::Descriptor closed(fd_); }

TcpListener::TcpListener(TcpListener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), host_(std::move(other.host_)) {}

TcpListener& TcpListener::operator=(TcpListener&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(host_, other.host_);
  return *this;
}

std::string TcpListener::address() const {
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(fd_, reinterpret_cast<sockaddr*>(&bound), &size);
  if (bound.ss_family == AF_INET6) {
    return "[" + host_ + "]:" + std::to_string(ntohs(reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port));
  }
  return host_ + ":" + std::to_string(ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port));
}

int TcpListener::release() { return std::exchange(fd_, -1); }

}  // namespace collimate
