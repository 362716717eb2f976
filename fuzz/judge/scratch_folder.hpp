// Files of a campaign, and where they lie for as long as it lasts.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "holdfast/error.hpp"

namespace holdfast::crash {

// A folder in /dev/shm, removed at the end. Those whose process is gone (killed) go with the next.
class ScratchFolder {
  public:
    ScratchFolder();
    ~ScratchFolder();
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

// All of a file.
Result<std::vector<std::byte>> read_file(const std::string& path);

}  // namespace holdfast::crash
