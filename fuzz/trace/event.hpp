// What a traced program did to its pool, in order.
#pragma once

#include <cstdint>

namespace holdfast::crash {

enum class EventKind : std::uint8_t {
    store = 1,               // offset, size, bytes: through the cache
    store_non_temporal = 2,  // offset, size, bytes: movnt, or a copy of libpmem's that may use it
    flush = 3,               // offset, size: clwb or clflushopt of each line
    flush_now = 4,           // offset, size: clflush of each line
    fence = 5,               // sfence, mfence, or a locked instruction
    begin = 6,               // an operation begins; offset is its number
    acknowledge = 7,         // the operation has returned, and is durable if it is to be
    module = 8,              // offset is where it was loaded, bytes its path; not an event in time
};
const char* to_string(EventKind kind);

// Room for a trace that is being written: reserved, not used, so that it costs what its events
// need.
inline constexpr std::uint64_t kTraceRoomBytes = std::uint64_t{2} << 30;

constexpr bool is_store(EventKind kind) {
    return kind == EventKind::store || kind == EventKind::store_non_temporal;
}

// How one lies in a trace file, followed by `size` bytes of data if it is a store or a module,
// padded with zeros to 8, and by `stack_depth` return addresses of 8 bytes, innermost first.
//
//   | at | bytes | field                                                        |
//   |  0 |     1 | kind                                                         |
//   |  1 |     1 | 0                                                            |
//   |  2 |     2 | thread: 0 is the first that did anything                     |
//   |  4 |     4 | size in bytes                                                |
//   |  8 |     8 | offset in the pool's file, or the operation's number         |
//   | 16 |     4 | stack_depth                                                  |
//   | 20 |     4 | process: addresses are those of one process                  |
struct EventRecord {
    EventKind kind{};
    std::uint8_t reserved0 = 0;
    std::uint16_t thread = 0;
    std::uint32_t size = 0;
    std::uint64_t offset = 0;
    std::uint32_t stack_depth = 0;
    std::uint32_t process = 0;
};
static_assert(sizeof(EventRecord) == 24);

constexpr bool has_data(EventKind kind) { return is_store(kind) || kind == EventKind::module; }

// The head of a trace file; all integers are little-endian.
//
//   |  0 |     8 | "HFTRACE" and a zero                                         |
//   |  8 |     4 | version: 1                                                   |
//   | 12 |     4 | 1 if the tracer ended in order, 2 if the file was too small  |
//   | 16 |     8 | bytes of events that follow the head                         |
//   | 24 |     8 | bytes of the pool's file                                     |
//   | 32 |     8 | nanoseconds that tracing added, as the tracer measured them  |
//   | 40 |     8 | processes that had the tracer in them, one after the other   |
//   | 48 |     8 | operations that were acknowledged                            |
//   | 56 |     8 | 0                                                            |
struct TraceHead {
    char magic[8] = {'H', 'F', 'T', 'R', 'A', 'C', 'E', 0};
    std::uint32_t version = 1;
    std::uint32_t complete = 0;
    std::uint64_t events_bytes = 0;
    std::uint64_t pool_bytes = 0;
    std::uint64_t tracing_ns = 0;
    std::uint64_t processes = 0;
    std::uint64_t acknowledged = 0;
    std::uint64_t reserved = 0;
};
static_assert(sizeof(TraceHead) == 64);
inline constexpr std::uint32_t kTraceVersion = 1;

}  // namespace holdfast::crash
