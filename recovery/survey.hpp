// One look at everything in a store: what is damaged, and where, so that `verify` can tell and
// `repair` can act. The one home of the invariants I1 to I9 (holdfast/verify.hpp).
//
// Tables are visited level by level from the top: the tables of one level are shared out among the
// threads, and what they link to is gathered in order by the calling thread. So the result does not
// depend on the threads, and a table that several entries link to is looked into once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "format/frame_metadata.hpp"
#include "holdfast/verify.hpp"
#include "memory/physical_memory.hpp"
#include "pool/pool.hpp"
#include "table/limbo_stack.hpp"

namespace holdfast::recovery {

// What would set a damage right.
enum class Remedy : std::uint8_t {
    none,              // nothing that is known
    empty_build_slot,  // `number`
    remove_name,       // `key` in the directory
    remove_space,      // the same, and what is left of the space record `frame`
    remake_metadata,   // of `frame`: a space record, or a device's
    adopt_space,       // the space record `frame` gets its name back
    empty_entry,       // `number` of the table `frame`
    share_entry,       // the same: it is to permit no writing
    cut_limbo,         // all of it: what it held is found as leaked
    trim_annotation,   // `key` of the space record `frame`
    clear_frame,       // `frame`, that of zeros
    // What follows is only to be done when nothing above is left: damage above makes frames seem
    // leaked that are not.
    set_references,  // of `frame`, to `number`
    free_frames,     // `number` of them from `frame` on
};

struct Damage {
    Finding finding;
    Remedy remedy = Remedy::none;
    FrameNumber frame = {};
    std::uint64_t number = 0;
    std::string key = {};
    // Of empty_entry: so many slots from `number` on.
    unsigned slots = 1;
    // Of share_entry: what the entry leads to.
    FrameNumber target = {};
    // It is about how often `frame` is used: by spaces, and so often by limbo.
    bool counts_uses = false;
    std::uint64_t uses_in_limbo = 0;
    // Pages that are well but for their region, and may come back with it.
    std::optional<FaultKind> loss = {};
};

struct Survey {
    VerifyReport report;  // its findings are those of `damages`
    std::vector<Damage> damages;
    bool has_file_pages = false;  // whether any page of a space is in a file, and not loaded
};

// Nothing may change meanwhile. Changes nothing itself, also on a damaged store.
Survey survey(const memory::PhysicalMemory& memory, const pool::OrderedMap& directory,
              const table::LimboStack& limbo, const VerifyOptions& options);

const char* name_of(format::FrameKind kind);

}  // namespace holdfast::recovery
