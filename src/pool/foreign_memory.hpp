// Memory beside the pool: a file or device-DAX device of holdfast's own format, mapped whole, or
// anonymous memory of this process. Their bytes are written back by the same functions of Pool as
// the pool's own, which look up where an address belongs.
//
// Thread safety: as Pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "holdfast/error.hpp"

namespace holdfast::pool {

class ForeignMemory {
  public:
    // Makes a file of this size, which must not exist, or takes a device; its bytes are zero.
    // `sparse`: the file system gives it blocks when they are first written, all but those of the
    // first page, and a full one is then a SIGBUS. When it returns, file and directory entry are
    // durable. Nothing is left after an error.
    static Result<std::unique_ptr<ForeignMemory>> create_file(const std::string& path,
                                                              std::uint64_t size_bytes,
                                                              std::uint32_t file_mode, bool sparse,
                                                              bool emulate_pmem);
    // Errors: not_found, permission_denied, not_a_pool (a folder, or an empty file), io.
    static Result<std::unique_ptr<ForeignMemory>> open_file(const std::string& path,
                                                            bool emulate_pmem);
    // The file's bytes, and what this process makes of them: the file is only read, and keeps them.
    static Result<std::unique_ptr<ForeignMemory>> open_copy(const std::string& path);
    // Zeros that are gone with the process; `flush` has nothing to do.
    static Result<std::unique_ptr<ForeignMemory>> anonymous(std::uint64_t size_bytes);
    ~ForeignMemory();
    ForeignMemory(const ForeignMemory&) = delete;
    ForeignMemory& operator=(const ForeignMemory&) = delete;

    std::byte* data() const { return data_; }
    std::uint64_t size_bytes() const { return size_bytes_; }
    bool contains(const void* address) const {
        return static_cast<std::uint64_t>(static_cast<const std::byte*>(address) - data_) <
               size_bytes_;
    }

    void flush(const void* address, std::size_t size_bytes) const;
    void drain() const;
    void fill(void* destination, int byte, std::size_t size_bytes) const;
    void copy(void* destination, const void* source, std::size_t size_bytes) const;

  private:
    enum class Kind : std::uint8_t { pmem, file, own };
    ForeignMemory(std::byte* data, std::uint64_t size_bytes, Kind kind)
        : data_(data), size_bytes_(size_bytes), kind_(kind) {}
    static Result<std::unique_ptr<ForeignMemory>> map(const std::string& path, bool emulate_pmem);

    std::byte* data_;
    std::uint64_t size_bytes_;
    Kind kind_;
};

}  // namespace holdfast::pool
