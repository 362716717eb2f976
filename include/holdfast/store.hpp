// A store: one pool that holds address spaces, their tables, frames and frame metadata.
//
//     Store store = *Store::create("/mnt/pmem/spaces", {.size_bytes = 1_GiB});
//     Space space = *store.create_space("editor");
//
// The path names a regular file (on a DAX file system, tmpfs or any other), a poolset without
// replicas, or a device-DAX device.
//
// Opening is constant-time: libpmemobj replays its logs, the superblock and the region table are
// checked, and that is all; tables are checked when they are walked.
//
// Thread safety: all functions may be called from any thread. A `Store` is a handle; the pool is
// closed when the last handle to the store or one of its spaces or transactions is gone. A process
// opens a pool once; a second process is refused while the first lives.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/file.hpp"
#include "holdfast/handle.hpp"
#include "holdfast/reclaim.hpp"
#include "holdfast/region.hpp"
#include "holdfast/snapshot.hpp"
#include "holdfast/space.hpp"
#include "holdfast/transaction.hpp"
#include "holdfast/types.hpp"
#include "holdfast/verify.hpp"

namespace holdfast {

namespace detail {
class StoreState;
}

enum class PmemEmulation : std::uint8_t {
    // Emulate if the environment variable HOLDFAST_EMULATE_PMEM is set to 1, otherwise do not.
    from_environment,
    off,
    // Treat the file as persistent memory whatever it is: flushes are cache-line flushes and never
    // msync. For tests, CI and laptops: on an ordinary file the bytes then survive the process,
    // also a SIGKILL, but not a power failure.
    on,
};

struct CreateOptions {
    std::uint64_t size_bytes =
        0;  // at least 8 MiB; 0 for a poolset or device, which have their own
    PmemEmulation emulation = PmemEmulation::from_environment;
    std::uint32_t file_mode = 0600;
    // How much of the pool becomes frames at once; 0: all there is room for. The rest is for later:
    // metadata of external regions (1/256 of their size), and `grow`.
    std::uint64_t frames_bytes = 0;
};

struct OpenOptions {
    PmemEmulation emulation = PmemEmulation::from_environment;
    // Opens a copy, of which nothing reaches the file: it keeps every byte and its times, though a
    // store is opened, its logs replayed and whatever is asked for done to it. A file that may be
    // written is mapped copy-on-write, which takes memory only for what changes. One that may not,
    // or that has holes on a full file system, is copied to memory first, without its holes. A
    // device cannot be opened so. Damaged words of the superblock are worked out again instead of
    // refused: what can be read can be saved.
    bool as_copy = false;
};

struct FrameCounts {
    std::uint64_t total = 0;
    std::uint64_t free = 0;
    std::uint64_t limbo = 0;  // detached, and not released yet; part of neither
    // How many pages of these sizes the free frames could be, each in one piece.
    std::uint64_t free_2MiB = 0;
    std::uint64_t free_1GiB = 0;
    // How much of what is free could not be used for pages of 2 MiB, 0 to 1.
    double fragmentation() const {
        return free == 0 ? 0 : 1 - static_cast<double>(free_2MiB) * 512 / static_cast<double>(free);
    }
};

struct StoreInfo {
    Uuid uuid{};
    std::uint32_t format_version = 0;
    std::uint64_t boot_epoch = 0;  // raised by the first change after each open
    FrameCounts frames;
    std::uint64_t tables = 0;
    std::vector<RegionInfo> regions;
    std::vector<SpaceInfo> spaces;
};

class Store {
  public:
    // Makes the file (or takes the poolset or device) and a store in it. Errors: already_exists,
    // invalid_argument, no_space, permission_denied, unsupported (a poolset with replicas: data
    // reaches the medium by libpmem's flushes, which know nothing of replicas), io.
    static Result<Store> create(const std::string& path, const CreateOptions& options);

    // Errors: not_found, not_a_pool, unsupported, damaged, busy, permission_denied, io; the file
    // is not changed then.
    static Result<Store> open(const std::string& path, const OpenOptions& options = {});

    // Each of these is a transaction of its own; see Transaction for several at once.
    Result<Space> create_space(const std::string& name, const SpaceOptions& options = {});
    Result<Space> open_space(const std::string& name) const;
    // What a handle was taken of, under whatever name it has now. Errors: stale (it is gone, or of
    // another store; the message says which), damaged.
    struct Resolved {
        Space space;
        Range range;  // empty for a handle of the whole space
    };
    Result<Resolved> resolve(const Handle& handle) const;
    Result<void> rename_space(const std::string& from, const std::string& to);
    Result<void> remove_space(const std::string& name);
    // Names in ascending order, without snapshots; touches no table.
    Result<std::vector<std::string>> space_names() const;

    // See snapshot.hpp; what of Transaction's. Snapshots have names as spaces do, and are opened,
    // renamed and removed like them.
    Result<Space> fork_space(const std::string& from, const std::string& to);
    Result<Space> create_snapshot(const std::string& space, const std::string& name);
    // The space has what the snapshot has, its names of ranges included. Errors: invalid_argument
    // (no snapshot of this lineage).
    Result<void> rollback(const std::string& space, const std::string& snapshot);
    // Of all spaces, or of one; by their names, in ascending order. Errors: not_found, damaged.
    Result<std::vector<SnapshotInfo>> snapshots(const std::string& of = {}) const;

    Transaction begin();

    // Adds a region of at most `size_bytes` from what room the pool itself has left. Happens by
    // itself when frames run out; useful after a poolset was extended. no_space if there is none.
    Result<void> grow(std::uint64_t size_bytes);

    // See reclaim.hpp. Each of them is one commit, durable on return.
    Result<void> set_reclaim_policy(const ReclaimPolicy& policy);
    ReclaimPolicy reclaim_policy() const;
    // As add_external_region, for pages that lose their frames: nothing else is put there. The
    // file's blocks are all allocated, so that a full disk is told here and not later.
    Result<unsigned> add_swap_region(const std::string& path, std::uint64_t size_bytes);
    // Since the store was opened.
    std::vector<OomEvent> oom_events() const;

    // Adds a region (region.hpp) and returns its number; spaces that prefer it may use it at once,
    // and all of it is durable. `path` names a new file, or a device. Errors: invalid_argument,
    // already_exists, permission_denied, no_space (of the file system, or of the pool, which holds
    // 1/256 of the region's size in metadata), io; nothing is left then.
    Result<unsigned> add_external_region(const std::string& path,
                                         const ExternalRegionOptions& options);
    Result<unsigned> add_volatile_region(std::uint64_t size_bytes,
                                         LossPolicy loss = LossPolicy::fault);
    // As add_external_region, of memory that is mapped only by those who name it (device.hpp).
    Result<unsigned> add_device_region(const std::string& path,
                                       const ExternalRegionOptions& options);

    // The next three are one commit each, and count from the next opening on; this one goes on with
    // what it has, but for a detached region's free frames, which nobody gets any more.

    // Pages in the region are out of reach then (FaultKind::region_detached); the file may be
    // carried away. Errors: invalid_argument (no such region, or the pool's own).
    Result<void> detach_region(unsigned index);
    // Makes `path` the memory of a region that is not attached. If the region's own file is there,
    // moved or brought back, all is as it was; a copy from another time is refused (stale) unless
    // `accept_outdated`. If nothing is there, or a blank device, it becomes a new region in the old
    // one's place, and what was in that is lost: FaultKind::region_replaced, until it is unmapped.
    // Of a volatile region `path` means nothing. Errors: invalid_argument, not_a_pool (something
    // else is there), busy (new memory, while what the last replacement or move has left is not
    // unmapped and `finish_moves` called), and as add_external_region.
    Result<void> replace_region(unsigned index, const std::string& path,
                                const ExternalRegionOptions& options = {},
                                bool accept_outdated = false);
    // Gives the region, and all in the same file, another physical base: one that no frame has had,
    // congruent to the file offset modulo 1 GiB; the next such by itself. Entries that name frames
    // by their earlier numbers go on to work, and are repaired when they are walked. Errors:
    // invalid_argument, busy (entries of before the last move are left: `finish_moves`).
    Result<void> move_region(unsigned index, PhysAddr base = {});

    // Repairs all entries of before a move at once, so that the region can move again. Proportional
    // to all tables; releases what is in limbo. Errors: damaged (the message says where), busy (a
    // region was moved or replaced since this opening: open the store again first).
    Result<void> finish_moves();

    // Mapped files (file.hpp), by their paths; proportional to names of ranges and to pages loaded.
    Result<std::vector<FileInfo>> files() const;
    // Space::sync of all pages in the pool, whoever maps the file. Errors: as that, and not_found.
    Result<void> sync_file(const std::string& path);
    // Goes on with the file as it is, whatever it was: the one that the path leads to now. With its
    // content, the pages in the pool are read again; pages behind its end are zeros, and faults
    // from the next opening on. A crash in the middle leaves a file that is a fault until the call
    // is repeated; so does an error, but for pages of the pool that were accessed in this opening,
    // of which some are the file's then and some are not. Errors: not_found, permission_denied,
    // busy (others are writing to it, or a transaction of this thread holds the file), io, lost
    // (`of_pool`, after a call with the file's content that did not end: the pool has a mixture).
    Result<void> accept_file(const std::string& path, FileContent content);
    // Forgets a file that nobody maps any more, with its pages in the pool: what was not synced is
    // lost. Errors: not_found, busy (it is mapped, or is being synced), damaged (of a space: nobody
    // knows what it maps).
    Result<void> forget_file(const std::string& path);

    // Releases what unmapped and removed ranges left in limbo, one table per transaction, at most
    // `tables` of them; returns how many it released (fewer: limbo is empty). The mutating calls
    // do this by and by, and when frames run out; useful before measuring free space.
    Result<std::uint64_t> release_limbo(std::uint64_t tables = ~std::uint64_t{0});

    // Counts everything: proportional to what is mapped. Names of files need no walk.
    Result<StoreInfo> info() const;
    std::vector<RegionInfo> regions() const;

    // A full check, see verify.hpp. It sees the store between two commits: calls that commit
    // meanwhile, from other threads, wait until it is done, and so they do for `info`. An exception
    // that leaves `on_progress` ends the check and leaves this, too.
    VerifyReport verify(const VerifyOptions& options = {}) const;

    // The same of a file, opened as a copy (OpenOptions): it is not changed by one byte, and may be
    // read-only. Damage for which `open` refuses the store is a finding; what can be looked at in
    // spite of it is. Errors: as `open`, but damaged only if it is none of ours that is.
    static Result<VerifyReport> verify_file(
        const std::string& path, const VerifyOptions& options = {},
        PmemEmulation emulation = PmemEmulation::from_environment);

    const std::string& path() const;
    bool is_pmem() const;  // or emulated

    explicit Store(std::shared_ptr<detail::StoreState> state) : state_(std::move(state)) {}
    detail::StoreState& state() const { return *state_; }

  private:
    Result<unsigned> add_file_region(const std::string& path, const ExternalRegionOptions& options,
                                     RegionKind kind);
    VerifyReport verify_at_rest(const VerifyOptions& options) const;

    std::shared_ptr<detail::StoreState> state_;
};

}  // namespace holdfast
