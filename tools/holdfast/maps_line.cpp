#include "maps_line.hpp"

#include <fmt/format.h>

namespace holdfast::tool {

std::string maps_line(const Mapping& mapping) {
    // Nothing is there for an access that does not make the stack grow.
    const std::string protection =
        mapping.stack_room ? "---" : mapping.protection.to_string().substr(0, 3);
    std::string line = fmt::format("{:08x}-{:08x} {}{} {:08x} 00:00 0 ", mapping.range.start.bits(),
                                   mapping.range.end().bits(), protection,
                                   mapping.is_shared ? 's' : 'p', mapping.name_offset);
    if (mapping.name.empty()) return line;
    // proc(5) has the name in column 74, and escapes an end of line in it.
    if (line.size() < 73) line.resize(73, ' ');
    for (const char letter : mapping.name) {
        if (letter == '\n')
            line += "\\012";
        else
            line += letter;
    }
    return line;
}

}  // namespace holdfast::tool
