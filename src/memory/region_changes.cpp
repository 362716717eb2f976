#include "memory/region_changes.hpp"

#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "memory/region_file.hpp"

namespace holdfast::memory {

using format::PreviousBase;
using format::RegionRecord;
using format::RegionStateOnMedium;

namespace {

// The region, if it may be detached and replaced.
Result<const Region*> external_region(const PhysicalMemory& memory, unsigned index,
                                      const char* action) {
    const auto regions = memory.regions();
    if (index >= regions.size())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: there is no region {}; `region list` shows those there are",
                                memory.pool().path(), index));
    if (regions[index].kind() == RegionKind::pool)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: region {} is the pool's own, and cannot be {}",
                                memory.pool().path(), index, action));
    return &regions[index];
}

Result<void> commit_record(
    PhysicalMemory& memory, unsigned index,
    const std::function<Result<void>(pool::TransactionScope&, RegionRecord&)>& change) {
    pool::WriteSet none;
    return memory.pool().commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        Result<void> done;
        change_record(scope, memory.superblock().regions[index],
                      [&](RegionRecord& record) { done = change(scope, record); });
        return done;
    });
}

Result<void> write_path(pool::TransactionScope& scope, RegionRecord& record,
                        const std::string& path) {
    const std::string bytes = encode_path(stored_path(scope.pool(), path));
    auto place = scope.allocate(bytes.size());
    if (!place) return std::unexpected(place.error());
    scope.write(scope.pool().at(*place), std::as_bytes(std::span(bytes)));
    if (record.path_offset != 0) scope.free(record.path_offset);
    record.path_offset = *place;
    return {};
}

bool is_there(const std::string& path) {
    struct stat status{};
    return stat(path.c_str(), &status) == 0;
}

// Whether a device is there that holds no region yet.
bool is_blank_device(const std::string& path, Files files) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0 || !S_ISCHR(status.st_mode)) return false;
    const auto device = open_region_memory(path, files);
    return device && header_of(**device).magic != format::kRegionMagic;
}

// The region itself, at this path.
Result<void> take_back(PhysicalMemory& memory, unsigned index, const std::string& path,
                       bool accept_outdated) {
    const RegionRecord& record = memory.superblock().regions[index];
    FoundFile found = find_region_file(memory.superblock(), record, path, memory.files());
    std::uint64_t stamp = record.stamp;
    if (found.state == RegionState::outdated && accept_outdated) {
        auto file = open_region_memory(path, memory.files());
        if (!file) return std::unexpected(file.error());
        stamp = stamp_of(**file).value_or(stamp);
    } else if (found.state == RegionState::outdated) {
        return fail(ErrorCode::stale, found.trouble);
    } else if (!found.memory) {
        return fail(
            found.state == RegionState::missing ? ErrorCode::not_found : ErrorCode::not_a_pool,
            found.trouble);
    } else {
        stamp = stamp_of(*found.memory).value_or(stamp);
    }
    // Commit point: from now on the pool knows this file, with the stamp that it has.
    return commit_record(memory, index, [&](pool::TransactionScope& scope, RegionRecord& changed) {
        changed.state = RegionStateOnMedium::attached;
        changed.stamp = stamp;
        changed.pending_stamp = 0;
        return write_path(scope, changed, path);
    });
}

// New memory in the place of what is lost. Its frames get numbers that no entry has, and metadata
// that was never written.
Result<void> start_anew(PhysicalMemory& memory, unsigned index, const std::string& path,
                        ExternalRegionOptions options) {
    RegionRecord fresh = memory.superblock().regions[index];
    const std::uint64_t frames = fresh.frame_count;
    if (options.size_bytes != 0 && options.size_bytes >> kPageShift != frames)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("region {} has {} bytes, and so must what replaces it", index,
                                frames << kPageShift));
    options.size_bytes = frames << kPageShift;
    ++fresh.generation;
    fresh.stamp = random_stamp();
    fresh.pending_stamp = 0;
    if (getrandom(fresh.uuid, sizeof fresh.uuid, 0) != sizeof fresh.uuid)
        return fail(ErrorCode::io, "the system gave no random bytes for a region's UUID");
    auto next = memory.next_base();
    if (!next) return std::unexpected(next.error());
    // Only one range of earlier numbers is remembered.
    if (fresh.previous != PreviousBase::none)
        return fail(ErrorCode::busy,
                    fmt::format("{}: entries still name frames of region {} by their numbers of "
                                "before; unmap what was lost (or `repair --lost`), and finish that "
                                "by `region finish-moves`",
                                memory.pool().path(), index));
    const bool was_there = is_there(path);
    auto file = make_region_file(memory.superblock(), fresh, path, options, memory.files());
    if (!file) return std::unexpected(file.error());
    file->reset();
    Result<void> done;
    if (fresh.frame_count < frames)
        done = fail(ErrorCode::no_space, fmt::format("{}: smaller than the region that it is to "
                                                     "replace",
                                                     path));
    fresh.frame_count = frames;
    fresh.previous = PreviousBase::replaced;
    fresh.previous_base = fresh.base_frame;
    fresh.initialized = 0;
    fresh.state = RegionStateOnMedium::attached;
    if (done) done = PhysicalMemory::give_base(fresh, *next);
    fresh.home_frame = fresh.base_frame;
    // Commit point: a crash before it leaves the old record, and a file that no pool names.
    if (done)
        done =
            commit_record(memory, index, [&](pool::TransactionScope& scope, RegionRecord& changed) {
                changed = fresh;
                memory.write_next_base(scope, *next);
                return write_path(scope, changed, path);
            });
    if (!done && !was_there) unlink(path.c_str());
    return done;
}

}  // namespace

Result<void> detach_region(PhysicalMemory& memory, unsigned index) {
    const std::scoped_lock lock(memory.changing());
    if (auto region = external_region(memory, index, "detached"); !region)
        return std::unexpected(region.error());
    auto done = commit_record(memory, index, [](pool::TransactionScope&, RegionRecord& record) {
        record.state = RegionStateOnMedium::detached;
        return Result<void>();
    });
    if (done) memory.close_to_allocation(index);
    return done;
}

Result<void> replace_region(PhysicalMemory& memory, unsigned index, const std::string& path,
                            const ExternalRegionOptions& options, bool accept_outdated) {
    const std::scoped_lock lock(memory.changing());
    auto region = external_region(memory, index, "replaced");
    if (!region) return std::unexpected(region.error());
    if ((*region)->state() == RegionState::attached)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: region {} is attached and well; detach it first",
                                memory.pool().path(), index));
    Result<void> done;
    if ((*region)->kind() == RegionKind::volatile_memory)
        done = commit_record(memory, index, [](pool::TransactionScope&, RegionRecord& record) {
            record.state = RegionStateOnMedium::attached;
            return Result<void>();
        });
    else if (is_there(path) && !is_blank_device(path, memory.files()))
        done = take_back(memory, index, path, accept_outdated);
    else
        done = start_anew(memory, index, path, options);
    if (done) memory.outlive(index);
    return done;
}

Result<void> move_region(PhysicalMemory& memory, unsigned index, PhysAddr base) {
    const std::scoped_lock lock(memory.changing());
    const auto regions = memory.regions();
    if (index >= regions.size())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: there is no region {}", memory.pool().path(), index));
    // All regions of one window keep their places in it.
    const format::RegionRecord& moved = memory.superblock().regions[index];
    std::vector<unsigned> together;
    std::uint64_t first = moved.base_frame;
    for (const Region& region : regions) {
        const RegionRecord& record = memory.superblock().regions[region.index()];
        const bool same =
            record.kind == moved.kind && moved.kind == format::RegionKindOnMedium::pool
                ? record.base_frame + record.window_frames == moved.base_frame + moved.window_frames
                : region.index() == index;
        if (!same) continue;
        if (record.previous != PreviousBase::none)
            return fail(ErrorCode::busy,
                        fmt::format("{}: entries still name frames of region {} by their numbers "
                                    "of before; finish that first, by `region finish-moves`",
                                    memory.pool().path(), region.index()));
        together.push_back(region.index());
        first = std::min(first, record.base_frame);
    }
    auto next = memory.next_base();
    if (!next) return std::unexpected(next.error());
    RegionRecord window = moved;
    window.window_frames = moved.base_frame + moved.window_frames - first;
    window.file_offset = moved.file_offset - ((moved.base_frame - first) << kPageShift);
    if (base != PhysAddr()) {
        const std::uint64_t wanted = base.frame().value();
        if (base.bits() % kPageSize != 0 || wanted < *next)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{:#x} is not a page's address beyond {:#x}, below which all "
                                    "were used",
                                    base.bits(), *next << kPageShift));
        next = wanted - window.file_offset % (std::uint64_t{1} << 30) / kPageSize;
    }
    if (auto done = PhysicalMemory::give_base(window, *next); !done) return done;
    if (base != PhysAddr() && PhysAddr::of(FrameNumber(window.base_frame)) != base)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{:#x} is not congruent to the file offset {:#x} modulo 1 GiB",
                                base.bits(), window.file_offset));
    const std::uint64_t distance = window.base_frame - first;
    pool::WriteSet none;
    // Commit point: all of the window moves at once.
    auto done = memory.pool().commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        for (const unsigned each : together)
            change_record(scope, memory.superblock().regions[each], [&](RegionRecord& record) {
                record.previous = PreviousBase::moved;
                record.previous_base = record.base_frame;
                record.base_frame += distance;
            });
        memory.write_next_base(scope, *next);
        return {};
    });
    if (done)
        for (const unsigned each : together) memory.outlive(each);
    return done;
}

}  // namespace holdfast::memory
