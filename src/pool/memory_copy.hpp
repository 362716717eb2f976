// A copy of a file in memory, which has a path, and which is gone with its last user.
#pragma once

#include <string>
#include <utility>

#include "holdfast/error.hpp"

namespace holdfast::pool {

class MemoryCopy {
  public:
    // Takes as much memory as the file has bytes, holes not counted. Errors: busy (somebody has the
    // file open as a pool), permission_denied, no_space, io.
    static Result<MemoryCopy> of(const std::string& path);

    MemoryCopy(MemoryCopy&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
    MemoryCopy& operator=(MemoryCopy&& other) noexcept {
        std::swap(file_, other.file_);
        return *this;
    }
    ~MemoryCopy();

    // Good for as long as this lives; what was opened by it stays.
    std::string path() const;

  private:
    explicit MemoryCopy(int file) : file_(file) {}
    int file_ = -1;
};

}  // namespace holdfast::pool
