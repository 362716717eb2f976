// Forks and snapshots: spaces of one lineage, which share tables and frames until one of them
// writes.
//
//     store.create_snapshot("editor", "editor@monday");
//     … the editor goes on …
//     for (const Difference& each : *differences(editor, monday)) …
//     store.rollback("editor", "editor@monday");
//
// `Store::fork_space` makes a space of its own, that has what the source has now; `create_snapshot`
// one that nobody can change, but that can be read, exported and forked. Both are constant in what
// is mapped: the root table is copied, and permits no writing from then on, in either of them. The
// first write to a page copies the tables on the path to it that are shared (at most one of each
// level, whose 512 entries have one reference more then) and the page itself. Pages that are mapped
// shared (Space::map_shared) stay so: both go on to see each other's writes, a snapshot too.
//
// What a snapshot holds are the bytes that the space has in memory. Those that were not persisted
// before are no more durable in the snapshot than they are in the space: `persist` first.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/space.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

struct SnapshotInfo {
    std::string name;
    std::string of;                   // the name that the space has now; empty if it was removed
    std::uint64_t created_epoch = 0;  // the boot epoch (StoreInfo)

    friend bool operator==(const SnapshotInfo&, const SnapshotInfo&) = default;
};

// A maximal run of pages in which two spaces differ in the same way.
struct Difference {
    enum class Kind : std::uint8_t {
        only_in_first,
        only_in_second,
        protection,  // and perhaps content
        // Bytes of both could be read, and differ; or of one of them cannot be read, as those of a
        // page of a file that only one has loaded, or that is of another file's or place's.
        content,
    };
    Kind kind{};
    Range range;

    friend bool operator==(const Difference&, const Difference&) = default;
};
const char* to_string(Difference::Kind kind);

// Where the spaces differ, in ascending order. What they share is passed over, a whole subtree at
// once: of a snapshot and its space the cost is that of what was written since. Pages with frames
// of their own are compared by their bytes; a demand-zero page is zeros. Names are not compared.
// Thread safety: as Space::read; what is written meanwhile may be seen or not. Errors:
// invalid_argument (different numbers of levels, different stores), stale.
Result<std::vector<Difference>> differences(const Space& first, const Space& second);

}  // namespace holdfast
