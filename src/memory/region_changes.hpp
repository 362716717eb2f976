// What an operator does to the regions of a store: take one away, give one other memory, give one
// another physical base. Each is one commit on a region's record, constant in the number of frames,
// and counts from the next opening on: until then this process goes on with what it has.
//
// Thread safety: PhysicalMemory::changing() is taken.
#pragma once

#include <cstdint>
#include <string>

#include "memory/physical_memory.hpp"

namespace holdfast::memory {

// Its frames are out of reach from the next opening on, and none are given out from now on. Errors:
// invalid_argument (no such region, or the pool's own).
Result<void> detach_region(PhysicalMemory& memory, unsigned index);

// `path` is the memory of the region from the next opening on.
//   - It holds this region, moved here or brought back: everything is as it was. If it is a copy
//     from another time, that is refused (stale) unless `accept_outdated`: then what the copy says
//     is what the pages hold.
//   - Nothing is there, or a device without a region: a new region of the same size takes the old
//     one's place. What was in the old one is lost (FaultKind::region_replaced), and unmapped at
//     will.
// Errors: invalid_argument (the region is attached: detach it first), not_a_pool (something else is
// there), busy (new memory, while entries of before a move or the last replacement are left: see
// recovery/finish_moves.hpp), as add_external_region.
Result<void> replace_region(PhysicalMemory& memory, unsigned index, const std::string& path,
                            const ExternalRegionOptions& options, bool accept_outdated);

// Another physical base for the region, and for all others in the same file: `base`, which must be
// beyond all that ever were, and congruent to the file offset modulo 1 GiB; the next such for
// PhysAddr(). Entries with the earlier numbers go on to work and are repaired when they are walked.
// Errors: invalid_argument; busy (the last move is not finished, see recovery/finish_moves.hpp).
Result<void> move_region(PhysicalMemory& memory, unsigned index, PhysAddr base);

}  // namespace holdfast::memory
