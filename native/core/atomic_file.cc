// Temporary name, fsync, rename, fsync of the folder.
#include "core/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "core/failure.h"

namespace collimate {
namespace {

constexpr size_t kWriteBytesMax = size_t{1} << 30;

[[noreturn]] void fail_store(const std::string& action, const std::filesystem::path& path, int error) {
  throw JobFailure(FailureCause::store_unavailable, "cannot " + action + " " + path.string() + ": " +
                                                        std::strerror(error) +
                                                        "; free space or mount the disk writable");
}

// Owns the descriptor and the temporary file until the rename.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& target) {
    static std::atomic<unsigned> counter{0};
    path_ = target;
    path_ += ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1));
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd_ < 0) fail_store("create", path_, errno);
  }
  ~TemporaryFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), std::min(bytes.size(), kWriteBytesMax));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_store("write", path_, errno);
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }

  void rename_to(const std::filesystem::path& target) {
    if (::fsync(fd_) != 0) fail_store("sync", path_, errno);
    const int fd = std::exchange(fd_, -1);
    if (::close(fd) != 0) fail_store("close", path_, errno);
    if (::rename(path_.c_str(), target.c_str()) != 0) fail_store("rename", path_, errno);
    path_.clear();
  }

 private:
  int fd_ = -1;
  std::filesystem::path path_;
};

}  // namespace

void write_file_atomically(const std::filesystem::path& path, std::span<const std::span<const std::byte>> parts) {
  TemporaryFile file(path);
  for (const auto& part : parts) file.write(part);
  file.rename_to(path);
  sync_folder(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

void write_text_atomically(const std::filesystem::path& path, const std::string& text) {
  const std::span<const std::byte> part = std::as_bytes(std::span(text.data(), text.size()));
  write_file_atomically(path, std::span(&part, 1));
}

std::string read_text_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file || text.fail()) fail_bad_input("cannot read " + path.string() + "; check that it exists and may be read");
  return text.str();
}

void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_store("open", folder, errno);
  const int failed = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  // Some file systems cannot sync a folder; the rename is then as durable as they make it.
  if (failed != 0 && error != EINVAL && error != EROFS) fail_store("sync", folder, error);
}

}  // namespace collimate
