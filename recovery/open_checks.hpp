// What is checked when a store is opened, and nothing that grows with it. Everything else is
// checked when it is first walked.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "format/superblock.hpp"
#include "holdfast/error.hpp"

namespace holdfast::recovery {

// Version, features and checksum of the fixed part. unsupported for a newer version or an unknown
// incompatible feature, damaged otherwise; `path` is for the message.
Result<void> check_fixed_part(const format::Superblock& superblock, const std::string& path);

// The same on the first 128 bytes of the superblock as they stand in the file, before libpmemobj
// has touched the pool: what is refused then is not changed at all. Without a magic, or with fewer
// bytes, nothing is said.
Result<void> check_before_opening(const std::string& bytes, const std::string& path);

// Whether it is a superblock of ours at all, with a fixed part that is well.
Result<void> check_identity(const format::Superblock& superblock, const std::string& path);

// A word of the superblock that has a check of its own.
struct SuperblockWord {
    const char* name;
    std::uint64_t format::Superblock::* word;
    std::uint32_t seed;
};
inline constexpr std::array<SuperblockWord, 5> kSuperblockWords = {
    {{"boot epoch", &format::Superblock::boot_epoch, format::kSeedBootEpoch},
     {"limbo head", &format::Superblock::limbo_head, format::kSeedLimboHead},
     {"next owner", &format::Superblock::next_owner, format::kSeedNextOwner},
     {"number of regions", &format::Superblock::region_count, format::kSeedRegionCount},
     {"next base", &format::Superblock::next_base, format::kSeedNextBase}}};

// All of the superblock, after libpmemobj has replayed its logs.
Result<void> check_superblock(const format::Superblock& superblock, const std::string& path);

}  // namespace holdfast::recovery
