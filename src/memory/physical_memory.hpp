// Physical memory: the regions of a store, where their frames are in this process, and their
// metadata. Knows no virtual addresses.
//
// Regions are only ever added while a store is open, so look-ups need no lock. What takes a region
// away, gives it other memory or another base (region_changes.hpp) is for the next opening to see.
//
// A region that has got another base answers to its frames' earlier numbers, too: `current` says
// what they are now, and the functions that look a frame up ask it.
//
// The file of an external region is looked at when something of it is first asked for, be it only
// its state: opening a store costs the same for any number of regions. (The first change asks for
// all.)
//
// A region whose memory is out of reach has metadata, which is in the pool, and no window: its
// frames can be looked up and released, but have no host address.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "format/build_record.hpp"
#include "format/frame_metadata.hpp"
#include "format/superblock.hpp"
#include "holdfast/error.hpp"
#include "holdfast/fault.hpp"
#include "holdfast/region.hpp"
#include "holdfast/types.hpp"
#include "memory/region_file.hpp"
#include "memory/swap_cache.hpp"
#include "memory/window.hpp"
#include "pool/pool.hpp"

namespace holdfast::memory {

// A frame's record as it stands on the medium.
struct MetadataWords {
    std::uint64_t* word0 = nullptr;
    FrameNumber home;  // what the record's check is made with, see RegionRecord
    std::uint64_t* word1() const { return word0 + 1; }
    explicit operator bool() const { return word0 != nullptr; }
};

class PhysicalMemory;

class Region {
  public:
    unsigned index() const { return index_; }
    RegionKind kind() const { return static_cast<RegionKind>(record_.kind); }
    // To whoever asks for any.
    bool gives_frames() const { return kind() != RegionKind::swap && !has_fixed_frames(); }
    bool has_fixed_frames() const { return kind() == RegionKind::device; }
    // As it was found; detached also when it was since.
    RegionState state() const {
        look();
        return state_.load(std::memory_order_acquire);
    }
    // A sentence, unless attached.
    std::string trouble() const;

    FrameNumber base() const { return FrameNumber(record_.base_frame); }
    FrameNumber end() const { return base() + frame_count(); }
    std::uint64_t frame_count() const { return record_.frame_count; }
    // So many of them, from the base on, have memory.
    std::uint64_t reachable_frames() const {
        look();
        return reachable_frames_;
    }
    bool contains(FrameNumber frame) const {
        return frame.value() - record_.base_frame < record_.frame_count;
    }
    // Metadata of the frames from this one on was never written: they are free, or a device's that
    // nobody has mapped.
    std::uint64_t initialized() const { return initialized_.load(std::memory_order_acquire); }
    MetadataWords metadata(FrameNumber frame) const {
        const std::uint64_t at = frame.value() - record_.base_frame;
        return {metadata_ + 2 * at, FrameNumber(record_.home_frame + at)};
    }
    // Null if it is out of reach.
    std::byte* host(FrameNumber frame) const {
        look();
        const std::uint64_t at = frame.value() - record_.base_frame;
        return at < reachable_frames_ ? host_ + (at << kPageShift) : nullptr;
    }
    // Its record was changed since, for the next opening to see.
    bool is_outlived() const { return is_outlived_.load(std::memory_order_acquire); }
    // As it stood at opening, or when it was made.
    const format::RegionRecord& record() const { return record_; }

  private:
    friend class PhysicalMemory;
    void look() const;
    const PhysicalMemory* memory_ = nullptr;
    std::atomic<bool> was_looked_at_ = false;
    unsigned index_ = 0;
    format::RegionRecord record_{};
    std::atomic<RegionState> state_ = RegionState::attached;
    std::atomic<bool> is_outlived_ = false;
    std::string trouble_;  // as at opening
    std::uint64_t* metadata_ = nullptr;
    std::byte* host_ = nullptr;
    std::uint64_t reachable_frames_ = 0;
    const pool::ForeignMemory* file_ = nullptr;  // of an external region, if it is attached
    std::atomic<std::uint64_t> initialized_ = 0;
};

// Rewrites one region's record within a commit: `change` is given a copy, which gets its checksum.
void change_record(pool::TransactionScope& scope, format::RegionRecord& on_medium,
                   const std::function<void(format::RegionRecord&)>& change);

class PhysicalMemory {
  public:
    PhysicalMemory(const pool::Pool& pool, format::Superblock& superblock, Files files)
        : pool_(pool), superblock_(superblock), files_(files) {}

    // Takes up the regions that the superblock names; constant in the number of frames. A region
    // whose memory is not what it was is no error, see RegionState.
    Result<void> attach();
    // Adds a region of at most `size_bytes` of what the pool has left, in one transaction.
    // `reserve_bytes` is left for libpmemobj's own objects. no_space if not one frame fits.
    Result<void> add_pool_region(std::uint64_t size_bytes, std::uint64_t reserve_bytes);
    // Of kind external, swap or device.
    Result<unsigned> add_external_region(const std::string& path,
                                         const ExternalRegionOptions& options,
                                         RegionKind kind = RegionKind::external);
    Result<unsigned> add_volatile_region(std::uint64_t size_bytes, LossPolicy loss);

    // Pairs the files of external regions with the pool anew (format/region_header.hpp), and stores
    // `writes` in the first of its commits. To be called before the first change after opening.
    Result<void> begin_epoch(pool::WriteSet& writes);

    // Whether there are external regions.
    bool has_files() const { return has_files_.load(std::memory_order_acquire); }

    std::span<const Region> regions() const {
        return {regions_.data(), region_count_.load(std::memory_order_acquire)};
    }
    const Region* region_of(FrameNumber frame) const {
        frame = current(frame);
        for (const Region& region : regions())
            if (region.contains(frame)) return &region;
        return nullptr;
    }
    // The metadata of a frame, or nothing if no region holds it.
    MetadataWords metadata(FrameNumber frame) const {
        frame = current(frame);
        const Region* region = region_of(frame);
        return region != nullptr ? region->metadata(frame) : MetadataWords{};
    }
    // What a frame is numbered now that had this number when its region had another base; the same
    // number for all others.
    FrameNumber current(FrameNumber frame) const {
        return former_count_.load(std::memory_order_acquire) == 0 ? frame : current_of(frame);
    }
    // The frame whose metadata is checked with this number, see MetadataWords::home.
    std::optional<FrameNumber> at_home(FrameNumber home) const;
    // The frame of zeros that the superblock names, if there is one and it is well.
    std::optional<FrameNumber> zero_frame() const;
    // Whether the number was a frame's of a region whose content is gone: which region's.
    const Region* replaced_region(FrameNumber frame) const;
    // Nothing if the record fails its check, or no region holds the frame.
    std::optional<format::FrameMetadata> valid_metadata(FrameNumber frame) const;
    // The huge frame in use that the frame is a part of, but not its first.
    std::optional<format::Extent> huge_frame_around(FrameNumber frame) const;
    // That metadata of so many frames of the region is valid, of `up_to` at least. What was not is
    // written first.
    Result<void> initialize_metadata(const Region& region, std::uint64_t up_to);

    // The window of a frame that an entry of a validated table points to, or null.
    // It knows only current numbers.
    const Window* window_of(FrameNumber frame) const {
        if (windows_[0].contains(frame)) [[likely]]
            return &windows_[0];
        return other_window_of(frame);
    }
    const LinkedTables& linked_tables() const { return linked_tables_; }
    std::byte* host(FrameNumber frame) const {
        frame = current(frame);
        const Window* window = window_of(frame);
        return window != nullptr ? window->host(frame) : nullptr;
    }
    std::uint64_t* table(FrameNumber frame) const {
        return reinterpret_cast<std::uint64_t*>(host(frame));
    }

    // Why the bytes of a data frame cannot be had, or nothing. A frame of a volatile region that
    // was filled by an earlier process and is to be zeros now is filled by asking.
    std::optional<FaultKind> out_of_reach(FrameNumber frame) const {
        if (windows_[0].contains(frame)) [[likely]]
            return std::nullopt;
        return elsewhere_out_of_reach(frame);
    }
    // Why a shared page that is in the pool may not be used: it is of a mapped file, and that is
    // not what it was. Nothing for pages of no file. Whoever knows the files says it.
    std::optional<FaultKind> file_out_of_reach(format::OwnerId owner, std::uint64_t page) const {
        return on_file_page_ ? on_file_page_(owner, page) : std::nullopt;
    }
    using OnFilePage =
        std::function<std::optional<FaultKind>(format::OwnerId owner, std::uint64_t page)>;
    void on_file_page(OnFilePage ask) { on_file_page_ = std::move(ask); }
    // Of a volatile region: it holds what this process has put there, and nothing of before.
    void set_filled(FrameNumber frame, bool filled) const;

    // Whether whoever accesses a page is to set A and D of its entry, as a processor does: only
    // while somebody asks for them.
    bool tracks_accesses() const { return tracks_accesses_.load(std::memory_order_relaxed); }
    void track_accesses() { tracks_accesses_.store(true, std::memory_order_relaxed); }

    SwapCache& swap_cache() const { return swap_cache_; }

    // No frames of the region are given out any more.
    void close_to_allocation(unsigned index);
    // The region's record was changed so that this opening must not touch it any more.
    void outlive(unsigned index);

    const pool::Pool& pool() const { return pool_; }
    format::Superblock& superblock() const { return superblock_; }
    Files files() const { return files_; }
    // Held while region records change.
    std::mutex& changing() { return adding_; }
    // A physical range of its own for the record's window; `next_base` is raised.
    static Result<void> give_base(format::RegionRecord& record, std::uint64_t& next_base);
    Result<std::uint64_t> next_base() const;
    void write_next_base(pool::TransactionScope& scope, std::uint64_t next_base) const;

  private:
    friend class Region;
    Result<void> take_up(unsigned index);
    void look_at(unsigned index) const;
    void attach_file(Region& region) const;
    void attach_volatile(Region& region) const;
    // False if there is no memory to mark the validated tables.
    bool provide_window(const Region& region, std::uint64_t frames) const;
    Result<format::RegionRecord> new_record(pool::Offset place, std::uint64_t frames,
                                            std::uint64_t& next_base) const;
    Result<unsigned> add_record(format::RegionRecord record, const std::string& path);
    void write_region_count(pool::TransactionScope& scope, std::uint64_t count) const;
    FrameNumber current_of(FrameNumber frame) const;
    Result<unsigned> room_for_region() const;
    const Window* other_window_of(FrameNumber frame) const;
    std::optional<FaultKind> elsewhere_out_of_reach(FrameNumber frame) const;

    const pool::Pool& pool_;
    format::Superblock& superblock_;
    const Files files_;
    OnFilePage on_file_page_;
    std::mutex adding_;
    std::atomic<bool> has_files_ = false;
    std::atomic<bool> tracks_accesses_ = false;
    mutable SwapCache swap_cache_;
    // Regions and windows of what was not looked at yet come to be behind the back of readers.
    mutable std::mutex looking_;
    mutable std::array<Region, format::kMaxRegions> regions_;
    std::atomic<std::size_t> region_count_ = 0;
    // Numbers of before: of frames that have others now, or that are gone.
    struct Former {
        std::uint64_t first = 0, count = 0;
        const Region* region = nullptr;
        bool is_gone = false;
    };
    std::array<Former, format::kMaxRegions> former_;
    std::atomic<std::size_t> former_count_ = 0;
    mutable std::array<Window, format::kMaxRegions> windows_;
    mutable LinkedTables linked_tables_;
    mutable std::atomic<std::size_t> window_count_ = 0;
};

inline void Region::look() const {
    if (!was_looked_at_.load(std::memory_order_acquire)) memory_->look_at(index_);
}

}  // namespace holdfast::memory
