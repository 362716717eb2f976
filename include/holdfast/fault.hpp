// The two results of a translation: where the byte is, or why it is nowhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "holdfast/types.hpp"

namespace holdfast {

struct Translation {
    PhysAddr physical;      // of the byte asked for, not of its page
    PageSize page_size{};   // of the leaf entry
    Protection protection;  // effective: the AND along the path (SDM vol. 3A, 4.6)
    // The mapping permits writing, but the frame, or a table on the path, is shared with a fork or
    // a snapshot: `protection` is without `w`, and whoever writes first gets a copy (Space::fault).
    bool copy_on_write = false;

    friend bool operator==(const Translation&, const Translation&) = default;
};

enum class FaultKind : std::uint8_t {
    non_canonical,     // the address cannot be translated with this many levels
    not_mapped,        // nothing was mapped here
    demand_zero,       // mapped, reads as zeros, and has no frame until the first write
    guard,             // a guard page
    protection,        // mapped, but the access is not permitted
    copy_on_write,     // the write is permitted, once the page has been copied (Space::fault)
    swapped,           // the page is in the swap file
    file_backed,       // the page is in a file and was not loaded yet
    file_end,          // the page lies behind the end of its file
    stack_room,        // below what a stack has of its range so far: an access makes it grow
    damaged_entry,     // the entry's tag does not fit its bits, its slot or its level
    stale_entry,       // the frame was freed, or reused by somebody else, since the entry was made
    wrong_table,       // a table that belongs elsewhere: other level, owner or index
    damaged_metadata,  // the frame metadata of the target fails its checksum
    no_region,         // no region of this store holds the frame
    region_missing,    // the region that holds the frame has no memory; RegionState says more
    region_detached,
    region_replaced,
    region_shrunk,
    region_outdated,
    volatile_lost,  // the frame is in a volatile region, and was filled by an earlier process
    file_missing,   // the page is of a mapped file (file.hpp) that is gone, or cannot be read
    file_replaced,  // the file is another one now
    file_truncated,
    file_changed,  // written by others, or grown
};

// `holdfast::to_string(kind)` is the kind as written above.
const char* to_string(FaultKind kind);
constexpr bool is_loss(FaultKind kind) { return kind >= FaultKind::region_missing; }
constexpr bool is_file_loss(FaultKind kind) { return kind >= FaultKind::file_missing; }

struct Fault {
    FaultKind kind{};
    VirtAddr address{};       // the address asked for
    std::uint8_t level = 0;   // of the entry that ended the walk; 1 is a page table, 0 is no entry
    Protection protection{};  // what the mapping permits, where the entry says so
    std::uint64_t entry = 0;  // the entry's bits as they stand in the pool
    // Of a loss that is a region's: which; Store::regions() has a sentence about it.
    std::optional<unsigned> region = {};

    // Whether the medium, and not the program, is to blame.
    bool is_damage() const { return kind >= FaultKind::damaged_entry; }
    // Whether the tables are well and only the page's memory is out of reach.
    bool is_loss() const { return holdfast::is_loss(kind); }
    std::string to_string() const;
};

}  // namespace holdfast
