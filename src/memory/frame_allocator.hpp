// Which frames are free, in volatile memory: the truth is in the frame metadata, and is read chunk
// by chunk when frames of a chunk are first wanted. So opening a store costs nothing here.
//
// A huge frame (2 MiB or 1 GiB) is that many free frames, aligned in their numbers, whose first
// one's metadata then stands for all; the others' go on to say "free", and are not looked at.
// Chunks are aligned as well, so that no 2 MiB lie in two (free_chunk.hpp).
//
// Giving out or taking back a frame changes nothing on the medium; whoever uses the frame writes
// its metadata. Frames that readers may still hold are *retired*: they wait for a grace period.
//
// Thread safety: all functions, by one mutex.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "format/build_record.hpp"
#include "memory/frame_charges.hpp"
#include "memory/free_chunk.hpp"
#include "memory/physical_memory.hpp"

namespace holdfast::memory {

using format::Extent;

// Where a frame is wanted: in the pool, as tables and records must be, or, for data, in a certain
// region, and in the pool if there is none left there.
struct Placement {
    static constexpr std::uint8_t kPool = 0xff;
    std::uint8_t region = kPool;  // its index
    bool only = false;            // nowhere else, if there is none left

    bool is_pool() const { return region == kPool; }
    friend bool operator==(Placement, Placement) = default;
};

// What is free, and in how large pieces.
struct FreeFrames {
    std::uint64_t frames = 0;
    std::uint64_t huge_2MiB = 0, huge_1GiB = 0;  // so many huge frames can be had
};

class FrameAllocator {
  public:
    explicit FrameAllocator(PhysicalMemory& memory) : memory_(memory) {}

    // `count` frames in as few extents as the next free runs allow; all of them or no_space.
    Result<std::vector<Extent>> allocate(std::uint64_t count, Placement placement = {});
    Result<FrameNumber> allocate_one(Placement placement = {});
    // A huge frame: 2 MiB at level 2, 1 GiB at level 3. no_space says how much there is in pieces.
    Result<Extent> allocate_huge(unsigned level, Placement placement = {});
    // One of the few frames that are held back for those who are about to free others: a store that
    // is full can still be emptied, which takes a frame or two of its own.
    Result<FrameNumber> allocate_held_back();
    // This frame, if it is free; false if not, or if that is not known without waiting.
    bool allocate_again(FrameNumber frame);
    // Free at once: nobody has seen these.
    void give_back(Extent extent);
    // Free after the next grace period: readers may hold these.
    void retire(Extent extent);
    // Waits for one, if frames are retired; true if there were any.
    bool collect_retired();

    // Must be called before the metadata of frames in use becomes "free" on the medium: reads their
    // chunks while it still says "in use", so that only `give_back` or `retire` free them.
    Result<void> prepare_release(Extent extent);

    // Frames that an interrupted build still claims: free on the medium, but not given out until
    // `give_back_withheld`, also if others are given back meanwhile that they are parts of. Those
    // that are parts of a huge frame in use then stay what they are.
    void withhold(Extent extent);
    void give_back_withheld(Extent extent);

    // That so many frames of the region have valid metadata, see PhysicalMemory.
    Result<void> initialize(const Region& region, std::uint64_t frames);

    FrameCharges& charges() { return charges_; }

    // While it is held, nothing is given out or taken back, and no metadata made.
    std::unique_lock<std::mutex> hold() { return std::unique_lock(mutex_); }

    // Proportional to all frames of the store but those of devices; changes nothing on the medium.
    // `for_anybody`: only those that a call without a wish for a region could be given.
    FreeFrames count_free(bool for_anybody = false);
    // Frames whose metadata failed its check when it was read.
    std::uint64_t damaged_frames() const { return damaged_; }

    // Enough for the gather tables of a range in five levels, and limbo pages.
    static constexpr std::uint64_t kHeldBack = 24;

  private:
    struct RegionChunks {
        std::vector<std::unique_ptr<FreeChunk>> chunks;
        std::size_t hint = 0;  // where the last frame was found
    };

    void know_regions();
    Result<std::vector<Extent>> allocate_locked(std::uint64_t count, Placement placement);
    Result<std::uint64_t> take_from_region(std::size_t region, std::uint64_t wanted,
                                           std::vector<Extent>& out);
    Result<std::optional<Extent>> take_huge_from_region(std::size_t region, unsigned level);
    // Calls `take(region)`, for the preferred one and then for the pool's, until it says "enough".
    template <typename Take>
    Result<void> each_region(Placement placement, const Take& take);
    bool may_give(std::size_t region) const;
    std::optional<FrameNumber> take_next_to_hint(std::size_t region);
    Error not_enough(std::uint64_t wanted, std::uint64_t found) const;
    // The frame that would be the chunk's first; a region may begin within its first chunk.
    FrameNumber chunk_base(std::size_t region, std::size_t chunk) const;
    Extent chunk_extent(std::size_t region, std::size_t chunk) const;
    std::size_t chunk_of(std::size_t region, FrameNumber frame) const;
    std::unique_ptr<FreeChunk> read_chunk(std::size_t region, std::size_t chunk,
                                          std::uint64_t* damaged) const;
    Result<FreeChunk*> chunk_at(std::size_t region, std::size_t chunk);
    bool is_withheld(FrameNumber frame) const;
    void put_locked(Extent extent, bool was_withheld = false);
    void forget(FrameNumber first, std::uint64_t count);

    PhysicalMemory& memory_;
    std::mutex collecting_;  // before mutex_
    std::mutex mutex_;
    std::vector<RegionChunks> regions_;
    std::size_t hint_region_ = 0;  // of the pool's, the one that the last frame came from
    bool holding_back_ = false;
    std::vector<FrameNumber> held_back_;
    std::vector<Extent> withheld_;
    std::vector<Extent> retired_;
    std::uint64_t retired_frames_ = 0;
    std::uint64_t damaged_ = 0;
    FrameCharges charges_;
};

}  // namespace holdfast::memory
