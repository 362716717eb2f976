// An ELF file as the imports need it: its segments and, in a core dump, the files that were mapped.
// libelf reads it.
#pragma once

#include <gelf.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/types.hpp"
#include "image/file.hpp"
#include "image/image_writer.hpp"

namespace holdfast::image {

// A file that was mapped in the process that left a core dump (its note NT_FILE).
struct MappedFile {
    Range range;
    std::uint64_t file_offset = 0;
    std::string path;
};

class ElfFile {
  public:
    // 64-bit and little-endian, or an error that says what it is instead.
    static Result<ElfFile> open(const std::string& path);

    const File& file() const { return file_; }
    const GElf_Ehdr& header() const { return header_; }

    // Those with a size in memory. Errors: invalid_argument for a file that ends before its
    // segments do, for a segment that wraps around, and for a file without any.
    Result<std::vector<GElf_Phdr>> loadable_segments() const;
    // In ascending order; empty if there is no such note.
    Result<std::vector<MappedFile>> mapped_files() const;

  private:
    ElfFile(File file, Elf* elf) : file_(std::move(file)), elf_(elf, elf_end) {}
    Result<std::vector<GElf_Phdr>> segments() const;

    File file_;
    std::unique_ptr<Elf, int (*)(Elf*)> elf_;
    GElf_Ehdr header_{};
};

// The protection that a segment's flags ask for, with `u`.
Protection segment_protection(const GElf_Phdr& segment);

// Puts bytes of a file to `range`: `size_bytes` of them from `file_offset` on, then zeros.
Result<void> put_from_file(ImageWriter& writer, const File& file, std::uint64_t file_offset,
                           std::uint64_t size_bytes, const Part& part, Range range);

}  // namespace holdfast::image
