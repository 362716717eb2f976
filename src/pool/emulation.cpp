#include "pool/emulation.hpp"

#include <dlfcn.h>

#include <cstddef>

namespace holdfast::pool {
namespace {
thread_local bool emulate = false;
}

EmulationScope::EmulationScope(bool on) : previous_(emulate) { emulate = on; }
EmulationScope::~EmulationScope() { emulate = previous_; }

}  // namespace holdfast::pool

// Takes the place of libpmem's function of this name for libpmemobj in this process.
extern "C" __attribute__((visibility("default"))) int pmem_is_pmem(const void* address,
                                                                   std::size_t size_bytes) {
    if (holdfast::pool::emulate) return 1;
    using Function = int (*)(const void*, std::size_t);
    static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "pmem_is_pmem"));
    return real != nullptr ? real(address, size_bytes) : 0;
}
