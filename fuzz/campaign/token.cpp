#include "campaign/token.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace holdfast::crash {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::size_t begin = 0;
    for (;;) {
        const std::size_t end = text.find(separator, begin);
        parts.push_back(text.substr(begin, end - begin));
        if (end == std::string::npos) return parts;
        begin = end + 1;
    }
}

template <typename Number>
bool parse_number(const std::string& text, int base, Number& number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
    return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

}  // namespace

TokenPart TokenPart::of(const CrashWindow& window, const Choice& choice, bool base_is_visible) {
    TokenPart part{.end_event = window.end_event, .base_is_visible = base_is_visible, .lines = {}};
    for (std::size_t i = 0; i < choice.size(); ++i) {
        const auto base = base_is_visible ? window.lines[i].candidates.size() - 1 : 0;
        if (choice[i] != base) part.lines[window.lines[i].line] = choice[i];
    }
    return part;
}

TokenPart TokenPart::of(const CrashWindow& window, const Choice& choice) {
    TokenPart visible = of(window, choice, true), durable = of(window, choice, false);
    return visible.lines.size() <= durable.lines.size() ? visible : durable;
}

Result<Choice> TokenPart::choice(const CrashWindow& window) const {
    Choice choice;
    std::size_t found = 0;
    for (const PendingLine& line : window.lines) {
        const auto named = lines.find(line.line);
        const std::size_t last = line.candidates.size() - 1;
        std::size_t candidate = base_is_visible ? last : 0;
        if (named != lines.end()) {
            ++found;
            candidate = named->second;
        }
        if (candidate > last) --found;
        choice.push_back(static_cast<std::uint16_t>(std::min(candidate, last)));
    }
    if (found != lines.size())
        return fail(
            ErrorCode::invalid_argument,
            "the token names lines that are not undetermined there: it is of another build");
    return choice;
}

std::string Token::to_string() const {
    std::string text =
        fmt::format("hf1:{}:{:x}:{}", subject, fingerprint, platform == Platform::adr ? 'a' : 'e');
    for (const TokenPart& part : parts) {
        text += fmt::format(":{}:{}:", part.end_event, part.base_is_visible ? 'v' : 'd');
        bool first = true;
        for (const auto& [line, candidate] : part.lines) {
            text += fmt::format("{}{:x}={}", first ? "" : ",", line, candidate);
            first = false;
        }
    }
    return text;
}

Result<Token> Token::parse(const std::string& text) {
    const auto broken = [&] {
        return fail(ErrorCode::invalid_argument, fmt::format("\"{}\" is no token; one looks like "
                                                             "hf1:map_one:5d1c…:a:212:v:3c40=0",
                                                             text));
    };
    const std::vector<std::string> fields = split(text, ':');
    if (fields.size() < 7 || fields[0] != "hf1" || (fields.size() - 4) % 3 != 0) return broken();
    Token token;
    token.subject = fields[1];
    if (!parse_number(fields[2], 16, token.fingerprint)) return broken();
    if (fields[3] != "a" && fields[3] != "e") return broken();
    token.platform = fields[3] == "a" ? Platform::adr : Platform::eadr;
    for (std::size_t at = 4; at < fields.size(); at += 3) {
        TokenPart part;
        if (!parse_number(fields[at], 10, part.end_event)) return broken();
        if (fields[at + 1] != "v" && fields[at + 1] != "d") return broken();
        part.base_is_visible = fields[at + 1] == "v";
        if (!fields[at + 2].empty()) {
            for (const std::string& pair : split(fields[at + 2], ',')) {
                const std::vector<std::string> sides = split(pair, '=');
                LineNumber line = 0;
                std::uint16_t candidate = 0;
                if (sides.size() != 2 || !parse_number(sides[0], 16, line) ||
                    !parse_number(sides[1], 10, candidate))
                    return broken();
                part.lines[line] = candidate;
            }
        }
        token.parts.push_back(part);
    }
    return token;
}

}  // namespace holdfast::crash
