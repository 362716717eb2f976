// Where a frame is used, for findings that say how often it is: spaces and their addresses.
//
// Looked for by a walk over all spaces, when there is such a finding at all: counting what leads to
// each frame needs a word a frame, noting from where would need one an entry.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memory/physical_memory.hpp"
#include "recovery/survey.hpp"
#include "table/walk.hpp"

namespace holdfast::recovery {

// A space whose tables can be walked from the root on.
struct WalkedSpace {
    std::string name;
    table::Root root;
};

// Behind the finding of each damage that counts uses: `; in "a" at 0x1000-0x2000, in limbo`. A
// table that several spaces share is named in each of them.
void name_places(const memory::PhysicalMemory& memory, const std::vector<WalkedSpace>& spaces,
                 std::vector<Damage>& damages);

}  // namespace holdfast::recovery
