// Bytes of a gang from card to card by NCCL's send and receive.
//
// 1. What is short goes over TCP, whose connections also tell of peers that end: nothing waits for a card that is gone.
// 2. The communicator never blocks: its state is asked for, beside the connections, an abort and a deadline.
// 3. Bytes come from the host and go back to it, since the lanes' trees add them there.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "collective/tell_all.h"
#include "core/failure.h"
#include "cuda/nccl.h"

namespace collimate::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// Bytes one way between two ranks in one exchange: fewer go over TCP. Both ends count the same.
constexpr size_t kShort = 256 << 10;
// A peer may end right after its last byte has left its card.
constexpr auto kGrace = std::chrono::milliseconds(500);
constexpr auto kFinalizeLimit = std::chrono::seconds(2);

std::string version_text(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

bool is_waiting(int status) { return status == NcclLibrary::kSuccess || status == NcclLibrary::kInProgress; }

// A state that only the other ranks, or the way to them, can be the cause of.
bool is_remote(int status) {
  return status == NcclLibrary::kSystemError || status == NcclLibrary::kRemoteError || status == NcclLibrary::kTimeout;
}

// Longer and longer, so that short exchanges are not held up and long ones do not keep a core busy.
class Pause {
 public:
  void operator()() {
    std::this_thread::sleep_for(length_);
    length_ = std::min(2 * length_, std::chrono::microseconds(1000));
  }

 private:
  std::chrono::microseconds length_{10};
};

class NcclTransport final : public Transport {
 public:
  NcclTransport(Device& device, const NcclLibrary& nccl, std::unique_ptr<Transport> tcp, const TcpGang& gang)
      : device_(device), nccl_(nccl), tcp_(std::move(tcp)), silence_(gang.silence_timeout_ms) {
    describe("NCCL " + version_text(nccl.version) + " (and TCP)");
  }
  ~NcclTransport() override { close(); }

  // False where NCCL cannot be set up on this rank.
  bool set_up(const NcclLibrary::UniqueId& id, const TcpGang& gang);
  Transport& tcp() { return *tcp_; }
  std::unique_ptr<Transport> give_up() {
    lost_ = "given up";
    close();
    return std::move(tcp_);
  }

  int rank() const override { return tcp_->rank(); }
  int world() const override { return tcp_->world(); }
  void exchange(std::span<const SendPart> sends, std::span<const RecvPart> recvs) override;
  void abort() override {
    aborted_.store(true);
    tcp_->abort();
  }
  bool is_connected(int peer) const override { return tcp_->is_connected(peer); }

 private:
  // One way to or from one peer.
  struct Way {
    size_t bytes = 0, offset = 0;  // of the device's array
  };
  [[noreturn]] void lose(const std::string& message);
  [[noreturn]] void fail(int status, const char* what);
  void check(int status, const char* what) {
    if (!is_waiting(status)) fail(status, what);
  }
  void wait(const std::vector<bool>& peers);
  void close();

  Device& device_;
  const NcclLibrary& nccl_;
  std::unique_ptr<Transport> tcp_;
  std::chrono::milliseconds silence_;
  void* communicator_ = nullptr;
  DeviceArray<std::byte> outgoing_, incoming_;
  std::atomic<bool> aborted_{false};
  std::string lost_;
};

bool NcclTransport::set_up(const NcclLibrary::UniqueId& id, const TcpGang& gang) {
  device_.make_current();
  NcclLibrary::Config config;
  int status = nccl_.init(&communicator_, world(), id, rank(), &config);
  const auto deadline = Clock::now() + std::chrono::milliseconds(gang.connect_timeout_ms);
  Pause pause;
  while (status == NcclLibrary::kInProgress || status == NcclLibrary::kSuccess) {
    if (const int asked = nccl_.state(communicator_, &status); asked != NcclLibrary::kSuccess) return false;
    if (status == NcclLibrary::kSuccess) return true;
    if (gang.cancelled != nullptr && gang.cancelled->load()) return false;
    for (int peer = 0; peer < world(); ++peer)
      if (peer != rank() && !tcp_->is_connected(peer)) return false;
    if (Clock::now() > deadline) return false;
    pause();
  }
  return false;
}

// Ends the communicator: in order where nothing went wrong, else by force.
void NcclTransport::close() {
  if (communicator_ == nullptr) return;
  int status = lost_.empty() ? nccl_.finalize(communicator_) : NcclLibrary::kRemoteError;
  const auto deadline = Clock::now() + kFinalizeLimit;
  Pause pause;
  while (status == NcclLibrary::kInProgress && Clock::now() < deadline) {
    if (nccl_.state(communicator_, &status) != NcclLibrary::kSuccess) status = NcclLibrary::kRemoteError;
    pause();
  }
  if (status == NcclLibrary::kSuccess)
    nccl_.destroy(communicator_);
  else
    nccl_.abort(communicator_);
  communicator_ = nullptr;
}

void NcclTransport::lose(const std::string& message) {
  set_waiting_for(-1);
  lost_ = message;
  close();
  // An aborted exchange closes the connections, which tells the other survivors at once.
  tcp_->abort();
  try {
    tcp_->exchange({}, {});
  } catch (const JobFailure&) {
  }
  throw JobFailure(FailureCause::peer_lost, message);
}

void NcclTransport::fail(int status, const char* what) {
  const std::string message = std::string("NCCL: ") + what + " gave status " + std::to_string(status);
  if (is_remote(status)) lose(message + ": a rank, or the way to it, is lost");
  lost_ = message;
  device_.synchronize();  // a lost device says so itself
  throw JobFailure(FailureCause::internal, message + "; COLLIMATE_NCCL=off goes on over TCP");
}

// Until the device has done what was asked of it. `peers`: those it waits for.
void NcclTransport::wait(const std::vector<bool>& peers) {
  const auto started = Clock::now();
  Clock::time_point gone_since{};
  int gone = -1;
  set_waiting_for(static_cast<int>(std::find(peers.begin(), peers.end(), true) - peers.begin()));
  for (Pause pause;; pause()) {
    if (aborted_.load()) lose("the collective was aborted by this worker");
    int status = NcclLibrary::kSuccess;
    check(nccl_.state(communicator_, &status), "asking for its state");
    check(status, "moving bytes");
    if (status == NcclLibrary::kSuccess && device_.is_idle()) break;
    const auto now = Clock::now();
    for (int peer = 0; gone < 0 && peer < world(); ++peer) {
      if (!peers[static_cast<size_t>(peer)] || tcp_->is_connected(peer)) continue;
      gone = peer;
      gone_since = now;
    }
    if (gone >= 0 && now - gone_since > kGrace)
      lose("rank " + std::to_string(gone) + " is lost: it closed the connection");
    if (now - started > silence_)
      lose("ranks that this one waits for moved no bytes for " + std::to_string(silence_.count()) + " ms");
  }
  set_waiting_for(-1);
}

void NcclTransport::exchange(std::span<const SendPart> sends, std::span<const RecvPart> recvs) {
  if (!lost_.empty()) throw JobFailure(FailureCause::peer_lost, lost_);
  const auto ranks = static_cast<size_t>(world());
  std::vector<Way> out(ranks), in(ranks);
  for (const SendPart& part : sends) out.at(static_cast<size_t>(part.peer)).bytes += part.bytes.size();
  for (const RecvPart& part : recvs) in.at(static_cast<size_t>(part.peer)).bytes += part.bytes.size();
  // Places on the device of what is long, each on a line.
  const auto place = [](std::vector<Way>& ways) {
    size_t total = 0;
    for (Way& way : ways) {
      if (way.bytes < kShort) {
        way.bytes = 0;
        continue;
      }
      way.offset = total;
      total += (way.bytes + 127) / 128 * 128;
    }
    return static_cast<int64_t>(total);
  };
  const int64_t out_bytes = place(out), in_bytes = place(in);
  std::vector<SendPart> short_sends;
  std::vector<RecvPart> short_recvs;
  for (const SendPart& part : sends)
    if (out[static_cast<size_t>(part.peer)].bytes == 0) short_sends.push_back(part);
  for (const RecvPart& part : recvs)
    if (in[static_cast<size_t>(part.peer)].bytes == 0) short_recvs.push_back(part);
  if (out_bytes + in_bytes == 0) return tcp_->exchange(short_sends, short_recvs);

  if (outgoing_.size() < out_bytes) outgoing_ = DeviceArray<std::byte>(device_, out_bytes);
  if (incoming_.size() < in_bytes) incoming_ = DeviceArray<std::byte>(device_, in_bytes);
  std::vector<size_t> at(ranks, 0);
  for (const SendPart& part : sends) {
    const auto peer = static_cast<size_t>(part.peer);
    if (out[peer].bytes == 0 || part.bytes.empty()) continue;
    device_.upload(outgoing_.data() + out[peer].offset + at[peer], part.bytes.data(), part.bytes.size());
    at[peer] += part.bytes.size();
  }
  device_.make_current();
  std::vector<bool> peers(ranks, false);
  check(nccl_.group_start(), "beginning an exchange");
  for (size_t peer = 0; peer < ranks; ++peer) {
    const int number = static_cast<int>(peer);
    if (out[peer].bytes > 0)
      check(nccl_.send(outgoing_.data() + out[peer].offset, out[peer].bytes, NcclLibrary::kTypeByte, number,
                       communicator_, device_.stream()),
            "sending");
    if (in[peer].bytes > 0)
      check(nccl_.receive(incoming_.data() + in[peer].offset, in[peer].bytes, NcclLibrary::kTypeByte, number,
                          communicator_, device_.stream()),
            "receiving");
    peers[peer] = out[peer].bytes > 0 || in[peer].bytes > 0;
  }
  check(nccl_.group_end(), "ending an exchange");
  if (!short_sends.empty() || !short_recvs.empty()) {
    try {
      tcp_->exchange(short_sends, short_recvs);
    } catch (const JobFailure& failure) {
      lost_ = failure.what();
      close();  // what waits for the card of a lost rank does so no longer
      throw;
    }
  }
  wait(peers);
  std::fill(at.begin(), at.end(), 0);
  for (const RecvPart& part : recvs) {
    const auto peer = static_cast<size_t>(part.peer);
    if (in[peer].bytes == 0 || part.bytes.empty()) continue;
    device_.download(part.bytes.data(), incoming_.data() + in[peer].offset + at[peer], part.bytes.size());
    at[peer] += part.bytes.size();
  }
}

// What ranks tell each other before they decide.
struct Place {
  int version = 0;  // 0: no NCCL
  std::array<char, 64> machine{}, card{};
};

template <size_t Size>
void put_text(std::array<char, Size>& to, const std::string& text) {
  std::copy_n(text.begin(), std::min(text.size(), Size), to.begin());
}

// The same in all containers of a machine, another on each machine and after each start.
std::string machine_name() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string name;
  std::getline(file, name);
  return name;
}

// Why these ranks cannot use NCCL; empty where they can.
std::string obstacle(const std::vector<Place>& places, const NcclLibrary& own) {
  for (size_t rank = 0; rank < places.size(); ++rank) {
    const Place& place = places[rank];
    const std::string name = "rank " + std::to_string(rank);
    if (place.version == 0) return name + " has no NCCL" + (own.is_usable() ? "" : ": " + own.problem);
    if (place.version != places[0].version)
      return name + " has NCCL " + version_text(place.version) + ", rank 0 " + version_text(places[0].version);
    for (size_t other = 0; other < rank; ++other)
      if (places[other].machine == place.machine && places[other].card == place.card)
        return "ranks " + std::to_string(other) + " and " + std::to_string(rank) + " share a card";
  }
  return "";
}

std::unique_ptr<Transport> over_tcp(std::unique_ptr<Transport> tcp, const std::string& why) {
  tcp->describe("TCP (not NCCL: " + why + ")");
  return tcp;
}

}  // namespace

std::unique_ptr<Transport> connect_nccl(Device& device, const NcclLibrary& nccl, std::unique_ptr<Transport> tcp,
                                        const TcpGang& gang) {
  if (tcp == nullptr || tcp->world() < 2) return tcp;
  Place place{.version = nccl.version};
  put_text(place.machine, machine_name());
  put_text(place.card, device.pci_bus_id());
  const std::string why = obstacle(tell_all(*tcp, place), nccl);
  if (!why.empty()) return over_tcp(std::move(tcp), why);

  struct Offer {
    int status = NcclLibrary::kSuccess;
    NcclLibrary::UniqueId id{};
  };
  Offer offer;
  if (tcp->rank() == 0) offer.status = nccl.get_unique_id(&offer.id);
  offer = tell_all(*tcp, offer)[0];
  if (offer.status != NcclLibrary::kSuccess)
    return over_tcp(std::move(tcp), "rank 0 could not open it, status " + std::to_string(offer.status));
  auto transport = std::make_unique<NcclTransport>(device, nccl, std::move(tcp), gang);
  const std::vector<int> is_up = tell_all(transport->tcp(), transport->set_up(offer.id, gang) ? 1 : 0);
  const auto down = std::find(is_up.begin(), is_up.end(), 0);
  if (down == is_up.end()) return transport;
  return over_tcp(transport->give_up(),
                  "rank " + std::to_string(down - is_up.begin()) + " could not set it up; NCCL_DEBUG=WARN says why");
}

}  // namespace collimate::cuda
