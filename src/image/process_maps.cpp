#include "image/process_maps.hpp"

#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <sstream>

#include "image/file.hpp"

namespace holdfast::image {

bool ProcessMapping::is_anonymous() const {
    return inode == 0 && !shared &&
           (name.empty() || name == "[heap]" || name.starts_with("[stack") ||
            name.starts_with("[anon:"));
}

Result<std::vector<ProcessMapping>> parse_maps(const std::string& text) {
    std::vector<ProcessMapping> mappings;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::uint64_t start = 0, end = 0, offset = 0, inode = 0;
        unsigned major_number = 0, minor_number = 0;
        char permissions[5] = {};
        int name_at = 0;
        const int fields = std::sscanf(
            line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &start,
            &end, permissions, &offset, &major_number, &minor_number, &inode, &name_at);
        if (fields != 7 || end <= start || std::strlen(permissions) != 4)
            return fail(ErrorCode::io,
                        fmt::format("/proc/PID/maps has a line of an unknown form: \"{}\"", line));
        ProcessMapping mapping;
        mapping.range = {VirtAddr(start), end - start};
        mapping.protection = protection::u;
        if (permissions[0] == 'r') mapping.protection = mapping.protection | protection::r;
        if (permissions[1] == 'w') mapping.protection = mapping.protection | protection::w;
        if (permissions[2] == 'x') mapping.protection = mapping.protection | protection::x;
        mapping.shared = permissions[3] == 's';
        mapping.file_offset = offset;
        mapping.device = makedev(major_number, minor_number);
        mapping.inode = inode;
        mapping.name = line.substr(static_cast<std::size_t>(name_at));
        mappings.push_back(std::move(mapping));
    }
    return mappings;
}

Result<std::string> read_proc_file(const std::string& path) {
    auto file = File::open_special(path);
    if (!file) return std::unexpected(std::move(file.error()));
    std::string text;
    std::array<std::byte, 65536> buffer;
    for (;;) {
        auto size_bytes = file->read(text.size(), buffer);
        if (!size_bytes) return std::unexpected(std::move(size_bytes.error()));
        text.append(reinterpret_cast<const char*>(buffer.data()), *size_bytes);
        if (*size_bytes < buffer.size()) return text;
    }
}

Result<ProcessStatus> read_status(pid_t id) {
    auto text = read_proc_file(fmt::format("/proc/{}/status", id));
    if (!text)
        return fail(ErrorCode::not_found,
                    fmt::format("no process has the id {}; `ps -e` lists those there are", id));
    ProcessStatus status;
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string key;
        words >> key;
        if (key == "Tgid:") words >> status.process;
        if (key == "TracerPid:") words >> status.tracer;
        if (key == "State:") words >> status.state;
    }
    return status;
}

}  // namespace holdfast::image
