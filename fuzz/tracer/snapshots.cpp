#include "tracer/snapshots.hpp"

#include <dlfcn.h>
#include <libpmemobj.h>

#include <cstdlib>

namespace holdfast::crash {
namespace {

using Kind = SnapshotBug::Kind;
using AddRange = int (*)(const void*, std::size_t, std::uint64_t);

SnapshotBug planted;
std::uint32_t taken = 0;
// The snapshot that is to come too late: with the next one, or at the transaction's end.
struct Late {
    const void* address = nullptr;
    std::size_t size = 0;
    std::uint64_t flags = 0;
} late;

template <typename Function>
Function real(const char* name) {
    void* const found = dlsym(RTLD_NEXT, name);
    if (found == nullptr) std::abort();  // not linked with libpmemobj
    return reinterpret_cast<Function>(found);
}

int add(const void* address, std::size_t size, std::uint64_t flags) {
    static const auto libpmemobj = real<AddRange>("pmemobj_tx_xadd_range_direct");
    const bool is_it = taken++ == planted.number;
    if (planted.kind == Kind::none) return libpmemobj(address, size, flags);
    if (late.address != nullptr) {
        libpmemobj(late.address, late.size, late.flags);
        late = {};
    }
    if (!is_it) return libpmemobj(address, size, flags);
    switch (planted.kind) {
        case Kind::drop:
            return 0;
        case Kind::shorten:
            return size > 8 ? libpmemobj(address, size - 8, flags) : 0;
        case Kind::late:
            late = {address, size, flags};
            return 0;
        case Kind::none:
            break;
    }
    return libpmemobj(address, size, flags);
}

}  // namespace

void plant(const SnapshotBug& bug) {
    planted = bug;
    taken = 0;
    late = {};
}

std::uint32_t snapshots_taken() { return taken; }

}  // namespace holdfast::crash

extern "C" {

__attribute__((visibility("default"))) int pmemobj_tx_add_range_direct(const void* address,
                                                                       std::size_t size) {
    return holdfast::crash::add(address, size, 0);
}

__attribute__((visibility("default"))) int pmemobj_tx_xadd_range_direct(const void* address,
                                                                        std::size_t size,
                                                                        std::uint64_t flags) {
    return holdfast::crash::add(address, size, flags);
}

__attribute__((visibility("default"))) int pmemobj_tx_xadd_range(PMEMoid object,
                                                                 std::uint64_t offset,
                                                                 std::size_t size,
                                                                 std::uint64_t flags) {
    const auto* const address = static_cast<const char*>(pmemobj_direct(object)) + offset;
    return holdfast::crash::add(address, size, flags);
}

__attribute__((visibility("default"))) int pmemobj_tx_add_range(PMEMoid object,
                                                                std::uint64_t offset,
                                                                std::size_t size) {
    return pmemobj_tx_xadd_range(object, offset, size, 0);
}

__attribute__((visibility("default"))) void pmemobj_tx_commit() {
    using namespace holdfast::crash;
    static const auto libpmemobj = real<void (*)()>("pmemobj_tx_commit");
    if (late.address != nullptr) {
        const Late last = late;
        late = {};
        static const auto add_range = real<AddRange>("pmemobj_tx_xadd_range_direct");
        add_range(last.address, last.size, last.flags);
    }
    libpmemobj();
}
}
