// Reads /proc/meminfo and the cgroup's limits (version 2).
#include "core/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace collimate {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

int64_t machine_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (int64_t kib = 0; file >> name >> kib; std::getline(file, unit)) {
    if (name == "MemAvailable:") return kib * 1024;
  }
  return kUnlimited;
}

int64_t read_number(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  return file >> number ? number : -1;  // "max" is no number
}

// "0::/path" names the group; inside a container it is the root.
int64_t cgroup_bytes() {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("0::", 0) != 0) continue;
    const std::string folder = "/sys/fs/cgroup" + line.substr(3);
    const int64_t limit = read_number(folder + "/memory.max");
    const int64_t used = read_number(folder + "/memory.current");
    if (limit >= 0 && used >= 0) return std::max<int64_t>(0, limit - used);
  }
  return kUnlimited;
}

}  // namespace

int64_t available_memory_bytes() { return std::min(machine_bytes(), cgroup_bytes()); }

void release_pages(std::span<float> values) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(values.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(values.data() + values.size()) / page * page;
  // A refusal costs memory and nothing else.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace collimate
