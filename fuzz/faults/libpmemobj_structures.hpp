// Where libpmemobj's own structures lie in a pool (judge/libpmemobj_layout.hpp): what it has to
// notice when it is damaged.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "faults/media_fault.hpp"
#include "holdfast/error.hpp"

namespace holdfast::crash {

// Of the lanes, the first one and those whose logs hold something; of the heap, the first zone's
// headers and its runs. Errors: unsupported, if the pool is laid out otherwise.
Result<std::vector<FaultPlace>> libpmemobj_structures(std::span<const std::byte> pool);

}  // namespace holdfast::crash
