#include "output.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace holdfast::tool {

void write_output(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t written = write(STDOUT_FILENO, bytes.data(), bytes.size());
        if (written >= 0)
            bytes = bytes.subspan(static_cast<std::size_t>(written));
        else if (errno != EINTR)
            throw OutputError(errno);
    }
}

void print_json(const Json& json) {
    print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

ExitStatus done(const Context& context) {
    if (context.json) print_json(Json::object());
    return ExitStatus::well;
}

void complain(std::string_view message) {
    std::string line = fmt::format("holdfast: {}", message);
    // One line, whatever the message quotes.
    std::replace(line.begin(), line.end(), '\n', ' ');
    fmt::print(stderr, "{}\n", line);
}

void report(bool json, std::string_view code, std::string_view message) {
    complain(message);
    if (json) print_json({{"error", {{"code", code}, {"message", message}}}});
}

}  // namespace holdfast::tool
