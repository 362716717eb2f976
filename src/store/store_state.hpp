// An open store: its rooms, put together in the order in which they are opened.
//
// Locks, in the order in which they are taken: a file's `syncing` (store/file_objects.hpp); the
// directory's writer lock and the spaces' writer locks (by transactions, see
// TransactionState::join); the gate (table/change_gate.hpp); the commit lock; the shared mutexes
// over the ordered maps; the allocator's; the commit charge's. Readers take none of the first four.
//
// Who is inside the gate never waits for a writer lock: those are taken by the calls of a
// transaction before they go in, and a transaction stays outside between its calls. So whoever
// closes the gate waits for commits that are under way, and never for somebody's next call. While
// it is closed its holder takes the directory's shared mutex and the allocator's only, whose other
// holders are inside, or do not wait for anybody.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "holdfast/reclaim.hpp"
#include "holdfast/store.hpp"
#include "memory/build_log.hpp"
#include "memory/frame_allocator.hpp"
#include "memory/physical_memory.hpp"
#include "pool/pool.hpp"
#include "space/space_state.hpp"
#include "space/writer_lock.hpp"
#include "store/commit_charge.hpp"
#include "store/file_objects.hpp"
#include "store/reclaim.hpp"
#include "table/edit_session.hpp"
#include "table/limbo_stack.hpp"

namespace holdfast::detail {

class StoreState : public std::enable_shared_from_this<StoreState> {
  public:
    static Result<std::shared_ptr<StoreState>> create(const std::string& path,
                                                      const CreateOptions& options);
    // With `mended`, damage in the superblock's own words is set right instead of refused, and
    // told there (recovery/mend_superblock.hpp). So is, with the error, what cannot be set right.
    static Result<std::shared_ptr<StoreState>> open(const std::string& path,
                                                    const OpenOptions& options,
                                                    std::vector<Finding>* mended = nullptr);

    // To be called before the first change after opening, any number of times: raises the boot
    // epoch, and takes up what an earlier process was in the middle of.
    Result<void> begin_changes();
    // The same before bytes of pages change, if any lie in files that are paired with the pool.
    Result<void> begin_data_changes() {
        return memory.has_files() ? begin_changes() : Result<void>();
    }
    // To be called after a commit: does one step of what is left in limbo.
    void release_some();
    Result<std::uint64_t> release(std::uint64_t tables);

    // Also of a file object, by its name (format/file_record.hpp).
    Result<std::shared_ptr<SpaceState>> find_space(const std::string& name);
    // not_found for the name of a file object, which is not for users.
    Result<void> check_name_of_space(const std::string& name) const;
    // The state that all handles of this record share.
    std::shared_ptr<SpaceState> shared_space(FrameNumber record,
                                             const format::SpaceRecord& on_medium);
    std::shared_ptr<SpaceState> supervisor_of(const format::SpaceRecord& record);
    void remember_space(const std::shared_ptr<SpaceState>& space);
    void forget_space(FrameNumber record);
    // Nothing if the record fails its checks.
    const format::SpaceRecord* space_record(FrameNumber frame) const;
    // Every name in the directory, whose mutex is held, in ascending order.
    void visit_records(
        const std::function<void(std::string_view, const format::SpaceRecord*)>& visit) const;

    // --- reclaim (reclaim.cpp) ---
    ReclaimPolicy reclaim_policy() const;
    Result<void> set_reclaim_policy(const ReclaimPolicy& policy);
    // Where swapped pages go, the first of which is not full.
    std::vector<memory::Placement> swap_regions() const;
    // After a call on `asked` that takes frames for `space` (the same, or the object whose half it
    // is) has failed for want of frames, and has let everything go: whether it makes sense to try
    // again. A victim is removed only if that makes so many pages possible.
    bool reclaim_for(const std::shared_ptr<SpaceState>& space, const SpaceState& asked,
                     std::uint64_t pages);
    ReclaimState reclaim;
    // From here on: whose each frame is, and which pages are accessed.
    void count_frames() {
        allocator.charges().turn_on();
        memory.track_accesses();
    }

    // The frame that reads of demand-zero pages share; made, durably, when it is first asked for.
    Result<table::TakenFrame> zero_frame();

    std::uint64_t boot_epoch() const;
    // A mark that no range of this store has had: the boot epoch, which changes have begun, in its
    // upper half. (More than 2^32 in one epoch would be others' of the next.)
    std::uint64_t next_mark() {
        return (boot_epoch() << 32) + marks_.fetch_add(1, std::memory_order_relaxed);
    }
    Result<Handle> handle_of(const SpaceState& space, std::uint64_t mark, Range range) const;
    Result<std::shared_ptr<SpaceState>> resolve(const Handle& handle);
    pool::OrderedMap directory() const { return {*pool, memory.superblock().directory_offset}; }

    std::unique_ptr<pool::Pool> pool;
    memory::PhysicalMemory memory;
    FileObjects files;
    memory::FrameAllocator allocator;
    memory::BuildLog build_log;
    table::LimboStack limbo;
    mutable table::ChangeGate gate;
    table::CommitMutex commit_mutex;
    table::FormerReaders former_readers;
    table::EditSession::Services services;
    CommitCharge commit_charge;

    space::WriterLock directory_writer;
    mutable std::shared_mutex directory_map;  // over directory()

    using CommitLock = std::scoped_lock<table::CommitMutex>;

    StoreState(std::unique_ptr<pool::Pool> opened, bool emulate_pmem, bool as_copy);

  private:
    Result<void> make_superblock(const CreateOptions& options);
    bool make_room(std::uint64_t frames, bool of_huge);
    bool make_room_in_pool(std::uint64_t frames);
    bool may_have_room() const;
    std::vector<std::shared_ptr<SpaceState>> all_spaces();
    bool reclaim_from_others(std::uint64_t pages);
    bool release_victim(const SpaceState& requester, const SpaceState& asked, std::uint64_t pages);
    std::uint64_t reserve_bytes() const;
    Result<bool> release_space_step(FrameNumber record);

    std::atomic<bool> changes_begun_ = false;
    std::atomic<std::uint64_t> marks_ = 0;
    std::atomic<std::size_t> next_victim_ = 0;  // where the global clock goes on
    std::mutex zero_frame_mutex_;               // while it is made
    std::mutex spaces_mutex_;
    std::unordered_map<std::uint64_t, std::weak_ptr<SpaceState>> spaces_;

    friend class holdfast::Store;
};

}  // namespace holdfast::detail
