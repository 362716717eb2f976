// What an application may keep across a restart, in place of a pointer: a handle to a space, or to
// a range of one. Resolved later, by any process, it leads to what it was taken of, under whatever
// name that has now, or is refused with `stale` and a sentence that says what became of it; never
// to what is there instead.
//
//     std::string kept = space.handle({address, size})->to_string();    // into a file, a table, …
//     …
//     auto range = store.resolve(*Handle::parse(kept));                 // in another process
//
// A handle of a space is good until the space is removed. A handle of a range is good until a page
// of the range is unmapped, also if something is mapped there again; protecting, writing, renaming
// the space and moving regions leave it good. Both name the store by its UUID. What they cannot
// tell is a pool from an older copy of itself: see region.hpp about copies.
//
// Handles are plain values; all functions here may be called from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "holdfast/error.hpp"
#include "holdfast/region.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

class Handle {
  public:
    // "hf1-" and hexadecimal digits, the last of which check the others: one line, safe in any
    // file.
    std::string to_string() const;
    // invalid_argument if it is not, to the letter, what to_string made.
    static Result<Handle> parse(std::string_view text);

    // Of the whole space if its size is 0.
    Range range() const { return range_; }
    const Uuid& store() const { return store_; }

    friend bool operator==(const Handle&, const Handle&) = default;

    // What it was taken of; for the store.
    struct Mark {
        std::uint64_t record = 0;      // the space record's frame, by its home number
        std::uint32_t owner = 0;       // the space's lineage
        std::uint16_t generation = 0;  // of that frame
        std::uint64_t created = 0;     // the space's boot epoch
        std::uint64_t range = 0;       // the range's mark, 0 for none
        friend bool operator==(const Mark&, const Mark&) = default;
    };
    Handle(const Uuid& store, const Mark& mark, Range range)
        : store_(store), mark_(mark), range_(range) {}
    const Mark& mark() const { return mark_; }

  private:
    Uuid store_{};
    Mark mark_;
    Range range_;
};

}  // namespace holdfast
