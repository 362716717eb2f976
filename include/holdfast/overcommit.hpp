// How much may be promised: the overcommit policy of a store, after Linux's three
// (Documentation/mm/overcommit-accounting).
//
//     set_overcommit(store, {.policy = OvercommitPolicy::never, .ratio_percent = 80});
//     space.map(range, protection::rw, {.lazy = true});   // no_space: more than could be kept
//
// What is counted is the *commit charge*: a page of 4 KiB for each that is mapped private and
// writable, whether it has a frame already or gets one by its first write. A fork is charged for
// all that it could copy, as a space of its own; so is a stack, page by page as it grows. Not
// counted are guards, a stack's room, pages that cannot be written (protect charges them when they
// can), pages that are mapped shared, snapshots, which nobody writes, and tables. A
// private page of a file (file.hpp) counts from when it is loaded, and is not refused then.
//
// The policy is the store's, on the medium: it holds after a restart until another is set. The
// count is not on the medium. Under `never` it is worked out by the first call that needs it after
// opening, proportional to all tables, and kept exact from then on; unmapping then costs a look at
// the tables of the range. The other policies count nothing.
//
// Thread safety: all functions.
#pragma once

#include <cstdint>

#include "holdfast/error.hpp"
#include "holdfast/store.hpp"

namespace holdfast {

enum class OvercommitPolicy : std::uint8_t {
    heuristic = 0,  // a call that asks for more than all frames of the store is refused
    always = 1,     // nothing is refused before frames run out; a new store has this
    never = 2,      // the charge of all spaces stays within a part of the store's frames
};

// "heuristic", "always", "never".
const char* to_string(OvercommitPolicy policy);

struct Overcommit {
    OvercommitPolicy policy = OvercommitPolicy::always;
    // Of `never`: the part of all frames in attached regions that may be charged. The rest is for
    // tables, records and whatever else takes frames. More than 100 can be meant.
    std::uint32_t ratio_percent = 50;

    friend bool operator==(const Overcommit&, const Overcommit&) = default;
};

// One commit, of one word. What is charged already stays so, even if it is more than the limit.
// Errors: invalid_argument (a ratio of 0, or of more than 10,000).
Result<void> set_overcommit(Store& store, const Overcommit& overcommit);

struct CommitAccount {
    Overcommit overcommit;
    std::uint64_t committed_bytes = 0;  // the charge of all spaces
    std::uint64_t limit_bytes = 0;      // what `never` permits, or would
};
// Counts all of it, but under `never`.
CommitAccount commit_account(const Store& store);

}  // namespace holdfast
