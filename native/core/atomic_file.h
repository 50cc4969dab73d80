// Files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace collimate {

// Writes the parts in order under a temporary name, syncs, renames, and syncs the folder. A full, read-only or missing
// disk is JobFailure(store_unavailable).
void write_file_atomically(const std::filesystem::path& path, std::span<const std::span<const std::byte>> parts);
void write_text_atomically(const std::filesystem::path& path, const std::string& text);
// The whole file; JobFailure(bad_input) when it cannot be read.
std::string read_text_file(const std::filesystem::path& path);
void sync_folder(const std::filesystem::path& folder);

}  // namespace collimate
