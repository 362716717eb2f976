#include "holdfast/store.hpp"

#include <fmt/format.h>

#include <cstring>

#include "memory/region_changes.hpp"
#include "memory/region_file.hpp"
#include "recovery/finish_moves.hpp"
#include "recovery/verify.hpp"
#include "space/space_access.hpp"
#include "store/store_state.hpp"
#include "store/transaction_state.hpp"

namespace holdfast {

using detail::StoreState;
using detail::TransactionState;

namespace {

// A handle around the state, or the error.
template <typename Handle, typename State>
Result<Handle> handle_of(Result<State> state) {
    if (!state) return std::unexpected(std::move(state.error()));
    return Handle(std::move(*state));
}

}  // namespace

Result<Store> Store::create(const std::string& path, const CreateOptions& options) {
    return handle_of<Store>(StoreState::create(path, options));
}

Result<Store> Store::open(const std::string& path, const OpenOptions& options) {
    return handle_of<Store>(StoreState::open(path, options));
}

Result<Space> Store::create_space(const std::string& name, const SpaceOptions& options) {
    Transaction transaction = begin();
    auto space = transaction.create_space(name, options);
    if (!space) return space;
    if (auto done = transaction.commit(); !done) return std::unexpected(done.error());
    return space;
}

Result<Space> Store::open_space(const std::string& name) const {
    if (auto fine = state_->check_name_of_space(name); !fine) return std::unexpected(fine.error());
    return handle_of<Space>(state_->find_space(name));
}

Result<Store::Resolved> Store::resolve(const Handle& handle) const {
    auto space = state_->resolve(handle);
    if (!space) return std::unexpected(space.error());
    return Resolved{Space(std::move(*space)), handle.range()};
}

Result<void> Store::rename_space(const std::string& from, const std::string& to) {
    Transaction transaction = begin();
    if (auto done = transaction.rename_space(from, to); !done) return done;
    return transaction.commit();
}

Result<void> Store::remove_space(const std::string& name) {
    Transaction transaction = begin();
    if (auto done = transaction.remove_space(name); !done) return done;
    return transaction.commit();
}

Result<std::vector<std::string>> Store::space_names() const {
    const std::shared_lock lock(state_->directory_map);
    std::vector<std::string> names;
    state_->visit_records([&](std::string_view name, const format::SpaceRecord* record) {
        // One that is damaged is of no known kind, and said to be when it is opened.
        if (record == nullptr || record->kind == format::SpaceKind::address_space ||
            record->kind == format::SpaceKind::supervisor)
            names.emplace_back(name);
    });
    return names;
}

Transaction Store::begin() { return Transaction(std::make_unique<TransactionState>(state_)); }

Result<void> Store::grow(std::uint64_t size_bytes) {
    if (auto begun = state_->begin_changes(); !begun) return begun;
    const table::ChangeGate::Inside inside(state_->gate);
    const StoreState::CommitLock lock(state_->commit_mutex);
    return state_->memory.add_pool_region(size_bytes, state_->reserve_bytes());
}

namespace {
Result<void> check_region_size(std::uint64_t size_bytes, bool may_be_none) {
    if ((size_bytes != 0 || may_be_none) && size_bytes % kPageSize == 0) return {};
    return fail(ErrorCode::invalid_argument,
                fmt::format("a region has a multiple of 4096 bytes, not {}", size_bytes));
}
}  // namespace

Result<unsigned> Store::add_file_region(const std::string& path,
                                        const ExternalRegionOptions& options, RegionKind kind) {
    if (auto fine = check_region_size(options.size_bytes, true); !fine)
        return std::unexpected(fine.error());
    if (auto begun = state_->begin_changes(); !begun) return std::unexpected(begun.error());
    const table::ChangeGate::Inside inside(state_->gate);
    const StoreState::CommitLock lock(state_->commit_mutex);
    return state_->memory.add_external_region(path, options, kind);
}

Result<unsigned> Store::add_external_region(const std::string& path,
                                            const ExternalRegionOptions& options) {
    return add_file_region(path, options, RegionKind::external);
}

Result<unsigned> Store::add_swap_region(const std::string& path, std::uint64_t size_bytes) {
    auto added = add_file_region(path, {.size_bytes = size_bytes}, RegionKind::swap);
    if (added) state_->count_frames();
    return added;
}

// The records of its frames are made when they are first mapped.
Result<unsigned> Store::add_device_region(const std::string& path,
                                          const ExternalRegionOptions& options) {
    return add_file_region(path, options, RegionKind::device);
}

Result<unsigned> Store::add_volatile_region(std::uint64_t size_bytes, LossPolicy loss) {
    if (auto fine = check_region_size(size_bytes, false); !fine)
        return std::unexpected(fine.error());
    if (auto begun = state_->begin_changes(); !begun) return std::unexpected(begun.error());
    const table::ChangeGate::Inside inside(state_->gate);
    const StoreState::CommitLock lock(state_->commit_mutex);
    return state_->memory.add_volatile_region(size_bytes, loss);
}

Result<void> Store::detach_region(unsigned index) {
    if (auto begun = state_->begin_changes(); !begun) return begun;
    const table::ChangeGate::Inside inside(state_->gate);
    return memory::detach_region(state_->memory, index);
}

Result<void> Store::replace_region(unsigned index, const std::string& path,
                                   const ExternalRegionOptions& options, bool accept_outdated) {
    if (auto fine = check_region_size(options.size_bytes, true); !fine) return fine;
    if (auto begun = state_->begin_changes(); !begun) return begun;
    const table::ChangeGate::Inside inside(state_->gate);
    return memory::replace_region(state_->memory, index, path, options, accept_outdated);
}

Result<void> Store::move_region(unsigned index, PhysAddr base) {
    if (auto begun = state_->begin_changes(); !begun) return begun;
    const table::ChangeGate::Inside inside(state_->gate);
    return memory::move_region(state_->memory, index, base);
}

Result<void> Store::finish_moves() {
    if (auto released = state_->release(~std::uint64_t{0}); !released)
        return std::unexpected(released.error());
    const table::ChangeGate::Inside inside(state_->gate);
    const StoreState::CommitLock lock(state_->commit_mutex);
    if (!state_->limbo.seems_empty())
        return fail(ErrorCode::busy, fmt::format("{}: others unmap meanwhile; try again", path()));
    const std::unique_lock directory_lock(state_->directory_map);
    return recovery::finish_moves(state_->memory, state_->directory());
}

Result<std::uint64_t> Store::release_limbo(std::uint64_t tables) { return state_->release(tables); }

std::vector<RegionInfo> Store::regions() const {
    std::vector<RegionInfo> regions;
    for (const memory::Region& region : state_->memory.regions()) {
        const format::RegionRecord& record = region.record();
        RegionInfo info;
        info.index = region.index();
        info.kind = region.kind();
        info.state = region.state();
        info.trouble = region.trouble();
        info.loss = static_cast<LossPolicy>(record.loss_policy);
        std::memcpy(info.uuid.data(), record.uuid, info.uuid.size());
        info.physical_base = PhysAddr::of(region.base());
        info.size_bytes = region.frame_count() << kPageShift;
        info.address = region.host(region.base());
        info.file_offset = record.file_offset;
        if (region.kind() != RegionKind::pool && region.kind() != RegionKind::volatile_memory)
            info.file = memory::region_path(*state_->pool, record).value_or("");
        else if (region.kind() == RegionKind::pool)
            if (const auto place = state_->pool->locate(info.address, 1, nullptr))
                info.file = place->file;
        regions.push_back(std::move(info));
    }
    return regions;
}

Result<StoreInfo> Store::info() const {
    StoreInfo info;
    const format::Superblock& superblock = state_->memory.superblock();
    std::memcpy(info.uuid.data(), superblock.uuid, info.uuid.size());
    info.format_version = superblock.format_version;
    info.boot_epoch = state_->boot_epoch();
    info.regions = regions();
    const table::ChangeGate::Closed at_rest(state_->gate);
    const VerifyReport counted = verify_at_rest({});
    const memory::FreeFrames free = state_->allocator.count_free();
    info.frames = {.total = counted.frames_total,
                   .free = counted.frames_free,
                   .limbo = counted.frames_limbo + counted.frames_building,
                   .free_2MiB = free.huge_2MiB,
                   .free_1GiB = free.huge_1GiB};
    info.tables = counted.tables;
    auto names = space_names();
    if (!names) return std::unexpected(names.error());
    for (const std::string& name : *names) {
        auto space = open_space(name);
        if (!space) return std::unexpected(space.error());
        info.spaces.push_back(space->info());
    }
    return info;
}

// The gate is closed.
VerifyReport Store::verify_at_rest(const VerifyOptions& options) const {
    const std::shared_lock directory_lock(state_->directory_map);
    state_->files.take_up(state_->directory());
    // Nobody makes metadata of a region's part that was never used.
    const auto allocator_lock = state_->allocator.hold();
    return recovery::verify(state_->memory, state_->directory(), state_->limbo, options);
}

VerifyReport Store::verify(const VerifyOptions& options) const {
    const table::ChangeGate::Closed at_rest(state_->gate);
    return verify_at_rest(options);
}

Result<VerifyReport> Store::verify_file(const std::string& path, const VerifyOptions& options,
                                        PmemEmulation emulation) {
    std::vector<Finding> mended;
    auto state = StoreState::open(path, {.emulation = emulation, .as_copy = true}, &mended);
    VerifyReport report;
    if (state)
        report = Store(*state).verify(options);
    else if (mended.empty())
        return std::unexpected(state.error());
    report.findings.insert(report.findings.end(), mended.begin(), mended.end());
    recovery::sort(report.findings);
    return report;
}

const std::string& Store::path() const { return state_->pool->path(); }
bool Store::is_pmem() const { return state_->pool->is_pmem(); }

}  // namespace holdfast
