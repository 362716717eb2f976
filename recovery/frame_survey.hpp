// The part of a survey that looks at frames (survey.hpp), when everything that leads to them has
// been counted: their metadata against the counts.
#pragma once

#include <cstdint>
#include <functional>

#include "recovery/frame_uses.hpp"
#include "recovery/survey.hpp"

namespace holdfast::recovery {

// `between` is called now and then, with how many more frames were looked at.
void survey_frames(const memory::PhysicalMemory& memory, const FrameUses& uses,
                   const VerifyOptions& options, Survey& survey,
                   const std::function<void(std::uint64_t frames)>& between);

}  // namespace holdfast::recovery
