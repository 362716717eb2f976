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
        this->head().processes = 1;
    }

    // Goes on with what another process has begun (or only prepared: a head and nothing after it).
    static TraceBuffer resumed(std::span<std::byte> memory) {
        TraceBuffer buffer;
        buffer.memory_ = memory;
        buffer.process_ = static_cast<std::uint32_t>(
            __atomic_fetch_add(&buffer.head().processes, 1, __ATOMIC_RELAXED));
        return buffer;
    }

    TraceHead& head() { return *reinterpret_cast<TraceHead*>(memory_.data()); }

    // False if there is no room: the trace ends there and is marked as full.
    bool append(EventRecord record, const void* data, std::span<const std::uint64_t> stack) {
        record.process = process_;
        const std::uint64_t data_bytes =
            has_data(record.kind) ? (std::uint64_t{record.size} + 7) / 8 * 8 : 0;
        const std::uint64_t at = sizeof(TraceHead) + head().events_bytes;
        if (at + sizeof record + data_bytes + stack.size_bytes() > memory_.size()) {
            head().complete = kFull;
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
    bool full() { return head().complete == kFull; }

    // While a process is in it, and after that.
    void open() {
        if (!full()) head().complete = 0;
    }
    void close() {
        if (!full()) head().complete = kComplete;
    }

  private:
    static constexpr std::uint32_t kComplete = 1, kFull = 2;
    TraceBuffer() = default;
    std::span<std::byte> memory_;
    std::uint32_t process_ = 0;
};

}  // namespace holdfast::crash
