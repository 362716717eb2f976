// What /proc/PID/maps and /proc/PID/status say.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/types.hpp"

namespace holdfast::image {

// One line of /proc/PID/maps.
struct ProcessMapping {
    Range range;
    Protection protection;  // with `u`
    bool shared = false;
    std::uint64_t file_offset = 0;
    std::uint64_t device = 0;  // as makedev(3) has it
    std::uint64_t inode = 0;   // 0 where no file is mapped
    std::string name;          // the path, or "[heap]" and its like, or nothing

    // Private memory that reads as zeros until it is written. What the kernel maps for itself, as
    // [vdso], has no inode either.
    bool is_anonymous() const;
};

// Lines that cannot be understood are errors: an import that leaves one out would be incomplete.
Result<std::vector<ProcessMapping>> parse_maps(const std::string& text);

struct ProcessStatus {
    pid_t process = 0;  // Tgid: differs from the id asked for if that was a thread's
    pid_t tracer = 0;   // 0 if nobody traces it
    char state = '?';   // R, S, D, T, t, Z, X
};
// Of a process or thread; not_found if there is none of this id.
Result<ProcessStatus> read_status(pid_t id);

// All of a file in /proc, which has no size beforehand.
Result<std::string> read_proc_file(const std::string& path);

}  // namespace holdfast::image
