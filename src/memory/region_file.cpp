#include "memory/region_file.hpp"

#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <vector>

namespace holdfast::memory {

using format::CheckedWord;
using format::PathRecord;
using format::RegionHeader;
using format::RegionRecord;

namespace fs = std::filesystem;

namespace {

template <typename A, typename B>
bool same_uuid(const A& a, const B& b) {
    return std::memcmp(a, b, 16) == 0;
}

fs::path folder_of(const pool::Pool& pool) {
    return fs::absolute(fs::path(pool.path())).lexically_normal().parent_path();
}

}  // namespace

Result<std::unique_ptr<pool::ForeignMemory>> open_region_memory(const std::string& path,
                                                                Files files) {
    return files == Files::as_copies
               ? pool::ForeignMemory::open_copy(path)
               : pool::ForeignMemory::open_file(path, files == Files::as_pmem);
}

RegionHeader& header_of(const pool::ForeignMemory& memory) {
    return *reinterpret_cast<RegionHeader*>(memory.data());
}

std::optional<std::uint64_t> stamp_of(const pool::ForeignMemory& memory) {
    return CheckedWord::decode(header_of(memory).stamp, format::kSeedRegionStamp);
}

std::uint64_t random_stamp() {
    std::uint64_t stamp = 0;
    // Of so few bytes the system gives all, or none if a signal comes first. 0 says "none".
    do {
        if (getrandom(&stamp, sizeof stamp, 0) != sizeof stamp) stamp = 0;
        stamp &= CheckedWord::kValueMask;
    } while (stamp == 0);
    return stamp;
}

FoundFile find_region_file(const format::Superblock& superblock, const RegionRecord& record,
                           const std::string& path, Files files) {
    auto opened = open_region_memory(path, files);
    if (!opened)
        return {.state = opened.error().code == ErrorCode::not_a_pool ? RegionState::replaced
                                                                      : RegionState::missing,
                .trouble = opened.error().message,
                .memory = nullptr};
    const auto replaced = [&](const char* what) {
        return FoundFile{.state = RegionState::replaced,
                         .trouble = fmt::format("{}: {}; bring the region's own file back, or "
                                                "replace the region",
                                                path, what),
                         .memory = nullptr};
    };
    const pool::ForeignMemory& memory = **opened;
    if (memory.size_bytes() < sizeof(RegionHeader))
        return replaced("too short for a region's header");
    const RegionHeader& header = header_of(memory);
    if (header.magic != format::kRegionMagic) return replaced("not the file of a region");
    if (header.checksum != header.computed_checksum())
        return replaced("the header of the region fails its checksum");
    if (!same_uuid(header.store_uuid, superblock.uuid))
        return replaced("a region of another store");
    if (!same_uuid(header.uuid, record.uuid)) return replaced("another region of this store");
    if (header.generation != record.generation)
        return replaced("this region's memory of before it was replaced");
    if (header.frame_count != record.frame_count)
        return replaced("the header names another size than the pool does");
    const auto stamp = stamp_of(memory);
    if (!stamp) return replaced("the stamp of the region fails its check");
    if (*stamp != record.stamp && (record.pending_stamp == 0 || *stamp != record.pending_stamp))
        return {.state = RegionState::outdated,
                .trouble = fmt::format("{}: from another time than the pool: one of them was "
                                       "restored from an older copy; restore the other too, or "
                                       "accept the file with `region replace --accept-outdated`",
                                       path),
                .memory = nullptr};
    const std::uint64_t whole =
        (memory.size_bytes() - std::min(memory.size_bytes(), record.file_offset)) >> kPageShift;
    FoundFile found{.state = RegionState::attached,
                    .trouble = {},
                    .memory = std::move(*opened),
                    .reachable_frames = std::min(whole, record.frame_count)};
    if (whole < record.frame_count) {
        found.state = RegionState::shrunk;
        found.trouble = fmt::format("{}: cut off: {} of {} frames are left; restore the file", path,
                                    whole, record.frame_count);
    }
    return found;
}

Result<std::unique_ptr<pool::ForeignMemory>> make_region_file(const format::Superblock& superblock,
                                                              RegionRecord& record,
                                                              const std::string& path,
                                                              const ExternalRegionOptions& options,
                                                              Files files) {
    const std::uint64_t frames = options.size_bytes >> kPageShift;
    std::error_code ignored;
    if (frames == 0 && !fs::is_character_file(path, ignored))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: only a device has a size of its own; say how large the file "
                                "is to be",
                                path));
    auto made = pool::ForeignMemory::create_file(path, (frames << kPageShift) + record.file_offset,
                                                 options.file_mode, options.sparse,
                                                 files == Files::as_pmem);
    if (!made) {
        if (made.error().code != ErrorCode::already_exists) return made;
        // What an interrupted `add` has left is told apart, since nobody else will name it.
        auto existing = open_region_memory(path, files);
        const bool is_ours = existing && (*existing)->size_bytes() >= sizeof(RegionHeader) &&
                             header_of(**existing).magic == format::kRegionMagic &&
                             same_uuid(header_of(**existing).store_uuid, superblock.uuid);
        return fail(ErrorCode::already_exists,
                    fmt::format("{}: exists already{}", path,
                                is_ours ? ", as a region of this store; if `region list` does not "
                                          "show it, its making was interrupted: delete it"
                                        : "; name a new file"));
    }
    const pool::ForeignMemory& memory = **made;
    RegionHeader& header = header_of(memory);
    if (header.magic == format::kRegionMagic)
        return fail(ErrorCode::already_exists,
                    fmt::format("{}: the device holds a region already; clear its first 4 KiB if "
                                "nobody needs it",
                                path));
    record.frame_count =
        (memory.size_bytes() - std::min(memory.size_bytes(), record.file_offset)) >> kPageShift;
    RegionHeader fresh{};
    fresh.magic = format::kRegionMagic;
    fresh.format_version = format::kFormatVersion;
    fresh.generation = record.generation;
    std::memcpy(fresh.store_uuid, superblock.uuid, sizeof fresh.store_uuid);
    std::memcpy(fresh.uuid, record.uuid, sizeof fresh.uuid);
    fresh.frame_count = record.frame_count;
    fresh.checksum = fresh.computed_checksum();
    fresh.stamp = CheckedWord::encode(record.stamp, format::kSeedRegionStamp);
    memory.copy(&header, &fresh, sizeof fresh);
    // Durable before any pool names the file: a crash in between leaves a file that nobody names.
    memory.drain();
    return made;
}

std::string stored_path(const pool::Pool& pool, const std::string& path) {
    const fs::path absolute = fs::absolute(fs::path(path)).lexically_normal();
    const fs::path relative = absolute.lexically_relative(folder_of(pool));
    const bool is_below = !relative.empty() && *relative.begin() != "..";
    return is_below ? relative.string() : absolute.string();
}

std::string encode_path(const std::string& stored) {
    PathRecord record{};
    record.length = static_cast<std::uint32_t>(stored.size());
    record.checksum = PathRecord::computed_checksum(std::as_bytes(std::span(stored)));
    std::string bytes(sizeof record, '\0');
    std::memcpy(bytes.data(), &record, sizeof record);
    return bytes + stored;
}

std::optional<std::string> region_path(const pool::Pool& pool, const RegionRecord& record) {
    if (!pool.holds(record.path_offset, sizeof(PathRecord))) return std::nullopt;
    PathRecord head{};
    std::memcpy(&head, pool.at(record.path_offset), sizeof head);
    const pool::Offset at = record.path_offset + sizeof head;
    if (head.length == 0 || head.length > PathRecord::kLengthMax || !pool.holds(at, head.length))
        return std::nullopt;
    const std::span bytes(pool.at(at), head.length);
    if (head.checksum != PathRecord::computed_checksum(bytes)) return std::nullopt;
    const fs::path stored(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    return (stored.is_absolute() ? stored : folder_of(pool) / stored).string();
}

}  // namespace holdfast::memory
