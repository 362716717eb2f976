// One line that names a state: which subject, which trace, where power failed, and what each line
// held.
//
//     hf1:SUBJECT:FINGERPRINT:PLATFORM:EVENT:BASE:LINE=CANDIDATE,…[:EVENT:BASE:LINE=CANDIDATE,…]
//
// FINGERPRINT is the trace's, in hexadecimal, so that a token of another build is noticed. BASE
// says what lines hold that are not named: `v` what was visible, `d` what was durable. A second
// part is a crash in the recovery of the first.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "explore/choose_states.hpp"
#include "explore/crash_windows.hpp"
#include "holdfast/crash.hpp"

namespace holdfast::crash {

struct TokenPart {
    EventIndex end_event = 0;
    bool base_is_visible = true;
    std::map<LineNumber, std::uint16_t> lines;

    // The part that names a choice of a window's, with as few lines as either base allows.
    static TokenPart of(const CrashWindow& window, const Choice& choice);
    static TokenPart of(const CrashWindow& window, const Choice& choice, bool base_is_visible);
    // The other way round; an error if the window has no such lines.
    Result<Choice> choice(const CrashWindow& window) const;
};

struct Token {
    std::string subject;
    std::uint64_t fingerprint = 0;
    Platform platform = Platform::adr;
    std::vector<TokenPart> parts;

    std::string to_string() const;
    static Result<Token> parse(const std::string& text);
};

}  // namespace holdfast::crash
