// Repair: what is lost is removed from a store, and what is well stays as it is.
//
//     auto report = repair_file("/mnt/pmem/spaces", {.dry_run = true});
//     for (const Finding& each : report->repaired) std::puts(each.detail.c_str());
//
// What it does, for each finding of a full check (verify.hpp):
//   - an entry that fails its checks (damaged, stale, to a wrong table, to no region, to a frame
//     with damaged metadata) becomes empty: its range is unmapped. Frames that only it led to are
//     freed;
//   - a space whose record or root is lost is removed;
//   - a name in the directory that leads to no space record is removed, and a space that only lost
//     its name, or the metadata of its record, gets it back;
//   - names of ranges are trimmed to what is mapped; those that fail their checksums are removed;
//   - wrong reference counts are set to what there is; frames that nothing leads to are freed, and
//     so are unused ones whose metadata is damaged: the next use of a frame raises its generation,
//     so that no old entry can become valid again;
//   - where the limbo list is damaged, all of it is dropped, and its frames are freed; where a
//     build record is damaged, the build is void. The superblock's words are worked out again.
// Afterwards the store is clean, but for lost pages, which stay unless asked for. What cannot be
// repaired is refused, with a sentence: a damaged fixed part of the superblock, a region's record
// (with more than one flipped bit), whatever libpmemobj does not open.
//
// All of it is first done to a copy (OpenOptions::as_copy), which must come out clean; only then to
// the file. So a store that is clean is not changed by one byte, nor is one that cannot be
// repaired. A dry run is the first half.
//
// Crashes. Every step is failure-atomic, and what it leaves is a store that can be repaired: a
// repair that was interrupted is repeated, and does what is left.
//
// Thread safety: the pool must not be open; libpmemobj sees to that.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/store.hpp"
#include "holdfast/verify.hpp"

namespace holdfast {

struct RepairOptions {
    bool dry_run = false;  // says what would be done, and does not change the file
    // Also pages that are well but for their region, which is out of reach (region.hpp) and might
    // come back; or for an earlier process, whose volatile memory they had.
    bool remove_lost_pages = false;
    PmemEmulation emulation = PmemEmulation::from_environment;
    unsigned threads = 0;                                         // as in VerifyOptions
    std::function<void(const VerifyProgress&)> on_progress = {};  // of each check in turn
};

struct RepairReport {
    // What was done (or would be), in order: the invariant that did not hold, the space, the range
    // that is unmapped now, and a sentence.
    std::vector<Finding> repaired;
    std::uint64_t freed_frames = 0;  // leaked ones, and those of what was removed
    VerifyReport after;              // of the store as it is afterwards (or would be)
};

// Errors: as Store::open; damaged where something cannot be repaired; no_space (a sparse file on a
// full disk: nothing is changed; the pool's own heap is full: what was done so far stays done).
Result<RepairReport> repair_file(const std::string& path, const RepairOptions& options = {});

}  // namespace holdfast
