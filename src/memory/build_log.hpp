// Long operations build new tables aside, in frames that a build record names (format/
// build_record.hpp), so that nothing they write needs an undo log. This is the volatile side: who
// holds which build slot, and what an interrupted process has left in them.
//
// Thread safety: `acquire` and `release` from any thread; a Build belongs to its transaction.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "memory/frame_allocator.hpp"
#include "memory/physical_memory.hpp"

namespace holdfast::memory {

// The frames that one transaction has reserved, and the slot that says so on the medium.
struct Build {
    unsigned slot = 0;
    FrameNumber head;                 // the newest record
    std::vector<Extent> unused;       // reserved in the pool, and not taken yet
    std::vector<Extent> unused_data;  // reserved for data that prefers a region, and not taken yet
    std::array<std::vector<FrameNumber>, 4> unused_huge;  // the same, by level
    std::vector<Extent> reserved;                         // everything, record frames included
    // Parts of huge frames in use, which the commit makes frames of their own.
    std::vector<Extent> parts;
    std::vector<Extent> records;  // the frames that hold records
};

class BuildLog {
  public:
    BuildLog(PhysicalMemory& memory, FrameAllocator& allocator)
        : memory_(memory), allocator_(allocator) {}

    // Occupies a slot; `busy` if all of them are.
    Result<Build> acquire();
    // Reserves `count` more frames; with a preferred region they are for data only. When it
    // returns, the record of them is durable.
    Result<void> reserve(Build& build, std::uint64_t count, Placement placement = {});
    // The same of huge frames (FrameAllocator::allocate_huge).
    Result<void> reserve_huge(Build& build, unsigned level, std::uint64_t count,
                              Placement placement = {});
    // The metadata of these parts of a huge frame, which says "free", may be written until the
    // commit: a crash before it makes it say so again. First ends all interrupted builds, one of
    // which may name them, too.
    Result<void> name_parts(Build& build, Extent parts);

    std::uint64_t* slot_word(const Build& build) const;
    static std::uint64_t empty_slot_word(unsigned slot);

    // After the commit that cleared the slot: what was not taken is free again.
    void finish(Build& build);
    // Frees everything the build has taken, and clears the slot.
    void abandon(Build& build);

    // Reads the slots that an earlier process left occupied, and withholds their frames. To be
    // called once, before the first allocation; proportional to the number of extents.
    Result<void> find_interrupted();
    // Frees up to `frames` frames of interrupted builds; returns how many are left to look at.
    std::uint64_t release_interrupted(std::uint64_t frames);
    bool has_interrupted() const { return any_interrupted_.load(std::memory_order_acquire); }
    // The extents a slot's records name, as they stand on the medium; nothing if it is empty.
    static Result<std::vector<Extent>> read_slot(const PhysicalMemory& memory, unsigned slot,
                                                 std::vector<FrameNumber>* records = nullptr);

  private:
    struct Interrupted {
        unsigned slot = 0;
        std::vector<Extent> extents;
        std::size_t extent = 0;
        std::uint64_t frame = 0;
    };
    // Writes the records into frames that are among the extents, and publishes them.
    void publish(Build& build, const std::vector<Extent>& extents,
                 const std::vector<FrameNumber>& record_frames);
    void free_metadata(Extent extent) const;
    void clear_slot(unsigned slot) const;

    PhysicalMemory& memory_;
    FrameAllocator& allocator_;
    std::mutex mutex_;
    std::uint64_t occupied_ = 0;  // one bit a slot
    std::vector<Interrupted> interrupted_;
    std::atomic<bool> any_interrupted_ = false;  // whether that has any: asked after every commit
};

}  // namespace holdfast::memory
