// The volatile memory of libpmemobj in a process that opens pools one after the other.
//
// Opening a pool allocates some ten thousand blocks for its 1,024 lanes, and closing it frees them:
// with malloc that is a good part of what judging a state takes. Here each size has a list of free
// blocks, and nothing goes back to the system.
//
// Thread safety: as malloc.
#pragma once

namespace holdfast::crash {

// From now on, for good. What was allocated before is still freed as it should be.
void give_libpmemobj_memory_of_its_own();

}  // namespace holdfast::crash
