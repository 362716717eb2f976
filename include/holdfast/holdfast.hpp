// holdfast: page tables of whole address spaces, kept in persistent memory.
//
// Start with store.hpp and space.hpp; docs/ARCHITECTURE.md has the picture.
#pragma once

#include "holdfast/device.hpp"      // DeviceMapping: frames that are mapped by their place
#include "holdfast/error.hpp"       // Error, Result
#include "holdfast/fault.hpp"       // Fault, Translation
#include "holdfast/file.hpp"        // FileMapping, FileInfo: what ranges of files are
#include "holdfast/handle.hpp"      // Handle: what to keep across a restart
#include "holdfast/image.hpp"       // import_process, import_core, import_elf, export_core
#include "holdfast/inspect.hpp"     // peek, poke
#include "holdfast/overcommit.hpp"  // set_overcommit: how much may be promised
#include "holdfast/ranges.hpp"      // find_mapping, find_hole, check_user_range
#include "holdfast/reclaim.hpp"     // swap, quotas, who loses frames
#include "holdfast/region.hpp"    // RegionInfo, RegionState: physical memory, and what became of it
#include "holdfast/repair.hpp"    // repair_file
#include "holdfast/replay.hpp"    // TraceReplay, LackeyTrace: a program's accesses through a space
#include "holdfast/snapshot.hpp"  // forks and snapshots, differences
#include "holdfast/space.hpp"     // Space: map, unmap, protect, translate, read, write
#include "holdfast/store.hpp"     // Store: create, open, the directory of spaces
#include "holdfast/supervisor.hpp"         // a half that many spaces share
#include "holdfast/tlb.hpp"                // Tlb
#include "holdfast/transaction.hpp"        // Transaction
#include "holdfast/translation_cache.hpp"  // what a Tlb is beside its spaces
#include "holdfast/types.hpp"              // VirtAddr, PhysAddr, Range, Protection
#include "holdfast/verify.hpp"             // VerifyReport and the invariants
