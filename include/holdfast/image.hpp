// Bringing in address spaces from elsewhere: a live process, a core dump, a program file.
//
// Each import is one transaction: the new space exists with everything in it, or not at all.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "holdfast/error.hpp"
#include "holdfast/store.hpp"

namespace holdfast {

struct ImportReport {
    std::uint64_t mapped_bytes = 0;   // in the space
    std::uint64_t stored_bytes = 0;   // with a frame: pages that are not all zeros
    std::uint64_t skipped_bytes = 0;  // ranges that could not be read ([vvar], …)
    std::uint64_t entry_point = 0;    // of a program file; otherwise 0
    double seconds = 0;
};

struct ImportOptions {
    Levels levels = Levels::four;
    // Called from time to time with bytes done and bytes in all.
    std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};

// Copies every readable mapping of /proc/PID/maps, with its protection and name. The process is
// stopped by ptrace(2) while it is copied, all its threads, and goes on afterwards, also when the
// import fails. Vsyscall lies in the supervisor half and is skipped. Errors: not_found (no such
// process, or it ended meanwhile), permission_denied (ptrace), already_exists, no_space.
Result<ImportReport> import_process(Store& store, const std::string& space_name, pid_t pid,
                                    const ImportOptions& options = {});

// The PT_LOAD segments of an ELF core dump, with names from NT_FILE where it has that note.
Result<ImportReport> import_core(Store& store, const std::string& space_name,
                                 const std::string& path, const ImportOptions& options = {});

// The PT_LOAD segments of a program, at their linked addresses.
Result<ImportReport> import_elf(Store& store, const std::string& space_name,
                                const std::string& path, const ImportOptions& options = {});

}  // namespace holdfast
