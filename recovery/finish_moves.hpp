// After regions got another base: repairs what was not walked yet, so that nothing names a frame by
// a number of before, and the regions can move again.
#pragma once

#include "memory/physical_memory.hpp"
#include "pool/pool.hpp"

namespace holdfast::recovery {

// Proportional to all tables. Limbo must be empty and no build interrupted; the directory must not
// change meanwhile, spaces may. The former numbers of a region whose memory was replaced are
// forgotten when no entry has one any more. Errors: damaged (an entry that cannot be repaired: run
// `repair` first), busy (a region was moved or replaced since the store was opened); nothing is
// forgotten then.
Result<void> finish_moves(memory::PhysicalMemory& memory, pool::OrderedMap directory);

}  // namespace holdfast::recovery
