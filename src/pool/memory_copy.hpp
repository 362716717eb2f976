// A copy of a file in memory, which has a path, and which is gone with its last user.
#pragma once

#include <string>
#include <utility>

#include "holdfast/error.hpp"
#include "pool/descriptor.hpp"

namespace holdfast::pool {

class MemoryCopy {
  public:
    // Takes as much memory as the file has bytes, holes not counted. Errors: busy (somebody has the
    // file open as a pool), permission_denied, no_space, io.
    static Result<MemoryCopy> of(const std::string& path);

    // Good for as long as this lives; what was opened by it stays.
    std::string path() const;

  private:
    explicit MemoryCopy(Descriptor file) : file_(std::move(file)) {}
    Descriptor file_;
};

}  // namespace holdfast::pool
