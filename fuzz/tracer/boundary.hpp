// libpmem's functions, seen from both sides: everything that flushes, fences or copies to
// persistent memory, libpmemobj included, passes through here in a program that this is linked into
// (or preloaded to), and an observer may watch it or take its place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace holdfast::crash {

class BoundaryObserver {
  public:
    virtual ~BoundaryObserver() = default;
    // Each returns whether the call was dealt with; if not, libpmem's function runs. `caller` is
    // where the call came from.
    virtual bool flush(const void* address, std::size_t size, const void* caller) = 0;
    virtual bool drain(const void* caller) = 0;
    // msync: where pools are persistent memory (emulated, if need be) it is a persist.
    virtual bool sync(const void* address, std::size_t size, const void* caller) {
        return flush(address, size, caller) && drain(caller);
    }
    // A copy of `size` bytes (memcpy and memmove), or a filling with `byte` if `source` is null, as
    // libpmem's flags have it.
    virtual bool copy(void* destination, const void* source, int byte, std::size_t size,
                      unsigned flags, const void* caller) = 0;
};

// One at a time; null for none. Not while another thread is in libpmem.
void observe_boundary(BoundaryObserver* observer);

}  // namespace holdfast::crash
