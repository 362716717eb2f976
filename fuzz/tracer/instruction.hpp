// As much of x86-64's instruction format as the tracer needs: is this a fence, is it non-temporal,
// and how many bytes does it store or load?
//
// Source: Intel SDM vol. 2, chapter 2 (prefixes, REX, VEX, EVEX) and appendix A (opcode map).
#pragma once

#include <cstddef>

namespace holdfast::crash {

struct MemoryAccess {
    bool is_locked = false;        // a lock prefix, or xchg: also a fence (SDM vol. 3, 8.2.5)
    bool is_non_temporal = false;  // movnti, movntdq, movntps, movntpd and their VEX, EVEX forms
    // Bytes that are overwritten without being read; 0 if it reads them, or is not known.
    std::size_t stored_bytes = 0;
    // At most so many bytes from the place where it faulted are read.
    std::size_t loaded_bytes = 64;
};

MemoryAccess decode(const void* instruction);

}  // namespace holdfast::crash
