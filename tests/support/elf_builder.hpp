// Small ELF files, made to order and wrong to order.
#pragma once

#include <elf.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace holdfast::test {

// A folder that is gone after the test.
class ScratchFolder {
  public:
    ScratchFolder() : path_((std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string()) {
        if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "mkdtemp: " << path_;
    }
    ~ScratchFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;

    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

inline std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string write_file(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
}

// A byte that tells its place in the file; never zero.
inline char file_byte(std::uint64_t offset) {
    return static_cast<char>(1 + (offset * 7 + offset / 4096 * 13) % 251);
}

class ElfBuilder {
  public:
    explicit ElfBuilder(std::uint16_t type) {
        std::memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = ELFCLASS64;
        header.e_ident[EI_DATA] = ELFDATA2LSB;
        header.e_ident[EI_VERSION] = EV_CURRENT;
        header.e_type = type;
        header.e_machine = EM_X86_64;
        header.e_version = EV_CURRENT;
        header.e_phoff = header.e_ehsize = sizeof header;
        header.e_phentsize = sizeof(Elf64_Phdr);
    }

    ElfBuilder& load(std::uint32_t flags, std::uint64_t address, std::uint64_t offset,
                     std::uint64_t file_bytes, std::uint64_t memory_bytes) {
        segments.push_back(
            {PT_LOAD, flags, offset, address, address, file_bytes, memory_bytes, 4096});
        return *this;
    }
    struct MappedFile {
        std::uint64_t start, end, page_offset;
        std::string path;
    };
    // NT_FILE, at this offset of the file.
    ElfBuilder& mapped_files(std::uint64_t offset, const std::vector<MappedFile>& files) {
        std::string words, names;
        const auto add = [&](std::uint64_t word) {
            words.append(reinterpret_cast<const char*>(&word), sizeof word);
        };
        add(files.size());
        add(4096);
        for (const MappedFile& file : files) {
            add(file.start);
            add(file.end);
            add(file.page_offset);
            names += file.path + '\0';
        }
        words += names;
        const Elf64_Nhdr note{5, static_cast<std::uint32_t>(words.size()), NT_FILE};
        note_bytes.assign(reinterpret_cast<const char*>(&note), sizeof note);
        note_bytes += std::string("CORE\0\0\0\0", 8) + words;
        note_bytes.resize((note_bytes.size() + 3) / 4 * 4);
        segments.push_back({PT_NOTE, 0, offset, 0, 0, note_bytes.size(), 0, 4});
        note_offset = offset;
        return *this;
    }

    // The file: `size_bytes` of `file_byte`, and over them what was asked for.
    std::string bytes(std::uint64_t size_bytes) {
        header.e_phnum = static_cast<std::uint16_t>(segments.size());
        std::string result(size_bytes, '\0');
        for (std::uint64_t i = 0; i < size_bytes; ++i) result[i] = file_byte(i);
        const std::size_t table_bytes = segments.size() * sizeof segments[0];
        result.replace(0, sizeof header, reinterpret_cast<const char*>(&header), sizeof header);
        result.replace(sizeof header, table_bytes, reinterpret_cast<const char*>(segments.data()),
                       table_bytes);
        if (!note_bytes.empty()) result.replace(note_offset, note_bytes.size(), note_bytes);
        return result;
    }

    Elf64_Ehdr header{};
    std::vector<Elf64_Phdr> segments;
    std::string note_bytes;
    std::uint64_t note_offset = 0;
};

}  // namespace holdfast::test
