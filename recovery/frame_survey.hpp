// The part of a survey that looks at frames (survey.hpp), when everything that leads to them has
// been counted: their metadata against the counts.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "recovery/frame_uses.hpp"
#include "recovery/survey.hpp"
#include "table/table_editor.hpp"

namespace holdfast::recovery {

// Frames one after the other that are in use alike, and that nothing leads to. Those of data and
// tables follow each other in their owner, too.
struct LeakedRun {
    FrameNumber first;
    std::uint64_t count = 0;
    format::FrameKind kind{};
    format::OwnerId owner = 0;
    std::uint64_t index = 0;  // of the first

    bool is_huge() const { return format::frames_of(kind) != 1; }
    bool has_place() const {
        return kind == format::FrameKind::data || is_huge() || format::is_table(kind);
    }
    // Which pages of the owner these were, or were below.
    table::PageRange pages() const;
    bool continued_by(const LeakedRun& next) const {
        return first + count == next.first && !is_huge() && kind == next.kind &&
               owner == next.owner && (!has_place() || index + count == next.index);
    }
    std::string to_string() const;
};

// `between` is called now and then, with how many more frames were looked at. Leaked frames are
// returned, and no damage yet.
std::vector<LeakedRun> survey_frames(const memory::PhysicalMemory& memory, const FrameUses& uses,
                                     const VerifyOptions& options, Survey& survey,
                                     const std::function<void(std::uint64_t frames)>& between);

}  // namespace holdfast::recovery
