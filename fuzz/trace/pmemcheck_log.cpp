// The store log of PMDK's pmemcheck: items between bars, of which pmreorder reads these:
//
//     START | REGISTER_FILE;path;base;size;offset | STORE;address;value;size | FLUSH;address;size
//     FENCE | STOP
//
// A value is the stored bytes as a little-endian integer, at most 8 bytes of them.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "trace/trace.hpp"

namespace holdfast::crash {

namespace {

// Any base does: pmreorder takes it off again.
constexpr std::uint64_t kBase = 0x1000'0000'0000;

// Whole lines, as pmemcheck logs them: pmreorder takes a store for flushed only if the range named
// here meets it.
std::string flush_of(const Event& event) {
    constexpr std::uint64_t kLine = 64;
    const std::uint64_t begin = event.offset / kLine * kLine;
    const std::uint64_t end = (event.offset + event.size + kLine - 1) / kLine * kLine;
    return fmt::format("|FLUSH;{:#x};{:#x}", kBase + begin, end - begin);
}

}  // namespace

std::string to_pmemcheck_log(const Trace& trace, const std::string& pool_path) {
    std::string log =
        fmt::format("START|REGISTER_FILE;{};{:#x};{:#x};0x0", pool_path, kBase, trace.pool_bytes);
    for (const Event& event : trace.events) {
        switch (event.kind) {
            case EventKind::store:
            case EventKind::store_non_temporal: {
                for (std::uint32_t at = 0; at < event.size;) {
                    const std::uint64_t place = event.offset + at;
                    const auto size = static_cast<std::uint32_t>(
                        std::min<std::uint64_t>(8 - place % 8, event.size - at));
                    std::uint64_t value = 0;
                    std::memcpy(&value, event.bytes.data() + at, size);
                    log += fmt::format("|STORE;{:#x};{:#x};{:#x}", kBase + place, value, size);
                    at += size;
                }
                // pmreorder knows no non-temporal stores: they are durable with the next fence.
                if (event.kind == EventKind::store_non_temporal) log += flush_of(event);
                break;
            }
            case EventKind::flush:
            case EventKind::flush_now:
                log += flush_of(event);
                if (event.kind == EventKind::flush_now) log += "|FENCE";
                break;
            case EventKind::fence:
                log += "|FENCE";
                break;
            case EventKind::begin:
            case EventKind::acknowledge:
            case EventKind::module:
                break;
        }
    }
    return log + "|STOP";
}

}  // namespace holdfast::crash
