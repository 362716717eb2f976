#include "store/store_state.hpp"

#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <tuple>

#include "pool/pool_file.hpp"
#include "recovery/mend_superblock.hpp"
#include "recovery/open_checks.hpp"
#include "space/annotations.hpp"

namespace holdfast::detail {

using format::CheckedWord;
using format::Superblock;

namespace {

// How much is added to a pool that grows on demand, at least.
constexpr std::uint64_t kGrowthBytes = std::uint64_t{64} << 20;

bool is_on(PmemEmulation emulation) {
    if (emulation != PmemEmulation::from_environment) return emulation == PmemEmulation::on;
    const char* value = std::getenv("HOLDFAST_EMULATE_PMEM");
    return value != nullptr && std::string_view(value) == "1";
}

Superblock& superblock_of(const pool::Pool& pool) {
    return *reinterpret_cast<Superblock*>(pool.root());
}

}  // namespace

StoreState::StoreState(std::unique_ptr<pool::Pool> opened, bool emulate_pmem, bool as_copy)
    : pool(std::move(opened)),
      memory(*pool, superblock_of(*pool),
             as_copy        ? memory::Files::as_copies
             : emulate_pmem ? memory::Files::as_pmem
                            : memory::Files::as_they_are),
      files(memory),
      allocator(memory),
      build_log(memory, allocator),
      limbo(memory),
      services{memory,
               allocator,
               build_log,
               limbo,
               gate,
               commit_mutex,
               former_readers,
               [this](std::uint64_t frames, bool of_huge) { return make_room(frames, of_huge); }},
      commit_charge(*this) {
    limbo.on_space([this](FrameNumber record) { return release_space_step(record); });
    memory.on_file_page([this](format::OwnerId owner, std::uint64_t page) {
        return files.out_of_reach(owner, page);
    });
}

Result<std::shared_ptr<StoreState>> StoreState::create(const std::string& path,
                                                       const CreateOptions& options) {
    const bool existed = access(path.c_str(), F_OK) == 0;
    auto pool = pool::Pool::create(path, options.size_bytes, options.file_mode,
                                   is_on(options.emulation), format::kLayout, sizeof(Superblock));
    if (!pool) return std::unexpected(pool.error());
    auto state = std::make_shared<StoreState>(std::move(*pool), is_on(options.emulation), false);
    if (auto done = state->make_superblock(options); !done) {
        state.reset();
        if (!existed) unlink(path.c_str());
        return std::unexpected(done.error());
    }
    return state;
}

std::uint64_t StoreState::reserve_bytes() const {
    // What libpmemobj's own objects (directory, names, long logs) may need beside the frames. Its
    // heap gives each class of small objects a chunk of 256 KiB, so a few of them at least.
    const std::uint64_t size = memory.superblock().pool_size_bytes;
    return std::clamp<std::uint64_t>(size / 16, std::uint64_t{1} << 20, std::uint64_t{64} << 20);
}

Result<void> StoreState::make_superblock(const CreateOptions& options) {
    Superblock& superblock = memory.superblock();
    Superblock fresh{};
    fresh.format_version = format::kFormatVersion;
    fresh.pool_size_bytes = options.size_bytes;
    if (getrandom(fresh.uuid, sizeof fresh.uuid, 0) != sizeof fresh.uuid)
        return fail(ErrorCode::io, "the system gave no random bytes for the store's UUID");
    fresh.boot_epoch = CheckedWord::encode(0, format::kSeedBootEpoch);
    fresh.limbo_head = CheckedWord::encode(0, format::kSeedLimboHead);
    fresh.next_owner = CheckedWord::encode(0, format::kSeedNextOwner);
    fresh.region_count = CheckedWord::encode(0, format::kSeedRegionCount);
    fresh.next_base = CheckedWord::encode(0, format::kSeedNextBase);
    for (unsigned slot = 0; slot < format::kBuildSlots; ++slot)
        fresh.build_slots[slot] = memory::BuildLog::empty_slot_word(slot);
    // In place and without a log: a crash before the magic is written leaves a store whose making
    // was interrupted, whatever else is there.
    pool->copy(&superblock, &fresh, sizeof fresh);
    pool->drain();
    pool::WriteSet none;
    auto done = pool->commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        fresh.directory_offset = pool::OrderedMap::create(scope);
        return {};
    });
    if (!done) return done;
    // All the room there is; in several regions, since an object has at most 15.99 GiB. A pool that
    // grows on demand is not grown to its limit, but a region at a time, when frames run out.
    const bool on_demand = pool::grows_on_demand(pool->path());
    std::uint64_t wanted = options.frames_bytes != 0 ? options.frames_bytes
                           : on_demand               ? kGrowthBytes
                                                     : ~std::uint64_t{0} >> 1;
    const std::uint64_t reserve = reserve_bytes();
    while (wanted != 0) {
        const std::size_t before = memory.regions().size();
        auto added = memory.add_pool_region(wanted, reserve);
        if (!added && before == 0) return added;
        if (!added || on_demand) break;
        for (const memory::Region& region : memory.regions().subspan(before))
            wanted -= std::min(wanted, region.frame_count() << kPageShift);
        // What is left of a wish that was granted, but for alignment and metadata.
        if (options.frames_bytes != 0 && wanted < options.frames_bytes / 16) break;
    }
    fresh.magic = format::kMagic;
    fresh.checksum = fresh.computed_checksum();
    // Commit point of `create`: magic and checksum.
    return pool->commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        scope.write(&superblock,
                    std::as_bytes(std::span(&fresh, 1)).first(offsetof(Superblock, boot_epoch)));
        return {};
    });
}

Result<std::shared_ptr<StoreState>> StoreState::open(const std::string& path,
                                                     const OpenOptions& options,
                                                     std::vector<Finding>* mended) {
    // A copy may be looked into whatever state the superblock's words are in.
    std::vector<Finding> unseen;
    if (options.as_copy && mended == nullptr) mended = &unseen;
    const auto refuse = [&](Error error) {
        if (mended != nullptr && error.code == ErrorCode::damaged)
            mended->push_back({"I8 superblock", "", {}, error.message});
        return std::unexpected(std::move(error));
    };
    // The order of opening: libpmemobj replays its logs; the superblock; the regions. Nothing here
    // may depend on what is mapped, free, or in limbo.
    if (auto fine = recovery::check_before_opening(pool::peek_root(path, 128), path); !fine)
        return refuse(fine.error());
    auto pool = pool::Pool::open(path, is_on(options.emulation), options.as_copy, format::kLayout,
                                 sizeof(Superblock));
    if (!pool) return std::unexpected(pool.error());
    if (mended != nullptr) {
        if (auto fine = recovery::check_identity(superblock_of(**pool), path); !fine)
            return refuse(fine.error());
        auto found = recovery::mend_superblock(**pool, superblock_of(**pool));
        if (!found) return std::unexpected(found.error());
        mended->insert(mended->end(), found->begin(), found->end());
    } else if (auto fine = recovery::check_superblock(superblock_of(**pool), path); !fine) {
        return std::unexpected(fine.error());
    }
    auto state =
        std::make_shared<StoreState>(std::move(*pool), is_on(options.emulation), options.as_copy);
    if (auto done = state->memory.attach(); !done) return refuse(done.error());
    for (const memory::Region& region : state->memory.regions())
        if (region.kind() == RegionKind::swap) state->count_frames();
    return state;
}

std::uint64_t StoreState::boot_epoch() const {
    return CheckedWord::decode(pool::load_word(&memory.superblock().boot_epoch),
                               format::kSeedBootEpoch)
        .value_or(0);
}

Result<void> StoreState::begin_changes() {
    if (changes_begun_.load(std::memory_order_acquire)) [[likely]]
        return {};
    const table::ChangeGate::Inside inside(gate);
    const CommitLock lock(commit_mutex);
    if (changes_begun_.load(std::memory_order_relaxed)) return {};
    pool::WriteSet writes;
    writes.store(&memory.superblock().boot_epoch,
                 CheckedWord::encode(boot_epoch() + 1, format::kSeedBootEpoch),
                 pool::WordClass::undo);
    if (auto done = memory.begin_epoch(writes); !done) return done;
    if (auto done = build_log.find_interrupted(); !done) return done;
    // The table whose release may have been interrupted is finished before any frame is given out.
    if (!limbo.seems_empty())
        if (auto done = limbo.release_one(services); !done) return std::unexpected(done.error());
    changes_begun_.store(true, std::memory_order_release);
    return {};
}

void StoreState::release_some() {
    if (build_log.has_interrupted()) {
        const table::ChangeGate::Inside inside(gate);
        build_log.release_interrupted(512);
        return;
    }
    // A grace period costs more than a table: wait until a few can share it.
    const std::uint64_t waiting = limbo.waiting_for_readers();
    if (limbo.seems_empty() || (waiting != 0 && waiting < 32)) return;
    const table::ChangeGate::Inside inside(gate);
    const CommitLock lock(commit_mutex);
    // What fails here will fail again, and be reported, when somebody needs the frames.
    std::ignore = limbo.release_one(services);
}

Result<std::uint64_t> StoreState::release(std::uint64_t tables) {
    if (auto begun = begin_changes(); !begun) return std::unexpected(begun.error());
    const auto release_interrupted = [&] {
        const table::ChangeGate::Inside inside(gate);
        return build_log.release_interrupted(1 << 20);
    };
    while (release_interrupted() != 0) {
    }
    std::uint64_t released = 0;
    for (; released < tables; ++released) {
        const table::ChangeGate::Inside inside(gate);
        const CommitLock lock(commit_mutex);
        auto one = limbo.release_one(services);
        if (!one) return std::unexpected(one.error());
        if (!*one) break;
    }
    allocator.collect_retired();
    return released;
}

// Frames have run out: what waits for readers, what is in limbo, and what the pool has left.
bool StoreState::make_room(std::uint64_t frames, bool of_huge) {
    if (allocator.collect_retired()) return true;
    return make_room_in_pool(frames) || (!of_huge && reclaim_from_others(frames));
}

bool StoreState::make_room_in_pool(std::uint64_t frames) {
    const table::ChangeGate::Inside inside(gate);
    if (build_log.has_interrupted()) {
        build_log.release_interrupted(std::max<std::uint64_t>(frames, 4096));
        return true;
    }
    if (!commit_mutex.is_held_by_this_thread() && !limbo.seems_empty()) {
        const CommitLock lock(commit_mutex);
        bool any = false;
        for (std::uint64_t freed = 0; freed < frames + 512; freed += 256) {
            auto one = limbo.release_one(services);
            if (!one || !*one) break;
            any = true;
        }
        if (any) return true;
    }
    if (!may_have_room()) return false;
    return memory
        .add_pool_region(std::max(frames * (kPageSize + 64), kGrowthBytes), reserve_bytes())
        .has_value();
}

// Whether asking libpmemobj for memory makes sense. What is asked for only to see how much there is
// may be lost to its allocator until the pool is opened again (PMDK 1.12), and with it the room for
// names: so a pool of a known size that has given all it had is not asked each time frames run out.
bool StoreState::may_have_room() const {
    const std::uint64_t size = memory.superblock().pool_size_bytes;
    if (size == 0) return true;
    std::uint64_t claimed = reserve_bytes();
    for (const memory::Region& region : memory.regions())
        if (region.kind() == RegionKind::pool)
            claimed += region.frame_count() * (kPageSize + format::kFrameMetadataBytes);
    // libpmemobj's own: 3 MiB of lanes, headers, what its heap rounds up.
    constexpr std::uint64_t kOverheadBytes = std::uint64_t{8} << 20;
    return claimed + kOverheadBytes < size;
}

const format::SpaceRecord* StoreState::space_record(FrameNumber frame) const {
    const auto metadata = memory.valid_metadata(frame);
    if (!metadata || metadata->kind != format::FrameKind::space_record ||
        memory.host(frame) == nullptr)
        return nullptr;
    const auto* const record = reinterpret_cast<const format::SpaceRecord*>(memory.host(frame));
    if (record->magic != format::kSpaceMagic || record->checksum != record->computed_checksum() ||
        record->owner != metadata->owner || record->levels < 3 || record->levels > 5 ||
        (record->kind != format::SpaceKind::address_space &&
         record->kind != format::SpaceKind::snapshot && record->kind != format::SpaceKind::file &&
         record->kind != format::SpaceKind::supervisor))
        return nullptr;
    return record;
}

void StoreState::visit_records(
    const std::function<void(std::string_view, const format::SpaceRecord*)>& visit) const {
    directory().visit("", [&](std::string_view name, std::string_view value) {
        std::uint64_t frame = 0;
        if (value.size() == sizeof frame) std::memcpy(&frame, value.data(), sizeof frame);
        visit(name, space_record(memory.current(FrameNumber(frame))));
        return true;
    });
}

Result<void> StoreState::check_name_of_space(const std::string& name) const {
    if (!name.starts_with(format::kFileNamePrefix)) return {};
    return fail(ErrorCode::not_found,
                fmt::format("{}: no space has a name with control characters", pool->path()));
}

Result<std::shared_ptr<SpaceState>> StoreState::find_space(const std::string& name) {
    const std::shared_lock lock(directory_map);
    // Before anything of a space is walked.
    files.take_up(directory());
    const auto value = directory().get(name);
    // The name of a file object is not for users.
    const bool is_file = format::FileRecord::owner_of(name).has_value();
    if (!value && is_file)
        return fail(ErrorCode::not_found,
                    fmt::format("{}: the mapped file was forgotten; `file list` shows those there "
                                "are",
                                pool->path()));
    if (!value)
        return fail(ErrorCode::not_found,
                    fmt::format("{}: no space named \"{}\"; `space list` shows the names",
                                pool->path(), name));
    std::uint64_t frame = 0;
    if (value->size() == sizeof frame) std::memcpy(&frame, value->data(), sizeof frame);
    frame = memory.current(FrameNumber(frame)).value();
    const auto shown = [&] {
        return is_file ? std::string("a mapped file") : fmt::format("space \"{}\"", name);
    };
    const format::SpaceRecord* const record = space_record(FrameNumber(frame));
    if (record == nullptr || record->name_view() != name)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the record of {} (frame {:#x}) fails its checks; run `verify`",
                                pool->path(), shown(), frame));
    const table::Root root{table::Entry(pool::load_word(&record->root)),
                           static_cast<Levels>(record->levels), record->owner,
                           record->upper_owner()};
    if (!table::check_root(memory, root))
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the root of {} fails its checks; run `verify`", pool->path(),
                                shown()));
    table::renumbered(memory, const_cast<std::uint64_t*>(&record->root), root.entry, root.place());
    return shared_space(FrameNumber(frame), *record);
}

Result<Handle> StoreState::handle_of(const SpaceState& space, std::uint64_t mark,
                                     Range range) const {
    const format::SpaceRecord* const record = space_record(space.record);
    const auto metadata = memory.valid_metadata(space.record);
    if (space.root().entry.is_empty() || record == nullptr || !metadata)
        return fail(ErrorCode::stale, fmt::format("space \"{}\" was removed", space.name()));
    Uuid store{};
    std::memcpy(store.data(), memory.superblock().uuid, store.size());
    return Handle(store,
                  {.record = memory.metadata(space.record).home.value(),
                   .owner = space.owner,
                   .generation = metadata->generation,
                   .created = record->created_epoch,
                   .range = mark},
                  range);
}

Result<std::shared_ptr<SpaceState>> StoreState::resolve(const Handle& handle) {
    const auto stale = [&](const std::string& what) {
        return fail(ErrorCode::stale, fmt::format("{}: {}", pool->path(), what));
    };
    if (std::memcmp(handle.store().data(), memory.superblock().uuid, handle.store().size()) != 0)
        return stale("the handle is of another store");
    const auto frame = memory.at_home(FrameNumber(handle.mark().record));
    const auto metadata = frame ? memory.valid_metadata(*frame) : std::nullopt;
    const format::SpaceRecord* const record = metadata ? space_record(*frame) : nullptr;
    if (record == nullptr || metadata->generation != handle.mark().generation ||
        record->owner != handle.mark().owner || record->created_epoch != handle.mark().created)
        return stale("the space that the handle was taken of was removed");
    // A removed space has its record until that is released, but no name.
    auto space = find_space(std::string(record->name_view()));
    if (!space && space.error().code == ErrorCode::not_found)
        return stale("the space that the handle was taken of was removed");
    if (!space) return space;
    if ((*space)->record != *frame)
        return stale(
            "the space that the handle was taken of was removed, and another has its name");
    if (handle.mark().range == 0) return space;
    const Range range = handle.range();
    const std::uint64_t first_page = table::page_index(range.start, (*space)->levels);
    const std::shared_lock lock((*space)->names);
    const auto marked =
        space::Annotations(*pool, (*space)->annotations)
            .has_mark({first_page, first_page + range.pages()}, handle.mark().range);
    if (!marked) return std::unexpected(marked.error());
    if (!*marked)
        return stale(
            fmt::format("of {:#x}..{:#x} in space \"{}\", which the handle was taken of, "
                        "something was unmapped since",
                        range.start.bits(), range.end().bits(), (*space)->name()));
    return space;
}

// Nothing if there is none, or it is damaged: then nobody can change it either.
std::shared_ptr<SpaceState> StoreState::supervisor_of(const format::SpaceRecord& record) {
    if (record.supervisor == 0) return nullptr;
    const auto frame = memory.at_home(FrameNumber(record.supervisor));
    const auto metadata = frame ? memory.valid_metadata(*frame) : std::nullopt;
    const format::SpaceRecord* const object = metadata ? space_record(*frame) : nullptr;
    if (object == nullptr || metadata->generation != record.supervisor_generation ||
        object->owner != record.supervisor_owner || object->kind != format::SpaceKind::supervisor)
        return nullptr;
    return shared_space(*frame, *object);
}

std::shared_ptr<SpaceState> StoreState::shared_space(FrameNumber frame,
                                                     const format::SpaceRecord& record) {
    auto supervisor = supervisor_of(record);
    const std::scoped_lock lock(spaces_mutex_);
    std::weak_ptr<SpaceState>& known = spaces_[frame.value()];
    if (auto space = known.lock()) return space;
    auto space = std::make_shared<SpaceState>(shared_from_this(), frame, record);
    if (record.quota_pages != 0) count_frames();
    space->supervisor = std::move(supervisor);
    space->root_bits = pool::load_word(&record.root);
    space->annotations = record.annotations_offset;
    known = space;
    return space;
}

void StoreState::remember_space(const std::shared_ptr<SpaceState>& space) {
    const std::scoped_lock lock(spaces_mutex_);
    spaces_[space->record.value()] = space;
}

void StoreState::forget_space(FrameNumber record) {
    const std::scoped_lock lock(spaces_mutex_);
    spaces_.erase(record.value());
}

Result<bool> StoreState::release_space_step(FrameNumber frame) {
    format::SpaceRecord* const record = reinterpret_cast<format::SpaceRecord*>(memory.host(frame));
    if (space_record(frame) == nullptr)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the record of a removed space (frame {:#x}) fails its checks; "
                                "run `verify`",
                                pool->path(), frame.value()));
    return space::Annotations::release_some(*pool, *record);
}

}  // namespace holdfast::detail
