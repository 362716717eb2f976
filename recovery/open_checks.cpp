#include "recovery/open_checks.hpp"

#include <fmt/format.h>

#include <cstring>

#include "format/overcommit.hpp"
#include "format/reclaim_word.hpp"

namespace holdfast::recovery {

using namespace format;

Result<void> check_fixed_part(const Superblock& superblock, const std::string& path) {
    // The version comes before the checksum: a later version may compute it otherwise.
    if (superblock.format_version > kFormatVersion)
        return fail(ErrorCode::unsupported,
                    fmt::format("{}: format version {}, and this build reads up to {}; use a newer "
                                "holdfast",
                                path, superblock.format_version, kFormatVersion));
    if (superblock.checksum != superblock.computed_checksum())
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the superblock fails its checksum; restore the pool from a "
                                "copy (or, if it was just being made, delete the file)",
                                path));
    if (superblock.format_version != kFormatVersion)
        return fail(ErrorCode::unsupported,
                    fmt::format("{}: format version {}, and this build reads only {}; export with "
                                "the build that made it, and import here",
                                path, superblock.format_version, kFormatVersion));
    if (const std::uint64_t unknown = superblock.incompatible_features & ~kKnownIncompatible)
        return fail(ErrorCode::unsupported,
                    fmt::format("{}: uses features this build does not know (bits {:#x}); use a "
                                "newer holdfast",
                                path, unknown));
    return {};
}

Result<void> check_before_opening(const std::string& bytes, const std::string& path) {
    constexpr std::size_t kFixedSize = offsetof(Superblock, boot_epoch);
    if (bytes.size() < kFixedSize) return {};
    Superblock superblock{};
    std::memcpy(static_cast<void*>(&superblock), bytes.data(), kFixedSize);
    if (superblock.magic != kMagic) return {};
    return check_fixed_part(superblock, path);
}

Result<void> check_identity(const Superblock& superblock, const std::string& path) {
    if (superblock.magic == 0)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the making of this store was interrupted; delete the file and "
                                "create it anew",
                                path));
    if (superblock.magic != kMagic)
        return fail(ErrorCode::not_a_pool,
                    fmt::format("{}: the pool's root is not a holdfast superblock; nothing was "
                                "changed, name another file",
                                path));
    return check_fixed_part(superblock, path);
}

Result<void> check_superblock(const Superblock& superblock, const std::string& path) {
    if (auto fine = check_identity(superblock, path); !fine) return fine;
    for (const SuperblockWord& each : kSuperblockWords)
        if (!CheckedWord::decode(superblock.*each.word, each.seed))
            return fail(ErrorCode::damaged,
                        fmt::format("{}: the superblock's {} fails its check; run `repair`, or "
                                    "restore the pool from a copy",
                                    path, each.name));
    if (!OvercommitWord::decode(superblock.overcommit))
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the superblock's overcommit policy fails its check; run "
                                "`repair`, which sets that of a new store",
                                path));
    if (!format::ReclaimWord::decode(superblock.reclaim_policy))
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the superblock's reclaim policy fails its check; run "
                                "`repair`, which sets that of a new store",
                                path));
    if (superblock.zero_frame != 0 &&
        !CheckedWord::decode(superblock.zero_frame, format::kSeedZeroFrame))
        return fail(
            ErrorCode::damaged,
            fmt::format("{}: the superblock's frame of zeros fails its check; run `repair`, "
                        "after which another is made when it is needed",
                        path));
    return {};
}

}  // namespace holdfast::recovery
