// Where two spaces differ: a walk through both trees at once, which passes over what they share.
#pragma once

#include <vector>

#include "holdfast/snapshot.hpp"
#include "memory/physical_memory.hpp"
#include "space/space_state.hpp"

namespace holdfast::space {

Result<std::vector<Difference>> differences(const memory::PhysicalMemory& memory,
                                            const detail::SpaceState& first,
                                            const detail::SpaceState& second);

}  // namespace holdfast::space
