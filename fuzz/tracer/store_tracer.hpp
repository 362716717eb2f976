// Records every store to the watched pool, exactly and in order, with every flush and fence.
//
// The pool's pages are write-protected. A store to one faults; its page is opened, the one
// instruction is stepped over, what changed is recorded, and the page is closed again. So it works
// on code that knows nothing of it, libpmemobj included. Copies by libpmem's functions are recorded
// whole (boundary.hpp), with the kind of store that libpmem's flags promise.
//
// Threads run one at a time while one of them is in a store: the others are stopped by a signal, so
// that none can pass through the open page unseen.
//
// What it cannot see: stores by the kernel (a read() into the pool fails with EFAULT), by a KVM
// guest, and stores through a mapping made before `start`.
#pragma once

#include <cstdint>
#include <string>

#include "holdfast/error.hpp"
#include "tracer/trace_buffer.hpp"

namespace holdfast::crash {

class StoreTracer {
  public:
    // Traces stores to mappings that are made of the file from now on, into `buffer`, which
    // outlives the tracing. One at a time in a process.
    static Result<void> start(const std::string& path, TraceBuffer& buffer);
    // Closes the trace; `complete` in its head is set. The pool may be stored to, unseen.
    static void stop();

    // Marks the beginning and the acknowledgement of an operation. Outside a trace they do nothing.
    static void begin(std::uint64_t operation);
    static void acknowledge(std::uint64_t operation);

    static bool running();
    static bool has_seen_pool();  // a mapping of it
};

}  // namespace holdfast::crash
