// The root object of a pool: the superblock, and behind it the region table.
//
//   offset size
//        0    8  magic "HOLDFAST"
//        8    4  format version
//       12    4  (zero)
//       16    8  compatible features: unknown ones may be ignored
//       24    8  incompatible features: unknown ones must be refused
//       32   16  UUID of the store
//       48    8  pool size in bytes when the store was made (0: not known, a device)
//       56    8  directory: pool offset of the ordered map from names to space records
//       64   56  (zero)
//      120    8  CRC-32 over bytes 0..119, zero-extended
//   -- mutable, each word checked on its own and updated by one store --
//      128    8  boot epoch
//      136    8  limbo head: frame number of the first limbo page, 0 for none
//      144    8  next owner id to try
//      152    8  number of regions
//      160    8  next base: physical frames below this number belong to a region, or did
//      168    8  overcommit policy (overcommit.hpp)
//      176    8  reclaim policy: FramePolicy in bits 0..7, OomPolicy in 8..15; the word 0 is 0, too
//      184    8  home number of the frame of zeros (frame_metadata.hpp); the word 0: none yet
//      192   64  (zero)
//      256  512  64 build slots: frame number of a build record, 0 for none
//      768  256  (zero)
//     1024       56 region records of 128 bytes
//
// Bytes 0..127 are written once, when the store is made. A crash during that leaves no magic, and
// `open` reports a store whose creation was not finished.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "format/checked_word.hpp"
#include "format/crc.hpp"
#include "holdfast/types.hpp"

namespace holdfast::format {

inline constexpr std::uint64_t kMagic = 0x5453'4146'444c'4f48;  // "HOLDFAST" in memory
// 1: the first. 2: regions outside the pool; metadata checks name the frame's home, not its base.
// 3: tables shared by forks and snapshots, copy-on-write.
// 4: mapped files, swapped pages, stacks that grow, an overcommit policy, supervisor halves, fixed
//    frames.
// Raised with every change to what is on the medium.
inline constexpr std::uint32_t kFormatVersion = 4;
inline constexpr std::uint64_t kKnownIncompatible = 0;
inline constexpr const char* kLayout = "holdfast";

// Together with the superblock 8 KiB: libpmemobj gives a larger root object a run of chunks of its
// own, which a small pool cannot spare.
inline constexpr unsigned kMaxRegions = 56;
inline constexpr unsigned kBuildSlots = 64;

// Seeds of the checked words.
inline constexpr std::uint32_t kSeedBootEpoch = 0x65706f63, kSeedLimboHead = 0x6c696d62,
                               kSeedNextOwner = 0x6f776e65, kSeedRegionCount = 0x72656763,
                               kSeedNextBase = 0x62617365, kSeedReclaimPolicy = 0x7265636c,
                               kSeedZeroFrame = 0x7a65726f,
                               kSeedBuildSlot = 0x62750000;  // plus the slot's number

enum class RegionKindOnMedium : std::uint8_t {
    pool = 1,
    external = 2,
    volatile_memory = 3,
    swap = 4,    // as external
    device = 5,  // as external, with fixed frames (frame_metadata.hpp)
};

// Whether a region's frames may be reached at all.
enum class RegionStateOnMedium : std::uint8_t { attached = 1, detached = 2 };

// What becomes of the frames that a volatile region held when its process ended.
enum class LossPolicyOnMedium : std::uint8_t {
    fault = 0,  // an access is a fault, until the range is unmapped
    zero = 1,   // they are back as zeros
};

// What the frame numbers from `previous_base` on are.
enum class PreviousBase : std::uint8_t {
    none = 0,
    moved = 1,     // the same frames: entries with these numbers are repaired when they are walked
    replaced = 2,  // frames whose content is gone: entries with these numbers lead nowhere
};

// One run of frames. Data frames may lie in an external file or in volatile memory; tables, records
// and all metadata are always in the pool, since only pool memory can be logged.
//
//   offset size
//        0    1  kind
//        1    1  state
//        2    1  loss policy
//        3    1  previous: what previous_base means
//        4    4  generation: raised when the region's memory is replaced
//        8   16  UUID
//       24    8  base frame number, never reused in this store
//       32    8  number of frames
//       40    8  metadata: pool offset of 16 bytes for each frame
//       48    8  frames: pool offset of the first frame (pool regions), otherwise 0
//       56    8  initialized: metadata of frames below this number is valid; above, never written
//       64    8  stamp: what the header of an external region says (region_header.hpp), 48 bits
//       72    8  pending stamp: what it may say instead, 0 for nothing
//       80    8  window: frames from the base to the end of the file (part) that holds it; regions
//                made later in the same file continue the same physical range within it
//       88    8  offset in the file of the first frame, which equals base * 4 KiB modulo 1 GiB
//       96    8  pool offset of the path of an external region's file (region_header.hpp)
//      104    8  home: the first base; metadata is checked against frame - base + home, so that a
//                region can get another base without a look at its metadata
//      112    8  previous base, see above
//      120    8  CRC-32 over bytes 0..119, zero-extended
struct RegionRecord {
    RegionKindOnMedium kind;
    RegionStateOnMedium state;
    LossPolicyOnMedium loss_policy;
    PreviousBase previous;
    std::uint32_t generation;
    std::uint8_t uuid[16];
    std::uint64_t base_frame;
    std::uint64_t frame_count;
    std::uint64_t metadata_offset;
    std::uint64_t frames_offset;
    std::uint64_t initialized;
    std::uint64_t stamp;
    std::uint64_t pending_stamp;
    std::uint64_t window_frames;
    std::uint64_t file_offset;
    std::uint64_t path_offset;
    std::uint64_t home_frame;
    std::uint64_t previous_base;
    std::uint64_t checksum;

    std::uint64_t computed_checksum() const {
        return Crc32().add({reinterpret_cast<const std::byte*>(this), 120}).value();
    }
};
static_assert(sizeof(RegionRecord) == 128 && offsetof(RegionRecord, checksum) == 120);
static_assert(offsetof(RegionRecord, uuid) == 8 && offsetof(RegionRecord, stamp) == 64);
static_assert(offsetof(RegionRecord, home_frame) == 104);
static_assert(std::is_trivially_copyable_v<RegionRecord>);

struct Superblock {
    std::uint64_t magic;
    std::uint32_t format_version;
    std::uint32_t reserved0;
    std::uint64_t compatible_features;
    std::uint64_t incompatible_features;
    std::uint8_t uuid[16];
    std::uint64_t pool_size_bytes;
    std::uint64_t directory_offset;
    std::uint8_t reserved1[56];
    std::uint64_t checksum;

    std::uint64_t boot_epoch;
    std::uint64_t limbo_head;
    std::uint64_t next_owner;
    std::uint64_t region_count;
    std::uint64_t next_base;
    std::uint64_t overcommit;
    std::uint64_t reclaim_policy;
    std::uint64_t zero_frame;
    std::uint8_t reserved2[64];
    std::uint64_t build_slots[kBuildSlots];
    std::uint8_t reserved3[256];
    RegionRecord regions[kMaxRegions];

    std::uint64_t computed_checksum() const {
        return Crc32().add({reinterpret_cast<const std::byte*>(this), 120}).value();
    }
};
static_assert(offsetof(Superblock, checksum) == 120 && offsetof(Superblock, boot_epoch) == 128);
static_assert(offsetof(Superblock, overcommit) == 168);
static_assert(offsetof(Superblock, build_slots) == 256 && offsetof(Superblock, regions) == 1024);
static_assert(sizeof(Superblock) == 8192);
static_assert(std::is_trivially_copyable_v<Superblock>);

}  // namespace holdfast::format
