// Which pages of the watched pool a piece of code writes, and which of some chosen pages it touches
// at all: what a judge has dirtied must be put back, and lines that it never reads need not be
// explored.
//
// A page faults once: it is noted and opened. Pages that were written again and again are opened
// ahead and counted as written, which is cheaper than the fault.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "holdfast/error.hpp"

namespace holdfast::crash {

class PageWatch {
  public:
    // Watches mappings of the file (of at most `pool_bytes`) that are made from now on, until
    // `stop`. One at a time in a process.
    static Result<void> start(const std::string& path, std::uint64_t pool_bytes);
    static void stop();

    // Before a run: pages (numbers in the file) whose first touch is to be seen, not only their
    // first write. Forgets what was noted before.
    static void begin_run(const std::vector<std::uint64_t>& closed_pages);
    // After it: ascending page numbers.
    static std::vector<std::uint64_t> written();  // or opened ahead
    static std::vector<std::uint64_t> touched();  // of the closed ones
};

}  // namespace holdfast::crash
