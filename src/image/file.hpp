// A file that is read: its descriptor, its size, and its errors as sentences.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "holdfast/error.hpp"

namespace holdfast::image {

class File {
  public:
    // Regular files only: opening a device or a pipe may do something to it.
    static Result<File> open(const std::string& path);
    // The same for a path that the caller knows to be harmless, such as one in /proc.
    static Result<File> open_special(const std::string& path);

    File(File&& other) noexcept
        : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}
    File& operator=(File&& other) noexcept {
        std::swap(path_, other.path_);
        std::swap(descriptor_, other.descriptor_);
        return *this;
    }
    ~File();

    const std::string& path() const { return path_; }
    int descriptor() const { return descriptor_; }
    Result<std::uint64_t> size_bytes() const;
    // Reads as much of `destination` as the file has from this offset, and returns how much.
    Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> destination) const;
    // Where, from this offset on, the file next has bytes; what lies before is a hole, of zeros.
    // The offset itself, where the file system knows no holes.
    std::uint64_t next_data(std::uint64_t offset) const;

  private:
    File(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

    std::string path_;
    int descriptor_ = -1;
};

}  // namespace holdfast::image
