// A persistent address space: ranges of virtual addresses mapped to frames of the pool.
//
//     Space space = *store.open_space("editor");
//     space.map({VirtAddr(0x7000'0000), 2_MiB}, protection::rw | protection::u);
//     space.write(VirtAddr(0x7000'0000), bytes);
//     space.persist({VirtAddr(0x7000'0000), bytes.size()});
//
// Thread safety. `translate`, `read`, `write`, `persist`, `maps` may be called from any number of
// threads at any time, also while others change the space: they take no lock, see no change that
// is not committed, and see each page whole, as it was before a change or as it is after it. `map`,
// `unmap` and `protect` from several threads are serialised for each space and run in parallel for
// different spaces. A `Space` is a handle: copies name the same space, and it keeps its store open.
//
// Durability. A call that changes the mapping is failure-atomic: after a crash at any instruction
// the space is as before the call or as after it; when the call has returned, it is durable. Bytes
// written by `write` (or through `frame_bytes`) are durable once `persist` has returned for them;
// until then a crash may keep any part of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "holdfast/device.hpp"
#include "holdfast/error.hpp"
#include "holdfast/fault.hpp"
#include "holdfast/file.hpp"
#include "holdfast/handle.hpp"
#include "holdfast/reclaim.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

namespace detail {
class SpaceState;
}

// One line of `maps`: a maximal run of pages with the same protection, name and backing.
struct Mapping {
    Range range;
    Protection protection;
    std::uint64_t resident_bytes = 0;  // how much of it has frames of its own; the rest is zeros
    std::string name;                  // as given to `map`, or a file's path; often empty
    std::uint64_t name_offset = 0;     // of the first byte, in what `name` names
    bool guard = false;                // mapped for nothing (MapOptions::guard)
    std::uint64_t huge_bytes = 0;      // how much of the resident ones in pages of 2 MiB or 1 GiB
    bool is_file = false;              // of the file `name`, from `name_offset` on
    bool is_shared = false;            // the same, shared
    bool stack_room = false;           // what a stack may still grow into (MapOptions::grows_down)
    // Frames of a device region (device.hpp) that follow each other, none resident; without a name
    // of its own it has the region's, "[region 3]", and the offset there.
    bool is_device = false;

    friend bool operator==(const Mapping&, const Mapping&) = default;
};

// A stack. Of the range it has the top at first, as demand-zero pages; an access below makes it
// grow down to the accessed page, as Linux's stacks do. The lowest pages of the range are guard
// pages, and as many pages stay between the stack and whatever else is mapped below it.
struct GrowsDown {
    std::uint64_t mapped_bytes = kPageSize;
    std::uint64_t guard_bytes = 256 * kPageSize;  // Linux's stack_guard_gap
};

// What `map` may be told besides range and protection.
struct MapOptions {
    // Reserve the range: pages read as zeros and get a frame at their first write.
    bool lazy = false;
    // Reserve the range for nothing: each access is a fault (FaultKind::guard), nothing else can be
    // mapped there, and only `unmap` changes it. The protection is not looked at; `maps` shows
    // none.
    bool guard = false;
    // The pages' size. Range and frames are multiples of it, aligned: one entry, one record and one
    // translation stand for all of a page, and `map` fails with no_space if the memory that is free
    // lies in smaller pieces. Of a lazy range it is a wish: a page that cannot be had as large when
    // it is first written is made of smaller ones. What is unmapped or protected may be a part of
    // such a page, which is then split; `promote` is the way back.
    PageSize page_size = PageSize::size_4KiB;
    // Map a stack, whose greatest size is the range's, guard included. Nothing else can be mapped
    // in the range. Room that it has not grown into counts as mapped, but for nobody's access:
    // FaultKind::stack_room, which `fault`, `read` and `write` resolve by growing, in one commit
    // with the page's frame (that of zeros, if it is only read); FaultKind::guard, where the stack
    // would come too near to another mapping. Errors of `map` besides: invalid_argument (no
    // multiples of 4096, no guard, a range too small for both).
    std::optional<GrowsDown> grows_down = {};
    // What `maps` shows for the range, and where in it the range begins: a path, "[stack]", ….
    std::string name = {};
    std::uint64_t name_offset = 0;
    // What the range holds (file.hpp); without it, zeros. The pages are loaded at their first
    // access, whatever `lazy` says. No name and no region then.
    std::optional<FileMapping> file = {};
    // Map these frames of a device region (device.hpp), whatever `lazy` says. Offset and size are
    // multiples of the page size, and pages above 4 KiB need frames that line up: as the offsets in
    // the region's file do. Errors of `map` besides: not_found (no such region), invalid_argument
    // (no device region, or it ends before), lost (it is out of reach).
    std::optional<DeviceMapping> device = {};
    // As SpaceOptions::region, for this range now; otherwise the space's. (Of a lazy range, pages
    // get their frames later, as the space then prefers.)
    std::optional<unsigned> region = {};
};

struct SpaceInfo {
    std::string name;
    Levels levels = Levels::four;
    PhysAddr root;  // what CR3 would hold, without flags
    // Of what is its own; the half of a supervisor object is not.
    std::uint64_t mapped_bytes = 0;    // including lazy pages
    std::uint64_t resident_bytes = 0;  // with a frame
    std::uint64_t huge_bytes = 0;      // in pages of 2 MiB or 1 GiB
    std::uint64_t tables = 0;          // frames that hold tables of this space, the root included
    std::optional<unsigned> region;    // that it prefers
    std::string supervisor;            // whose half it shares (supervisor.hpp); mostly empty
};

class Space {
  public:
    // Maps fresh, zeroed frames. Errors: invalid_argument (unaligned, empty, non-canonical or
    // wrapping range, protection without `read`; a file's offset, or what is no regular file),
    // overlap (names the first mapped page), no_space (nothing is mapped then), busy (this thread
    // has an open Transaction on this space). Of a file also not_found, permission_denied, lost (it
    // is mapped already, and is not what it was).
    Result<void> map(Range range, Protection protection, const MapOptions& options = {});

    // Maps the frames behind `source_range` of `source` here as well, so that both see each
    // other's bytes. `range` may be larger: the source then repeats; of a larger source the first
    // pages are shared, and no others. Every source page must be mapped and have a frame. Errors as
    // `map`, and not_mapped.
    Result<void> map_shared(Range range, Protection protection, const Space& source,
                            Range source_range, const MapOptions& options = {});

    // Removes whatever is mapped in the range; holes are permitted, as in munmap(2). The frames
    // are free for reuse when no reader can hold them any more.
    Result<void> unmap(Range range);

    // Sets the protection of the whole range. Errors: not_mapped (names the first hole; nothing
    // is changed then).
    Result<void> protect(Range range, Protection protection);

    // Puts each aligned 2 MiB of the range on a page of 2 MiB where that is possible, with a copy
    // of the bytes: all of it is mapped with one protection, as pages with frames or as demand-zero
    // ones, and none is mapped by `map_shared`. Returns how many bytes of the range are on huge
    // pages then. Each of them is a commit of its own, durable when the call returns; writers wait
    // meanwhile, readers do not. Errors: as `protect` for the range itself; no_space, after which
    // what was promoted stays so.
    Result<std::uint64_t> promote(Range range);

    // How many bytes of frames calls of this space may take under the local frame policy
    // (reclaim.hpp); 0 for no limit. Durable on return. What it has is not taken away, until it
    // wants more.
    Result<void> set_quota(std::uint64_t size_bytes);
    // Takes the frames of up to so many bytes of its pages now, by the clock; how many. Errors:
    // damaged, io, permission_denied (a snapshot).
    Result<std::uint64_t> evict(std::uint64_t size_bytes);
    // Walks the space to count what is swapped.
    FrameUse frame_use() const;

    // Walks the tables; no entry is followed that was not checked since the store was opened. Costs
    // a few dependent loads; put a `Tlb` (tlb.hpp) before it where that matters. The protection is
    // what a processor would permit now: without `w` where the page is to be copied first.
    std::expected<Translation, Fault> translate(VirtAddr address) const;
    // The same, and a fault (protection, copy_on_write) where `access` is not permitted.
    std::expected<Translation, Fault> translate(VirtAddr address, Protection access) const;

    // Copies bytes out of the space; demand-zero pages read as zeros without getting a frame, and
    // swapped ones are read where they are; those of files are loaded (from a snapshot, read each
    // time). A stack grows down to what is read (`peek` in inspect.hpp looks and changes nothing).
    // Errors: not_mapped, lost, permission_denied, damaged; the message has the first address that
    // failed, and what stands in `destination` is then unspecified.
    Result<void> read(VirtAddr address, std::span<std::byte> destination) const;

    // Copies bytes into the space; demand-zero pages get a frame, and shared ones a frame of their
    // own (`fault`). Pages must be writable. Durable after `persist`. On an error the bytes before
    // the failing address may have been written.
    Result<void> write(VirtAddr address, std::span<const std::byte> source);

    // Makes durable what was written to the range: by this call's return every byte of it is on
    // the medium. One fence for the whole range; with a file that is not PMem, msync.
    Result<void> persist(Range range);

    // Writes the pages of shared file mappings (file.hpp) in the range that are not what the file
    // has to it, and returns when they are on the file's medium, and, as `persist` leaves them, on
    // the pool's. Other pages are passed over.
    // Errors: lost (the file is not what it was), permission_denied (the file may not be written,
    // and would have to be), busy (it is a program that runs, or a transaction of this thread holds
    // the file), no_space, io, invalid_argument (no range of the space). Nothing is lost by them:
    // mend it and call it again.
    Result<void> sync(Range range);

    // Makes the access possible that has just failed, as a page fault handler does: a demand-zero
    // page gets a frame of zeros (to be read only, the one that all such pages share), a page of a
    // file one with what that holds, a page that is copied on write one of its own, a swapped one
    // is brought back, and a stack grows down to the page. Durable on return. Nothing to do is
    // success. Errors: as `write`, and no_space, lost (the file is not what it was).
    Result<void> fault(VirtAddr address, Protection access);

    // The bytes of one mapped page, in place, to be written whatever its protection; a page that is
    // copied on write is copied first. The pointer stays good until the page is unmapped, promoted,
    // evicted (reclaim.hpp) or shared (a fork or snapshot of the space is made), and is checked
    // against nothing after that.
    std::expected<std::span<std::byte>, Fault> frame_bytes(VirtAddr page);
    // The same to read only, and no page is copied for it.
    std::expected<std::span<const std::byte>, Fault> frame_view(VirtAddr page) const;

    // All mappings in ascending order.
    Result<std::vector<Mapping>> maps() const;

    // A handle (handle.hpp) to keep across restarts. Errors: stale (the space was removed).
    Result<Handle> handle() const;
    // Of a range, all of which is mapped. Leaves a mark in the pool: a transaction, durable on
    // return, constant in the size of the range but for the look whether it is mapped. Errors:
    // as protect; invalid_argument (a name, or the range of another handle, begins or ends within).
    Result<Handle> handle(Range range);

    std::string name() const;
    // Whether it is one (snapshot.hpp): every change is refused with permission_denied.
    bool is_snapshot() const;
    Levels levels() const;
    PhysAddr root() const;
    // Walks the whole space to count; proportional to its tables.
    SpaceInfo info() const;

    explicit Space(std::shared_ptr<detail::SpaceState> state) : state_(std::move(state)) {}
    detail::SpaceState& state() const { return *state_; }
    const std::shared_ptr<detail::SpaceState>& shared_state() const { return state_; }

  private:
    std::shared_ptr<detail::SpaceState> state_;
};

}  // namespace holdfast
