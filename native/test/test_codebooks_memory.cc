// Job `codebooks` on files larger than the memory it may have: run by collimate-native under a limit on its data.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "core/atomic_file.h"
#include "core/json.h"
#include "core/philox.h"
#include "core/safetensors.h"
#include "test/job_fixture.h"

namespace collimate {
namespace {

constexpr int64_t kItems = 60'000, kDim = 320, kTextDim = 192;
constexpr int64_t kLimitBytes = int64_t{64} << 20;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
// As joined rows of floats, which is what must never be held.
static_assert(kItems * (kDim + kTextDim) * 4 > 115'000'000 && kLimitBytes < 70'000'000);

void write_inputs(const std::filesystem::path& folder) {
  Pool pool(2);
  std::vector<float> rows(kItems * kDim);
  pool.for_blocks(kItems * kDim, 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) rows[i] = random_uniform({.seed = 5}, i) - 0.5f;
  });
  std::vector<uint16_t> text(kItems * kTextDim);  // bf16 between 0.5 and 1
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<uint16_t>(0x3f00 | (i * 2654435761u >> 9 & 0x7f));
  SafetensorsWriter collaborative, words;
  collaborative.add_f32("items", {kItems, kDim}, rows);
  collaborative.write(folder / "collaborative.safetensors");
  words.add("items", DType::bf16, {kItems, kTextDim}, text.data());
  words.write(folder / "text.safetensors");
}

JobRequest request_in(const std::filesystem::path& folder) {
  return {.kind = "codebooks",
          .recipe = {{"levels", 3},
                     {"codes", 64},
                     {"iterations", 1},
                     {"beam", 2},
                     {"collaborativeWeight", 1.0},
                     {"textWeight", 0.5},
                     {"holdoutShare", 0},
                     {"seed", 3}},
          .inputs = {{"collaborative", folder / "collaborative.safetensors"}, {"text", folder / "text.safetensors"}},
          .threads = 2};
}

// The exit status of `collimate-native run job.json` under the limit; its output goes to `log`.
int run_limited(const std::filesystem::path& job, const std::filesystem::path& log, int64_t limit_bytes) {
  const std::filesystem::path program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "collimate-native";
  REQUIRE(std::filesystem::exists(program));
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const rlimit limit{static_cast<rlim_t>(limit_bytes), static_cast<rlim_t>(limit_bytes)};
    const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    // Stacks count as data: of the usual 8 MiB a thread, little is used.
    const rlimit stack{1 << 20, 1 << 20};
    if (out < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 || setrlimit(RLIMIT_STACK, &stack) != 0 ||
        setrlimit(RLIMIT_DATA, &limit) != 0)
      _exit(126);
    execl(program.c_str(), program.c_str(), "run", job.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("codebooks job: inputs larger than its memory, and the same bytes as without a limit") {
  if (kSanitized) {
    MESSAGE("skipped: a sanitizer's own memory is beyond any limit");
    return;
  }
  TemporaryFolder folder;
  write_inputs(folder.path());
  const JobRequest request = request_in(folder.path());
  const std::filesystem::path out = folder.path() / "limited" / "out", scratch = folder.path() / "limited" / "scratch";
  std::filesystem::create_directories(out);
  std::filesystem::create_directories(scratch);
  Json job = {{"kind", request.kind},      {"recipe", request.recipe},       {"threads", 2},
              {"outputDir", out.string()}, {"scratchDir", scratch.string()}, {"inputs", Json::object()}};
  for (const auto& [name, path] : request.inputs) job["inputs"][name] = path.string();
  write_text_atomically(folder.path() / "job.json", job.dump());
  const int status = run_limited(folder.path() / "job.json", folder.path() / "log", kLimitBytes);
  INFO(read_text_file(folder.path() / "log"));
  REQUIRE(status == 0);

  RecordingHost host;
  const JobOutcome whole = run_in(folder.path(), "whole", request, host, run_codebooks);
  CHECK(read_text_file(out / "codes.safetensors") == bytes_of(whole, "codes"));
}

}  // namespace collimate
