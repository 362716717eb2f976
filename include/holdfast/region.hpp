// Physical memory: the regions of a store, and what may have become of them since the last time.
//
// A store begins with frames of its pool. Regions add to them: *external* ones, in a file or
// device-DAX device of their own, and *volatile* ones, in memory of this process. Tables, records
// and all metadata are always in the pool; a region holds pages of spaces that prefer it
// (SpaceOptions::region), and a volatile one nothing else.
//
// After a store is opened, each region is looked at before a byte of it is read, and all of them by
// the first change: is its file there, is it the one that the pool names, whole, and of the same
// time? What is not right makes no error. The region is left out, everything else works, and
// whoever comes to a page that lay there gets a Fault that says which region and why. Nothing about
// this depends on how much is mapped, and opening itself not on the number of regions.
//
// Copies. A region's file and the pool are paired anew by the first change after each opening. A
// file that was restored from an older copy, or beside a pool that was, is therefore noticed
// (`outdated`), unless both copies were taken between the same two openings: those are not told
// apart.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "holdfast/types.hpp"

namespace holdfast {

using Uuid = std::array<std::uint8_t, 16>;
std::string to_string(const Uuid& uuid);

// A swap region is an external one for pages that have lost their frames (reclaim.hpp), a device
// region one whose frames are mapped only by those who name them (device.hpp).
enum class RegionKind : std::uint8_t {
    pool = 1,
    external = 2,
    volatile_memory = 3,
    swap = 4,
    device = 5
};
const char* to_string(RegionKind kind);

enum class RegionState : std::uint8_t {
    attached,
    detached,  // at its owner's wish
    missing,   // the file is not there, or not to be opened
    replaced,  // the file is something else, or another store's
    shrunk,    // the file is cut off; the frames before its end are attached
    outdated,  // the file, or the pool, is a copy from another time
};
// The state as written above.
const char* to_string(RegionState state);

// What becomes of the pages in a volatile region when the process that held it has ended.
enum class LossPolicy : std::uint8_t {
    fault = 0,  // an access is a fault (FaultKind::volatile_lost), until the page is unmapped
    zero = 1,   // they are there again, and read as zeros
};

// A run of frames. The physical base equals the file offset modulo 1 GiB, so that huge pages line
// up in the entry, in the kernel's mapping and in a guest's memory.
struct RegionInfo {
    unsigned index = 0;  // its number, for the calls that name a region
    RegionKind kind{};
    RegionState state{};
    std::string trouble;  // a sentence, unless attached
    LossPolicy loss = LossPolicy::fault;
    Uuid uuid{};
    PhysAddr physical_base;
    std::uint64_t size_bytes = 0;
    std::string file;                    // that holds the frames; none for a volatile region
    std::uint64_t file_offset = 0;       // of the first frame in it
    const std::byte* address = nullptr;  // of the first frame in this process, unless out of reach
};

struct ExternalRegionOptions {
    std::uint64_t size_bytes = 0;  // a multiple of 4 KiB; 0 for a device, which has its own
    std::uint32_t file_mode = 0600;
    // The file system provides blocks as they are written. Cheaper; but when it is full, a write to
    // a page is a SIGBUS.
    bool sparse = false;
};

}  // namespace holdfast
