#include "tracer/stepping.hpp"

#include <ucontext.h>

namespace holdfast::crash {
namespace {
constexpr greg_t kTrapFlag = 0x100;      // EFLAGS.TF (SDM vol. 3, 17.3.1.4)
constexpr greg_t kFaultedOnWrite = 0x2;  // of a page fault's error code (SDM vol. 3, 4.7)
}  // namespace

void set_single_step(void* context, bool on) {
    auto& flags = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL];
    flags = on ? flags | kTrapFlag : flags & ~kTrapFlag;
}

const void* instruction_of(void* context) {
    // The kernel has registers, and no pointers. NOLINTNEXTLINE(performance-no-int-to-ptr)
    return reinterpret_cast<const void*>(
        static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
}

bool is_write(void* context) {
    return (static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & kFaultedOnWrite) != 0;
}

}  // namespace holdfast::crash
