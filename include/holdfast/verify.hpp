// A full check of a store: everything that open leaves to the first walk, and all that it implies.
//
// The invariants, by name; `verify` reports each place where one does not hold:
//   I1 entry      every entry's tag fits its bits, slot, level and the target frame's generation
//   I2 table      a table frame is linked at the level, by the owner and at the index it says
//   I3 reference  a frame's reference count is the number of entries that point to it
//   I4 account    reachable + limbo + building + free = all frames; none is two of these
//   I5 metadata   every frame metadata record and every space record passes its checksum
//   I6 directory  every name leads to one space record, and every space record has one name
//   I7 annotation names and backings lie over mapped pages, in order, without overlap
// No invariant is broken by a "lost page", whose tables are well and whose region is out of reach;
// it is reported like that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "holdfast/types.hpp"

namespace holdfast {

struct Finding {
    std::string what;    // the invariant: "I1 entry", …
    std::string space;   // the space concerned, if one is
    Range range;         // what is lost by it, if known
    std::string detail;  // a sentence with frame and entry
};

struct VerifyReport {
    std::vector<Finding> findings;
    std::uint64_t tables = 0;
    std::uint64_t mapped_pages = 0;  // with a frame, in all spaces
    std::uint64_t frames_total = 0, frames_reachable = 0, frames_limbo = 0, frames_building = 0,
                  frames_free = 0;

    bool clean() const { return findings.empty(); }
};

}  // namespace holdfast
