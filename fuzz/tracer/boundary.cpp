#include "tracer/boundary.hpp"

#include <dlfcn.h>
#include <libpmem.h>

#include <cstdlib>

namespace holdfast::crash {
namespace {

BoundaryObserver* observer = nullptr;

template <typename Function>
Function* libpmem(const char* name) {
    void* const found = dlsym(RTLD_NEXT, name);
    if (found == nullptr) std::abort();  // not linked with libpmem
    return reinterpret_cast<Function*>(found);
}

constexpr unsigned kNoDrain = PMEM_F_MEM_NODRAIN;

}  // namespace

void observe_boundary(BoundaryObserver* new_observer) { observer = new_observer; }

}  // namespace holdfast::crash

// In the place of libpmem's functions. pmem_persist calls flush and drain through the PLT, and
// copies call drain, so they come here by themselves and each event is seen once.
#define HOLDFAST_BOUNDARY extern "C" __attribute__((visibility("default")))
#define HOLDFAST_CALLER __builtin_return_address(0)

HOLDFAST_BOUNDARY void pmem_flush(const void* address, std::size_t size) {
    using namespace holdfast::crash;
    static auto* const real = libpmem<decltype(pmem_flush)>("pmem_flush");
    if (observer != nullptr && observer->flush(address, size, HOLDFAST_CALLER)) return;
    real(address, size);
}

HOLDFAST_BOUNDARY void pmem_drain() {
    using namespace holdfast::crash;
    static auto* const real = libpmem<decltype(pmem_drain)>("pmem_drain");
    if (observer != nullptr && observer->drain(HOLDFAST_CALLER)) return;
    real();
}

HOLDFAST_BOUNDARY int pmem_msync(const void* address, std::size_t size) {
    using namespace holdfast::crash;
    static auto* const real = libpmem<decltype(pmem_msync)>("pmem_msync");
    if (observer != nullptr && observer->sync(address, size, HOLDFAST_CALLER)) return 0;
    return real(address, size);
}

HOLDFAST_BOUNDARY int pmem_deep_persist(const void* address, std::size_t size) {
    return pmem_msync(address, size);
}

HOLDFAST_BOUNDARY void pmem_deep_flush(const void* address, std::size_t size) {
    using namespace holdfast::crash;
    static auto* const real = libpmem<decltype(pmem_deep_flush)>("pmem_deep_flush");
    if (observer != nullptr && observer->flush(address, size, HOLDFAST_CALLER)) return;
    real(address, size);
}

HOLDFAST_BOUNDARY int pmem_deep_drain(const void* address, std::size_t size) {
    using namespace holdfast::crash;
    static auto* const real = libpmem<decltype(pmem_deep_drain)>("pmem_deep_drain");
    if (observer != nullptr && observer->drain(HOLDFAST_CALLER)) return 0;
    return real(address, size);
}

HOLDFAST_BOUNDARY void* pmem_memcpy(void* to, const void* from, std::size_t size, unsigned flags) {
    using namespace holdfast::crash;
    static auto* const real = libpmem<decltype(pmem_memcpy)>("pmem_memcpy");
    if (observer != nullptr && observer->copy(to, from, 0, size, flags, HOLDFAST_CALLER)) return to;
    return real(to, from, size, flags);
}

HOLDFAST_BOUNDARY void* pmem_memmove(void* to, const void* from, std::size_t size, unsigned flags) {
    using namespace holdfast::crash;
    static auto* const real = libpmem<decltype(pmem_memmove)>("pmem_memmove");
    if (observer != nullptr && observer->copy(to, from, 0, size, flags, HOLDFAST_CALLER)) return to;
    return real(to, from, size, flags);
}

HOLDFAST_BOUNDARY void* pmem_memset(void* to, int byte, std::size_t size, unsigned flags) {
    using namespace holdfast::crash;
    static auto* const real = libpmem<decltype(pmem_memset)>("pmem_memset");
    if (observer != nullptr && observer->copy(to, nullptr, byte, size, flags, HOLDFAST_CALLER))
        return to;
    return real(to, byte, size, flags);
}

HOLDFAST_BOUNDARY void* pmem_memcpy_nodrain(void* to, const void* from, std::size_t size) {
    return pmem_memcpy(to, from, size, holdfast::crash::kNoDrain);
}
HOLDFAST_BOUNDARY void* pmem_memcpy_persist(void* to, const void* from, std::size_t size) {
    return pmem_memcpy(to, from, size, 0);
}
HOLDFAST_BOUNDARY void* pmem_memmove_nodrain(void* to, const void* from, std::size_t size) {
    return pmem_memmove(to, from, size, holdfast::crash::kNoDrain);
}
HOLDFAST_BOUNDARY void* pmem_memmove_persist(void* to, const void* from, std::size_t size) {
    return pmem_memmove(to, from, size, 0);
}
HOLDFAST_BOUNDARY void* pmem_memset_nodrain(void* to, int byte, std::size_t size) {
    return pmem_memset(to, byte, size, holdfast::crash::kNoDrain);
}
HOLDFAST_BOUNDARY void* pmem_memset_persist(void* to, int byte, std::size_t size) {
    return pmem_memset(to, byte, size, 0);
}
