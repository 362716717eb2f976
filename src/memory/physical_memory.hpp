// Physical memory: the regions of a store, where their frames are in this process, and their
// metadata. Knows no virtual addresses.
//
// Regions are only ever added while a store is open, so look-ups need no lock.
//
// Every region lies in a *window*: a physical range that is mapped as one piece. A pool in one file
// has one window, which covers all its regions; so the walk finds a frame's address by one compare
// and one addition, and the compare is predicted.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "format/frame_metadata.hpp"
#include "format/superblock.hpp"
#include "holdfast/error.hpp"
#include "holdfast/types.hpp"
#include "pool/pool.hpp"

namespace holdfast::memory {

// A frame's record as it stands on the medium.
struct MetadataWords {
    std::uint64_t* word0 = nullptr;
    std::uint64_t* word1() const { return word0 + 1; }
    explicit operator bool() const { return word0 != nullptr; }
};

class Region {
  public:
    FrameNumber base() const { return FrameNumber(record_->base_frame); }
    std::uint64_t frame_count() const { return record_->frame_count; }
    bool contains(FrameNumber frame) const {
        return frame.value() - record_->base_frame < record_->frame_count;
    }
    MetadataWords metadata(FrameNumber frame) const {
        return {metadata_ + 2 * (frame.value() - record_->base_frame)};
    }
    std::byte* host(FrameNumber frame) const {
        return host_ + ((frame.value() - record_->base_frame) << kPageShift);
    }
    const format::RegionRecord& record() const { return *record_; }

  private:
    friend class PhysicalMemory;
    const format::RegionRecord* record_ = nullptr;
    std::uint64_t* metadata_ = nullptr;
    std::byte* host_ = nullptr;
};

struct BitmapUnmap {
    std::size_t size_bytes = 0;
    void operator()(std::atomic<std::uint64_t>* bits) const;
};

// A physical range that is mapped in one piece, and which of its table frames were validated since
// the store was opened.
class Window {
  public:
    bool contains(FrameNumber frame) const { return frame.value() - first_ < count_; }
    std::byte* host(FrameNumber frame) const {
        return host_ + ((frame.value() - first_) << kPageShift);
    }
    std::uint64_t* table(FrameNumber frame) const {
        return reinterpret_cast<std::uint64_t*>(host(frame));
    }
    bool is_validated(FrameNumber frame) const {
        const std::uint64_t at = frame.value() - first_;
        return validated_[at / 64].load(std::memory_order_acquire) >> (at % 64) & 1;
    }
    void set_validated(FrameNumber frame, bool validated) const {
        const std::uint64_t at = frame.value() - first_;
        const std::uint64_t bit = std::uint64_t{1} << (at % 64);
        if (validated)
            validated_[at / 64].fetch_or(bit, std::memory_order_release);
        else
            validated_[at / 64].fetch_and(~bit, std::memory_order_release);
    }

  private:
    friend class PhysicalMemory;
    std::uint64_t first_ = 0;
    std::uint64_t count_ = 0;
    std::byte* host_ = nullptr;
    // Zero pages that the kernel provides on first use: opening costs the same for any size.
    std::unique_ptr<std::atomic<std::uint64_t>[], BitmapUnmap> validated_;
};

class PhysicalMemory {
  public:
    explicit PhysicalMemory(const pool::Pool& pool, format::Superblock& superblock)
        : pool_(pool), superblock_(superblock) {}

    // Takes up the regions that the superblock names; constant in the number of frames.
    Result<void> attach();
    // Adds a region of at most `size_bytes` of what the pool has left, in one transaction.
    // `reserve_bytes` is left for libpmemobj's own objects. no_space if not one frame fits.
    Result<void> add_pool_region(std::uint64_t size_bytes, std::uint64_t reserve_bytes);

    std::span<const Region> regions() const {
        return {regions_.data(), region_count_.load(std::memory_order_acquire)};
    }
    const Region* region_of(FrameNumber frame) const;
    // The metadata of a frame, or nothing if no region holds it.
    MetadataWords metadata(FrameNumber frame) const {
        const Region* region = region_of(frame);
        return region != nullptr ? region->metadata(frame) : MetadataWords{};
    }
    // Nothing if the record fails its check, or no region holds the frame.
    std::optional<format::FrameMetadata> valid_metadata(FrameNumber frame) const;

    // The window of a frame that an entry of a validated table points to, or null.
    const Window* window_of(FrameNumber frame) const {
        if (windows_[0].contains(frame)) [[likely]]
            return &windows_[0];
        return other_window_of(frame);
    }
    std::byte* host(FrameNumber frame) const {
        const Window* window = window_of(frame);
        return window != nullptr ? window->host(frame) : nullptr;
    }
    std::uint64_t* table(FrameNumber frame) const {
        return reinterpret_cast<std::uint64_t*>(host(frame));
    }

    const pool::Pool& pool() const { return pool_; }
    format::Superblock& superblock() const { return superblock_; }

  private:
    Result<void> take_up(unsigned index);
    Result<format::RegionRecord> new_record(pool::Offset place, std::uint64_t frames,
                                            std::uint64_t& next_base) const;
    const Window* other_window_of(FrameNumber frame) const;

    const pool::Pool& pool_;
    format::Superblock& superblock_;
    std::mutex adding_;
    std::array<Region, format::kMaxRegions> regions_;
    std::atomic<std::size_t> region_count_ = 0;
    std::array<Window, format::kMaxRegions> windows_;
    std::atomic<std::size_t> window_count_ = 0;
};

}  // namespace holdfast::memory
