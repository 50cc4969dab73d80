// A gang's bytes from card to card: NCCL's own on several cards, a stand-in's (cuda/emulation/nccl.cc) where kernels
// are emulated. With one card the ways around NCCL are tested.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "core/dynamic_library.h"
#include "core/failure.h"
#include "cuda/nccl.h"
#include "test/all_to_all.h"
#include "test/environment_variable.h"
#include "test/gang.h"

namespace collimate {
namespace {

const char* const kName = "COLLIMATE_NCCL";
#ifdef COLLIMATE_CUDA_EMULATED
const char* const kLibrary = COLLIMATE_NCCL_STAND_IN;
#else
const char* const kLibrary = "auto";
#endif
constexpr size_t kLong = 1 << 20, kShort = 1000;  // of an exchange between two ranks: over NCCL, and over TCP

using Clock = std::chrono::steady_clock;

// The library, where there are as many cards as ranks.
std::unique_ptr<cuda::NcclLibrary> library_for(int ranks) {
  const EnvironmentVariable chosen(kName, kLibrary);
  auto library = std::make_unique<cuda::NcclLibrary>();
  if (!library->is_usable())
    MESSAGE("skipped: " << library->problem);
  else if (cuda::device_count() < ranks)
    MESSAGE("skipped: fewer than " << ranks << " cards");
  else
    return library;
  return nullptr;
}

// Runs body(transport over NCCL) on one thread and one card a rank.
void run_on_cards(const cuda::NcclLibrary& library, int world, const std::function<void(Transport&)>& body) {
  run_connected(world, [&](std::unique_ptr<Transport> tcp, const TcpGang& gang) {
    cuda::Device device(gang.rank);
    body(*cuda::connect_nccl(device, library, std::move(tcp), gang));
  });
}

#ifdef COLLIMATE_CUDA_EMULATED
int64_t sent_bytes() {
  static const DynamicLibrary stand_in{kLibrary};
  return stand_in.function<int64_t (*)()>("stand_in_sent_bytes")();
}
#endif

JobFailure failure_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const JobFailure& failure) {
    return failure;
  }
  throw std::runtime_error("expected a JobFailure");
}

}  // namespace

TEST_CASE("nccl: all ranks send to all, long parts from card to card and short ones over TCP") {
  for (const int world : {2, 3, 4}) {
    const auto library = library_for(world);
    if (!library) return;
#ifdef COLLIMATE_CUDA_EMULATED
    const int64_t before = sent_bytes();
#endif
    run_on_cards(*library, world, [](Transport& transport) {
      CHECK(transport.description().rfind("NCCL ", 0) == 0);
      for (const size_t size : {size_t{0}, kShort, kLong, kLong + 1, kShort}) all_to_all(transport, size);
    });
#ifdef COLLIMATE_CUDA_EMULATED
    CHECK(sent_bytes() - before == int64_t{world} * (world - 1) * static_cast<int64_t>(2 * kLong + 1));
#endif
  }
}

TEST_CASE("nccl: one way may be long and the other short") {
  const auto library = library_for(2);
  if (!library) return;
  run_on_cards(*library, 2, [](Transport& transport) {
    const int peer = 1 - transport.rank();
    const auto size_from = [](int rank) { return rank == 0 ? kLong : kShort; };
    const std::vector<std::byte> sent = pattern(transport.rank(), peer, size_from(transport.rank()));
    std::vector<std::byte> received(size_from(peer));
    const SendPart send{peer, sent};
    const RecvPart recv{peer, received};
    transport.exchange(std::span(&send, 1), std::span(&recv, 1));
    CHECK(received == pattern(peer, transport.rank(), received.size()));
  });
}

TEST_CASE("nccl: a rank that ends is lost to the others within seconds") {
  const auto library = library_for(3);
  if (!library) return;
  std::atomic<int> told{0};
  run_on_cards(*library, 3, [&](Transport& transport) {
    all_to_all(transport, kLong);
    if (transport.rank() == 1) return;
    const auto start = Clock::now();  // what came before, libraries and cards, has its own pace
    const JobFailure failure = failure_of([&] { all_to_all(transport, kLong); });
    CHECK(Clock::now() - start < std::chrono::seconds(4));
    CHECK(failure.cause() == FailureCause::peer_lost);
    CHECK(std::string(failure.what()).find("is lost") != std::string::npos);
    // It stays lost.
    CHECK(failure_of([&] { all_to_all(transport, kShort); }).cause() == FailureCause::peer_lost);
    ++told;
  });
  CHECK(told == 2);
}

TEST_CASE("nccl: abort from another thread ends an exchange that waits for a card") {
  const auto library = library_for(2);
  if (!library) return;
  std::atomic<bool> ended{false};
  run_on_cards(*library, 2, [&](Transport& transport) {
    if (transport.rank() == 1) {
      while (!ended) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return;
    }
    std::thread aborter([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      transport.abort();
    });
    const JobFailure failure = failure_of([&] { all_to_all(transport, kLong); });
    ended = true;
    aborter.join();
    CHECK(std::string(failure.what()).find("aborted by this worker") != std::string::npos);
  });
}

TEST_CASE("nccl: ranks that share a card go over TCP, and say so") {
  const auto library = library_for(1);
  if (!library) return;
  run_connected(2, [&](std::unique_ptr<Transport> tcp, const TcpGang& gang) {
    cuda::Device device(0);
    const auto transport = cuda::connect_nccl(device, *library, std::move(tcp), gang);
    CHECK(transport->description() == "TCP (not NCCL: ranks 0 and 1 share a card)");
    all_to_all(*transport, kLong);
  });
}

TEST_CASE("nccl: where one rank lacks it the whole gang goes over TCP, and each rank says why") {
  const auto with = library_for(1);
  if (!with) return;
  const EnvironmentVariable chosen(kName, "off");
  const cuda::NcclLibrary without;
  run_connected(2, [&](std::unique_ptr<Transport> tcp, const TcpGang& gang) {
    cuda::Device device(0);
    const auto transport = cuda::connect_nccl(device, gang.rank == 0 ? *with : without, std::move(tcp), gang);
    CHECK(transport->description() == (gang.rank == 0 ? "TCP (not NCCL: rank 1 has no NCCL)"
                                                      : "TCP (not NCCL: rank 1 has no NCCL: COLLIMATE_NCCL=off)"));
    all_to_all(*transport, kLong);
  });
}

TEST_CASE("nccl: one that is asked for and missing is bad input that says what to do") {
  const EnvironmentVariable chosen(kName, "/nowhere/libnccl.so");
  const JobFailure failure = failure_of([] { cuda::NcclLibrary(); });
  CHECK(failure.cause() == FailureCause::bad_input);
  CHECK(std::string(failure.what()).find("set it to auto or off") != std::string::npos);
}

}  // namespace collimate
