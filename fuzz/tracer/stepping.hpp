// One instruction at a time over protected pages: pages that a fault opens are closed again after
// the instruction that faulted.
#pragma once

namespace holdfast::crash {

// Lets the thread run one instruction, or no longer.
void set_single_step(void* context, bool on);
const void* instruction_of(void* context);
bool is_write(void* context);  // of a page fault

}  // namespace holdfast::crash
