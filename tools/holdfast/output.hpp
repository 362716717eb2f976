// Answers: text for people, JSON for scripts, one line on standard error for what went wrong.
#pragma once

#include <fmt/format.h>
#include <holdfast/error.hpp>

#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "context.hpp"

namespace holdfast::tool {

// Fields stand in the order in which they are given.
using Json = nlohmann::ordered_json;

// Standard output is gone or full. Thrown, since nothing that a command could do next would help;
// main() catches it.
class OutputError : public std::exception {
  public:
    explicit OutputError(int error_number) : error_number_(error_number) {}
    int error_number() const { return error_number_; }

  private:
    int error_number_;
};

// All of the bytes, however many calls that takes. Throws OutputError.
void write_output(std::span<const std::byte> bytes);

// Formats to standard output.
template <typename... Arguments>
void print(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    const std::string text = fmt::format(format, std::forward<Arguments>(arguments)...);
    write_output(std::as_bytes(std::span(text)));
}

// Bytes that are not UTF-8, as a file's name may have, are replaced.
void print_json(const Json& json);

// The answer of a command that only does something: nothing in text, an empty object in JSON.
ExitStatus done(const Context& context);

// `holdfast: MESSAGE` on standard error.
void complain(std::string_view message);

// That, and {"error":{"code","message"}} on standard output if JSON was asked for.
void report(bool json, std::string_view code, std::string_view message);

}  // namespace holdfast::tool
