// Flushes frame metadata by the run: a cache line holds the records of four frames, and frames
// mostly come one after the other.
//
// Not thread-safe.
#pragma once

#include <algorithm>

#include "memory/physical_memory.hpp"

namespace holdfast::memory {

class MetadataFlush {
  public:
    explicit MetadataFlush(const PhysicalMemory& memory) : memory_(memory) {}
    ~MetadataFlush() { finish(); }
    MetadataFlush(const MetadataFlush&) = delete;
    MetadataFlush& operator=(const MetadataFlush&) = delete;

    // The frame's record was changed, and is flushed by `finish` or the destructor at the latest.
    void add(FrameNumber frame) {
        if (count_ == 0 || frame != first_ + count_) {
            finish();
            first_ = frame;
        }
        ++count_;
    }
    // Everything added is flushed when this returns, and durable after the next drain.
    void finish() {
        while (count_ != 0) {
            // The next frame may be another region's.
            const Region& region = *memory_.region_of(first_);
            const std::uint64_t here = std::min(count_, region.end() - first_);
            memory_.pool().flush(region.metadata(first_).word0, here * format::kFrameMetadataBytes);
            first_ = first_ + here;
            count_ -= here;
        }
    }
    // Nothing of it needs to be flushed any more.
    void forget() { count_ = 0; }

  private:
    const PhysicalMemory& memory_;
    FrameNumber first_;
    std::uint64_t count_ = 0;
};

}  // namespace holdfast::memory
