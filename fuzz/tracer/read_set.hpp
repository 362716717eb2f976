// Which lines of a pool a piece of code reads before it has overwritten them: what the other lines
// held cannot have mattered to it.
//
// It works on the pages that a PageWatch run has closed: while it is active, every access to one of
// them is stepped over and looked at by itself, until all that is to be known of the page is known.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "model/persistency.hpp"
#include "tracer/watched_pool.hpp"

namespace holdfast::crash {

class ReadSet {
  public:
    // Of each line the bytes that matter, a bit for each (the lowest is the first byte).
    using Lines = std::map<LineNumber, std::uint64_t>;
    // From now on, of these lines; the watched pool is mapped later. Single-threaded code only.
    static void begin(const Lines& lines);
    // Which of them were read.
    static std::vector<LineNumber> end();

    static bool active();
    // For PageWatch: an access to a closed page.
    static bool step(const void* address, const PoolMapping& mapping, void* context);
};

}  // namespace holdfast::crash
