// A trace file under construction in shared memory: whoever maps it has all events so far, also
// after the traced process was killed. Appending is async-signal-safe and not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "trace/event.hpp"

namespace holdfast::crash {

class TraceBuffer {
  public:
    // `memory` is zeroed and shared; it becomes a trace file (trace/event.hpp).
    explicit TraceBuffer(std::span<std::byte> memory) : memory_(memory) {
        const TraceHead head;
        std::memcpy(memory_.data(), &head, sizeof head);
    }

    TraceHead& head() { return *reinterpret_cast<TraceHead*>(memory_.data()); }

    // False if there is no room: the trace ends there and is not complete.
    bool append(const EventRecord& record, const void* data, std::span<const std::uint64_t> stack) {
        const std::uint64_t data_bytes =
            has_data(record.kind) ? (std::uint64_t{record.size} + 7) / 8 * 8 : 0;
        const std::uint64_t at = sizeof(TraceHead) + head().events_bytes;
        if (at + sizeof record + data_bytes + stack.size_bytes() > memory_.size()) {
            full_ = true;
            return false;
        }
        std::byte* to = memory_.data() + at;
        std::memcpy(to, &record, sizeof record);
        to += sizeof record;
        if (data_bytes != 0) std::memcpy(to, data, record.size);
        to += data_bytes;
        if (!stack.empty()) std::memcpy(to, stack.data(), stack.size_bytes());
        head().events_bytes += sizeof record + data_bytes + stack.size_bytes();
        return true;
    }
    bool full() const { return full_; }

  private:
    std::span<std::byte> memory_;
    bool full_ = false;
};

}  // namespace holdfast::crash
