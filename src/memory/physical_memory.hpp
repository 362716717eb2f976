// Physical memory: the regions of a store, where their frames are in this process, and their
// metadata. Knows no virtual addresses.
//
// Regions are only ever added while a store is open, so look-ups need no lock.
//
// Every region lies in a *window*: a physical range that is mapped as one piece. A pool in one file
// has one window, which covers all its regions; so the walk finds a frame's address by one compare
// and one addition, and the compare is predicted (LinkedTables).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "format/entry.hpp"
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
    FrameNumber end() const { return base() + frame_count(); }
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

// Which table frames were validated since the store was opened: a byte a frame, so that looking is
// one compare and setting one store; until then the number of walks through the table. Zero pages
// that the kernel provides on first use: opening costs the same for any size.
using ValidatedMark = std::atomic<std::uint8_t>;
inline constexpr std::uint8_t kValidated = 0x80;
struct MarksUnmap {
    std::size_t size_bytes = 0;
    void operator()(ValidatedMark* marks) const;
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
        return mark(frame).load(std::memory_order_acquire) >= kValidated;
    }
    void set_validated(FrameNumber frame, bool validated) const {
        mark(frame).store(validated ? kValidated : 0, std::memory_order_release);
    }
    // Counts a walk through a table that was not validated, up to `enough`. Whether there were as
    // many before it.
    bool has_walked(FrameNumber frame, std::uint8_t enough) const {
        std::uint8_t walks = mark(frame).load(std::memory_order_relaxed);
        if (walks >= enough) return true;
        // It may fail beside another walk, whose count is then as good.
        mark(frame).compare_exchange_strong(walks, walks + 1, std::memory_order_relaxed);
        return false;
    }

  private:
    friend class PhysicalMemory;
    friend class LinkedTables;
    ValidatedMark& mark(FrameNumber frame) const { return marks_[frame.value() - first_mark_]; }

    std::uint64_t first_ = 0;
    std::uint64_t count_ = 0;
    std::byte* host_ = nullptr;
    std::uint64_t first_mark_ = 0;  // the frame that the first mark stands for
    std::unique_ptr<ValidatedMark[], MarksUnmap> marks_;
};

// The first window, in the five words that a walk keeps in registers. Its physical range is seen as
// part of an aligned one of 2^n bytes, which has marks for all its frames. So one masked compare
// says that an entry is present, no leaf, permits everything, and points into the aligned range;
// and one mark, that its target lies in the window, too, and was validated.
class LinkedTables {
  public:
    LinkedTables() = default;  // no entry fits
    // The window's marks must cover the aligned range of `frames` frames, a power of two.
    LinkedTables(const Window& window, std::uint64_t frames)
        : offset_mask_((frames - 1) << kPageShift),
          mask_((format::Entry::kFrameMask & ~offset_mask_) | kPlain | format::Entry::kLargePage |
                format::Entry::kNoExecute),
          expected_((window.first_mark_ << kPageShift) | kPlain),
          // A number until an entry's offset leads into the window: it may lie outside of it.
          // NOLINTNEXTLINE(performance-no-int-to-ptr)
          host_(reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(window.host_) -
                                             ((window.first_ - window.first_mark_) << kPageShift))),
          marks_(window.marks_.get()) {}

    // Field by field: a copy stays in registers, which a copy of the bytes would not.
    LinkedTables(const LinkedTables& other)
        : offset_mask_(other.offset_mask_),
          mask_(other.mask_),
          expected_(other.expected_),
          host_(other.host_),
          marks_(other.marks_) {}
    LinkedTables& operator=(const LinkedTables&) = default;

    // Whether `entry` is such an ordinary link, and the table was validated. Any other entry, well
    // or not, is for the walk's other half.
    bool fits(format::Entry entry) const {
        return fits_unvalidated(entry) &&
               marks_[offset(entry) >> kPageShift].load(std::memory_order_acquire) >= kValidated;
    }
    // The same, whatever the mark says: for measuring what it costs.
    bool fits_unvalidated(format::Entry entry) const {
        return ((entry.bits() ^ expected_) & mask_) == 0;
    }
    // The table that an entry which fits links to.
    const std::uint64_t* table(format::Entry entry) const {
        return reinterpret_cast<const std::uint64_t*>(host_ + offset(entry));
    }

  private:
    static constexpr std::uint64_t kPlain =
        format::Entry::kPresent | format::Entry::kWritable | format::Entry::kUser;
    // The range is aligned: what an entry that fits does not share with it is its place therein.
    std::uint64_t offset(format::Entry entry) const {
        return (entry.bits() ^ expected_) & offset_mask_;
    }

    static constexpr ValidatedMark kNotValidated{0};

    std::uint64_t offset_mask_ = 0;
    std::uint64_t mask_ = 0;
    std::uint64_t expected_ = 0;
    std::byte* host_ = nullptr;  // where the aligned range would begin
    const ValidatedMark* marks_ = &kNotValidated;
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
    const Region* region_of(FrameNumber frame) const {
        for (const Region& region : regions())
            if (region.contains(frame)) return &region;
        return nullptr;
    }
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
    const LinkedTables& linked_tables() const { return linked_tables_; }
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
    LinkedTables linked_tables_;
    std::atomic<std::size_t> window_count_ = 0;
};

}  // namespace holdfast::memory
