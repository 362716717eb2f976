// Bringing in address spaces from elsewhere: a live process, a core dump, a program file; and
// writing one out as a core dump.
//
// Each import is one transaction: the new space exists with everything in it, or not at all.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/store.hpp"

namespace holdfast {

struct ImportReport {
    std::uint64_t mapped_bytes = 0;   // in the space
    std::uint64_t stored_bytes = 0;   // with a frame: pages that are not all zeros
    std::uint64_t skipped_bytes = 0;  // not mapped, because their bytes could not be had
    std::uint64_t entry_point = 0;    // of a program file; otherwise 0
    double seconds = 0;
};

struct ImportOptions {
    Levels levels = Levels::four;
    // Called about every 16 MiB, and at the end, with bytes done and bytes in all, counting zeros
    // and what is skipped. The caller waits meanwhile, though the call may come from another
    // thread; an exception that leaves it ends the import, and leaves the import too.
    std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};

// Copies every readable mapping of /proc/PID/maps, private or shared, with its protection (and
// `u`), its name and its offset in the file that is mapped. Frames hold copies: a shared mapping is
// not shared with anybody afterwards. `maps` of the new space shows the same lines, except that
// neighbours without a name and with the same protection become one. A thread's id stands for its
// process.
//
// The process is stopped by ptrace(2) while it is copied, all its threads, and goes on afterwards
// as it was, also when the import fails: it gets no signal, one that it was stopped by stays in
// force, and signals that arrive meanwhile are delivered when it goes on. Memory it never touched
// reads as zeros, and is neither read nor touched by this. (Untouched pages of a shared mapping
// whose file cannot be reached, as of anonymous shared memory, are recognised only by an importer
// with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; otherwise they are read, which makes the kernel
// find memory for them.)
//
// Not mapped, and counted as skipped: pages that nobody can read from outside, as [vvar], pages of
// devices, and pages behind the end of a mapped file. Not mapped and not counted: mappings that the
// process itself may not read, and [vsyscall], which lies in the supervisor half. Another process
// that shares the memory (CLONE_VM without CLONE_THREAD) is not stopped.
//
// Errors: invalid_argument (the calling process itself), not_found (no such process, or it ended
// while it was imported), permission_denied (ptrace), busy (a thread waits in the kernel and does
// not stop), already_exists, no_space, io.
Result<ImportReport> import_process(Store& store, const std::string& space_name, pid_t pid,
                                    const ImportOptions& options = {});

// The PT_LOAD segments of a 64-bit little-endian ELF core dump, as the kernel or gcore(1) writes
// it, with names from its note NT_FILE. Segments without PF_R are left out.
//
// What a segment has in memory and not in the dump comes from the file that was mapped there, as it
// is now, if it still has these pages; is counted as skipped if it has not, or if the pages were
// the kernel's own; and is zeros where no file was mapped. (So a dump that the program or
// /proc/PID/coredump_filter kept memory out of shows zeros there.) gcore leaves out unchanged
// segments of programs and libraries altogether; they come from their files in the same way, with
// the protection that the file asks for. And it calls everything readable, so that guard pages
// become readable zeros.
//
// Errors: not_found, permission_denied, invalid_argument (not an ELF core dump, or not a whole
// one), already_exists, no_space, io.
Result<ImportReport> import_core(Store& store, const std::string& space_name,
                                 const std::string& path, const ImportOptions& options = {});

// The PT_LOAD segments of a 64-bit little-endian ELF program, whatever its processor, as the
// kernel's loader lays them out: whole pages of the file at their linked addresses, zeros for .bss,
// and where two segments meet in one page, the later one's. Pages of the file have its path as
// their name. A position-independent program or shared library is moved to where the kernel puts it
// without randomisation, 0x555555554000 (0x2aaaaaa000 in a space of three levels); `entry_point`
// is moved with it. The interpreter is not loaded and nothing is relocated. Segments without PF_R
// are skipped.
//
// Errors: as import_core.
Result<ImportReport> import_elf(Store& store, const std::string& space_name,
                                const std::string& path, const ImportOptions& options = {});

struct ExportOptions {
    // Damaged pages are left out, and told in `lost`, instead of being an error.
    bool salvage = false;
    // As in ImportOptions.
    std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
};

struct ExportReport {
    std::uint64_t mapped_bytes = 0;   // in the space, what is lost included
    std::uint64_t written_bytes = 0;  // to the file; the rest are holes that read as zeros
    std::vector<Range> lost;          // that the file says nothing of; ascending, joined
    double seconds = 0;
};

// Writes a space as an ELF core dump of an x86-64 process: a PT_LOAD segment for each mapping with
// its protection, the file's names and offsets in its note NT_FILE, and one thread, whose registers
// are zeros, since debuggers want one. gdb and import_core read it. Pages without a frame, and
// pages of zeros, are holes of the file.
//
// The file is written beside its place and then moved there: it is whole, or what was there before.
// A lost range is a segment of its own, with its size in memory and none in the file.
//
// Errors: damaged (the first damaged page, named; without `salvage` only), stale,
// permission_denied, no_space, io.
Result<ExportReport> export_core(const Space& space, const std::string& path,
                                 const ExportOptions& options = {});

}  // namespace holdfast
