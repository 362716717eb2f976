// A full check of a store: everything that open leaves to the first walk, and all that it implies.
//
// The invariants, by name; `verify` reports each place where one does not hold:
//   I1 entry      every entry's tag fits its bits, slot, level and the target frame's generation
//   I2 table      a table frame is linked at the level, by the owner and at the index it says
//   I3 reference  a frame's reference count is the number of entries that point to it (those that
//                 only share a supervisor half, supervisor.hpp, do not count)
//   I4 account    reachable + limbo + building + free = all frames; none is two of these
//   I5 metadata   every frame metadata record and every space record passes its checksum
//   I6 directory  every name leads to one space record, and every space record has one name
//   I7 annotation names and files lie over mapped pages, in order, without overlap; each page that
//   is
//                 in a file lies under one that says in which, and the store knows that file
//   I8 superblock the superblock's words and the records of its regions pass their checks
//   I9 sharing    no path permits writing to a table or page that others reach, unless it is mapped
//                 to be shared
//
// Tables are of one level less than the table that links them, so that one which leads back to
// itself is a finding of I2, and the check ends.
// No invariant is broken by a "lost page", whose tables are well and whose region, or file, is out
// of reach; it is reported like that. Pages of files that are in the pool are reported under "file"
// and the path, too.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

struct Finding {
    std::string what;    // the invariant: "I1 entry", …
    std::string space;   // the space concerned, if one is
    Range range;         // what is lost by it, if known; all of a space if its root is
    std::string detail;  // a sentence with frame and entry; of a frame used twice, with each place

    friend bool operator==(const Finding&, const Finding&) = default;
};

// Pages that may be written and executed: no damage, but seldom meant.
struct WritableExecutable {
    std::string space;
    Range range;

    friend bool operator==(const WritableExecutable&, const WritableExecutable&) = default;
};

struct VerifyReport {
    std::vector<Finding> findings;                        // sorted by invariant, space and address
    std::vector<WritableExecutable> writable_executable;  // sorted; if it was asked for
    std::uint64_t tables = 0;
    std::uint64_t mapped_pages = 0;  // with a frame, in all spaces, and in files
    std::uint64_t frames_total = 0, frames_reachable = 0, frames_limbo = 0, frames_building = 0,
                  frames_free = 0;
    // Of those reachable or in limbo: "data", "table_1", …
    std::map<std::string, std::uint64_t> frames_by_kind;

    bool clean() const { return findings.empty(); }
};

// How far a check has come: first all tables are looked at, whose number nobody knows before, then
// all frames.
struct VerifyProgress {
    std::uint64_t tables = 0;
    std::uint64_t frames = 0, frames_total = 0;
};

struct VerifyOptions {
    unsigned threads = 0;  // that share the work; 0: as many as there are processors
    bool list_writable_executable = false;
    // Called now and then, by the thread that called `verify`.
    std::function<void(const VerifyProgress&)> on_progress = {};
};

}  // namespace holdfast
