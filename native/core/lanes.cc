// Lane sums by merging finished siblings, then an owner-per-chunk reduction over the gang.
#include "core/lanes.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "core/failure.h"

namespace collimate {
namespace {

constexpr int64_t kChunk = 16384;         // elements: the unit of ownership and of pool work
constexpr int64_t kWindow = 64 * kChunk;  // elements of one owner that travel in one round

// One aligned subtree sum, wherever its numbers are.
struct Leaf {
  int first = 0;
  int count = 0;
  const float* sum = nullptr;
  const double* scalars = nullptr;
};

// The maximal aligned subtrees that cover a range of lanes, ascending.
std::vector<LaneRange> aligned_blocks(LaneRange range) {
  std::vector<LaneRange> blocks;
  int first = range.first;
  int left = range.count;
  while (left > 0) {
    int count = static_cast<int>(std::bit_floor(static_cast<unsigned>(left)));
    while (first % count != 0) count /= 2;
    blocks.push_back({first, count});
    first += count;
    left -= count;
  }
  return blocks;
}

// Sums leaves [0, n) that make up the node of `lanes` lanes, at elements [begin, begin + size).
void sum_node(std::span<const Leaf> leaves, int lanes, int64_t begin, int64_t size, float* out) {
  if (leaves.size() == 1) {
    std::memcpy(out, leaves[0].sum + begin, static_cast<size_t>(size) * sizeof(float));
    return;
  }
  const int half = lanes / 2;
  size_t split = 0;
  for (int covered = 0; covered < half; ++split) covered += leaves[split].count;
  const auto left = leaves.first(split);
  const auto right = leaves.subspan(split);
  if (left.size() == 1 && right.size() == 1) {
    const float* a = left[0].sum + begin;
    const float* b = right[0].sum + begin;
    for (int64_t i = 0; i < size; ++i) out[i] = a[i] + b[i];
    return;
  }
  sum_node(left, half, begin, size, out);
  if (right.size() == 1) {
    const float* b = right[0].sum + begin;
    for (int64_t i = 0; i < size; ++i) out[i] += b[i];
    return;
  }
  std::vector<float> other(static_cast<size_t>(size));
  sum_node(right, half, begin, size, other.data());
  for (int64_t i = 0; i < size; ++i) out[i] += other[static_cast<size_t>(i)];
}

double sum_scalar(std::span<const Leaf> leaves, int lanes, size_t index) {
  if (leaves.size() == 1) return leaves[0].scalars[index];
  const int half = lanes / 2;
  size_t split = 0;
  for (int covered = 0; covered < half; ++split) covered += leaves[split].count;
  return sum_scalar(leaves.first(split), half, index) + sum_scalar(leaves.subspan(split), half, index);
}

struct ElementRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// Whole chunks, contiguous, in rank order.
ElementRange owned_range(int64_t elements, int rank, int world) {
  const int64_t chunks = (elements + kChunk - 1) / kChunk;
  const int64_t base = chunks / world;
  const int64_t extra = chunks % world;
  const int64_t first = rank * base + std::min<int64_t>(rank, extra);
  const int64_t count = base + (rank < extra ? 1 : 0);
  return {std::min(elements, first * kChunk), std::min(elements, (first + count) * kChunk)};
}

// Round `round` of an owner; empty before the first and after the last.
ElementRange window_of(ElementRange owned, int64_t round) {
  if (round < 0) return {owned.begin, owned.begin};
  return {std::min(owned.end, owned.begin + round * kWindow), std::min(owned.end, owned.begin + (round + 1) * kWindow)};
}

struct StepHeader {
  int64_t step = 0;
  int64_t elements = 0;
  int32_t lanes = 0;
  int32_t scalars = 0;
  uint32_t control = 0;
  uint32_t reserved = 0;
};

}  // namespace

LaneRange lane_range(int lanes, int rank, int world) {
  const int base = lanes / world;
  const int extra = lanes % world;
  return {rank * base + std::min(rank, extra), base + (rank < extra ? 1 : 0)};
}

LaneReducer::LaneReducer(const Options& options) : options_(options) {
  const int world = options.transport != nullptr ? options.transport->world() : 1;
  const int rank = options.transport != nullptr ? options.transport->rank() : 0;
  if (options.lanes < 1 || !std::has_single_bit(static_cast<unsigned>(options.lanes))) {
    fail_bad_input("lanes is " + std::to_string(options.lanes) + "; expected a power of two");
  }
  if (world > options.lanes) {
    fail_bad_input("the gang has " + std::to_string(world) + " ranks for " + std::to_string(options.lanes) +
                   " lanes; use at most one rank a lane, or raise lanes");
  }
  range_ = lane_range(options.lanes, rank, world);
  if (world > 1) total_ = BackendArray<float>(*options.backend, options.elements);
}

LaneReducer::Block LaneReducer::begin(int lane) {
  Block block{.first = lane, .count = 1};
  {
    const std::lock_guard lock(mutex_);
    if (!spare_.empty()) {
      block.sum = std::move(spare_.back());
      spare_.pop_back();
    }
  }
  if (block.sum.data() == nullptr) block.sum = BackendArray<float>(*options_.backend, options_.elements);
  options_.backend->zero(block.sum.data(), options_.elements * static_cast<int64_t>(sizeof(float)));
  return block;
}

void LaneReducer::add(const BackendArray<float>& to, const BackendArray<float>& from) const {
  constexpr int64_t kRow = 64;  // how the elements are shared out; no element's sum depends on it
  const int64_t rows = options_.elements / kRow, rest = options_.elements % kRow;
  const auto add_from = [&](int64_t first, int64_t count, int64_t dim) {
    if (count > 0 && dim > 0)
      options_.backend->add_rows({.rows = count, .dim = dim, .from = from.data() + first, .to = to.data() + first});
  };
  add_from(0, rows, kRow);
  add_from(rows * kRow, 1, rest);
}

// Adds the block to its sibling for as long as that one is there, whoever finished first: left plus right.
void LaneReducer::finish(Block block) {
  for (;;) {
    Block sibling;
    {
      const std::lock_guard lock(mutex_);
      const auto found = std::find_if(blocks_.begin(), blocks_.end(), [&](const Block& other) {
        return other.count == block.count && other.first == (block.first ^ block.count);
      });
      if (found == blocks_.end()) {
        blocks_.push_back(std::move(block));
        return;
      }
      sibling = std::move(*found);
      blocks_.erase(found);
    }
    if (sibling.first < block.first) std::swap(sibling, block);
    add(block.sum, sibling.sum);
    for (size_t i = 0; i < block.scalars.size(); ++i) block.scalars[i] += sibling.scalars[i];
    block.count *= 2;
    const std::lock_guard lock(mutex_);
    spare_.push_back(std::move(sibling.sum));
  }
}

void LaneReducer::compute(int at_once, const LaneBody& body) {
  blocks_.clear();
  const int end = range_.first + range_.count;
  std::atomic<int> next{range_.first};
  const auto work = [&](int slot) {
    for (int lane = next.fetch_add(1); lane < end; lane = next.fetch_add(1)) {
      try {
        Block block = begin(lane);
        block.scalars = body(
            {.number = lane, .slot = slot, .gradient = {block.sum.data(), static_cast<size_t>(options_.elements)}});
        if (static_cast<int>(block.scalars.size()) != options_.scalars) {
          throw JobFailure(FailureCause::internal, "lane " + std::to_string(lane) + " gave " +
                                                       std::to_string(block.scalars.size()) + " scalars; expected " +
                                                       std::to_string(options_.scalars));
        }
        finish(std::move(block));
      } catch (...) {
        next.store(end);  // no slot begins another lane
        throw;
      }
    }
  };
  if (at_once <= 1) {
    work(0);
  } else {
    options_.pool->for_each(std::min(at_once, range_.count), [&](int64_t slot) { work(static_cast<int>(slot)); });
  }
  std::sort(blocks_.begin(), blocks_.end(), [](const Block& a, const Block& b) { return a.first < b.first; });
}

struct LaneReducer::Gang {
  Transport& transport;
  std::vector<std::vector<LaneRange>> blocks;    // by rank
  std::vector<std::vector<std::byte>> messages;  // by rank: StepHeader, then the scalars of each block
  std::vector<Leaf> leaves;                      // all blocks of all ranks, ascending
  std::vector<std::span<const float>> own;       // this rank's block sums, on the host
  std::span<float> total;                        // on the host
};

// Every rank tells every other its step, its control flags and the scalars of its blocks.
void LaneReducer::exchange_headers(Gang& gang, int64_t step, uint32_t control) const {
  const int world = gang.transport.world();
  const size_t scalars = static_cast<size_t>(options_.scalars);
  std::vector<SendPart> sends;
  std::vector<RecvPart> recvs;
  for (int rank = 0; rank < world; ++rank) {
    gang.blocks.push_back(aligned_blocks(lane_range(options_.lanes, rank, world)));
    gang.messages.emplace_back(sizeof(StepHeader) + gang.blocks.back().size() * scalars * sizeof(double));
  }
  const auto own = static_cast<size_t>(gang.transport.rank());
  const StepHeader header{step, options_.elements, options_.lanes, options_.scalars, control, 0};
  std::memcpy(gang.messages[own].data(), &header, sizeof(header));
  for (size_t i = 0; i < blocks_.size() && scalars > 0; ++i) {
    std::memcpy(gang.messages[own].data() + sizeof(header) + i * scalars * sizeof(double), blocks_[i].scalars.data(),
                scalars * sizeof(double));
  }
  for (int rank = 0; rank < world; ++rank) {
    if (rank == gang.transport.rank()) continue;
    sends.push_back({rank, gang.messages[own]});
    recvs.push_back({rank, gang.messages[static_cast<size_t>(rank)]});
  }
  gang.transport.exchange(sends, recvs);
}

// Checks the headers, and gathers leaves (scalars only) and control flags.
uint32_t LaneReducer::read_headers(Gang& gang, int64_t step) const {
  uint32_t control = 0;
  for (size_t rank = 0; rank < gang.messages.size(); ++rank) {
    StepHeader header;
    std::memcpy(&header, gang.messages[rank].data(), sizeof(header));
    if (header.step != step || header.elements != options_.elements || header.lanes != options_.lanes ||
        header.scalars != options_.scalars) {
      throw JobFailure(FailureCause::internal, "rank " + std::to_string(rank) + " reduces step " +
                                                   std::to_string(header.step) + " of " +
                                                   std::to_string(header.elements) + " elements, this rank step " +
                                                   std::to_string(step) + " of " + std::to_string(options_.elements));
    }
    control |= header.control;
    const auto* scalars = reinterpret_cast<const double*>(gang.messages[rank].data() + sizeof(header));
    for (const LaneRange& block : gang.blocks[rank]) {
      gang.leaves.push_back({block.first, block.count, nullptr, scalars});
      scalars += options_.scalars;
    }
  }
  return control;
}

void LaneReducer::bring_blocks_to_host(Gang& gang) {
  const auto elements = static_cast<size_t>(options_.elements);
  if (options_.backend->is_host()) {
    for (const Block& block : blocks_) gang.own.emplace_back(block.sum.data(), elements);
    gang.total = {total_.data(), elements};
    return;
  }
  host_blocks_.resize(std::max(host_blocks_.size(), blocks_.size()));
  for (size_t i = 0; i < blocks_.size(); ++i) {
    host_blocks_[i].resize(elements);
    blocks_[i].sum.download(host_blocks_[i]);
    gang.own.emplace_back(host_blocks_[i]);
  }
  host_total_.resize(elements);
  gang.total = host_total_;
}

// Round r carries the block sums of window r to their owners and the finished window r - 1 to everyone.
void LaneReducer::reduce_windows(Gang& gang) {
  const int world = gang.transport.world();
  const int own = gang.transport.rank();
  const auto owned = [&](int rank) { return owned_range(options_.elements, rank, world); };
  const int64_t rounds = (owned(0).size() + kWindow - 1) / kWindow;  // rank 0 owns the most
  const int64_t window_max = std::min(owned(own).size(), kWindow);
  const size_t foreign = gang.leaves.size() - blocks_.size();
  if (received_.size() < foreign) received_.resize(foreign);
  for (auto& buffer : received_) buffer.resize(static_cast<size_t>(window_max));

  for (int64_t round = 0; round <= rounds; ++round) {
    std::vector<SendPart> sends;
    std::vector<RecvPart> recvs;
    const ElementRange mine = window_of(owned(own), round);
    const ElementRange finished = window_of(owned(own), round - 1);
    size_t next_buffer = 0;
    size_t leaf = 0;
    for (int rank = 0; rank < world; ++rank) {
      const size_t block_count = gang.blocks[static_cast<size_t>(rank)].size();
      if (rank == own) {
        for (const auto sum : gang.own) gang.leaves[leaf++].sum = sum.data() + mine.begin;
        continue;
      }
      const ElementRange theirs = window_of(owned(rank), round);
      const ElementRange gathered = window_of(owned(rank), round - 1);
      for (const auto sum : gang.own)
        sends.push_back({rank, std::as_bytes(sum.subspan(size_t(theirs.begin), size_t(theirs.size())))});
      sends.push_back({rank, std::as_bytes(gang.total.subspan(size_t(finished.begin), size_t(finished.size())))});
      for (size_t i = 0; i < block_count; ++i) {
        auto& buffer = received_[next_buffer++];
        recvs.push_back({rank, std::as_writable_bytes(std::span(buffer).first(size_t(mine.size())))});
        gang.leaves[leaf++].sum = buffer.data();
      }
      recvs.push_back(
          {rank, std::as_writable_bytes(gang.total.subspan(size_t(gathered.begin), size_t(gathered.size())))});
    }
    gang.transport.exchange(sends, recvs);
    float* out = gang.total.data() + mine.begin;
    options_.pool->for_blocks(mine.size(), kChunk, [&](int64_t begin, int64_t end) {
      sum_node(gang.leaves, options_.lanes, begin, end - begin, out + begin);
    });
  }
}

LaneReducer::Result LaneReducer::reduce(int64_t step, uint32_t control) {
  int finished = 0;
  for (const Block& block : blocks_) finished += block.count;
  if (finished != range_.count) {
    throw JobFailure(FailureCause::internal, "reduce was called after " + std::to_string(finished) + " of " +
                                                 std::to_string(range_.count) + " lanes");
  }
  Result result;
  if (options_.transport == nullptr || options_.transport->world() == 1) {
    result.scalars = blocks_[0].scalars;
    result.control = control;
    std::swap(total_, blocks_[0].sum);
  } else {
    Gang gang{.transport = *options_.transport};
    exchange_headers(gang, step, control);
    result.control = read_headers(gang, step);
    for (size_t i = 0; i < static_cast<size_t>(options_.scalars); ++i) {
      result.scalars.push_back(sum_scalar(gang.leaves, options_.lanes, i));
    }
    bring_blocks_to_host(gang);
    reduce_windows(gang);
    if (!options_.backend->is_host()) total_.upload(gang.total);
  }
  for (Block& block : blocks_) spare_.push_back(std::move(block.sum));
  blocks_.clear();
  result.gradient = {total_.data(), static_cast<size_t>(options_.elements)};
  return result;
}

}  // namespace collimate
