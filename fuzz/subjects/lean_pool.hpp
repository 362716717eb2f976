// Pools with fewer lanes than libpmemobj makes.
//
// A pool's descriptor says how many lanes it has, and libpmemobj makes 1,024, which no parameter
// changes; opening and closing a pool looks at each of them, and that is most of what judging a
// crash state takes. One lane recovers as another does, and a workload of one thread uses one.
#pragma once

#include <cstdint>
#include <string>

#include "holdfast/error.hpp"

namespace holdfast::crash {

// Of a pool that is not open. Errors: unsupported, if its descriptor is not the known one; io.
Result<void> reduce_lanes(const std::string& path, std::uint64_t lanes);

}  // namespace holdfast::crash
