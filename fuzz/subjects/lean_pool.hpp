// Pools that are quick to open and close: what of a crash state's judging is not recovery.
//
// A pool's descriptor says how many lanes it has, and libpmemobj makes 1,024, which no parameter
// changes; opening and closing a pool looks at each of them. One lane recovers as another does, and
// a workload of one thread uses one. And a pool whose header asks for it is checked for bad blocks
// of its device at each opening, with a search for kernel modules; an image in memory has none.
#pragma once

#include <cstdint>
#include <string>

#include "holdfast/error.hpp"

namespace holdfast::crash {

// Leaves a pool that is not open so many lanes, and takes the check for bad blocks from it. Errors:
// unsupported, if its header and descriptor are not the known ones; io.
Result<void> make_lean(const std::string& path, std::uint64_t lanes);

}  // namespace holdfast::crash
