// A pool's image in memory, patched to a state and put back, at a cost that follows what differs
// and not the pool's size. The file has no name: nothing is left of it, whatever becomes of the
// process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "model/persistency.hpp"

namespace holdfast::crash {

class CrashImage {
  public:
    static Result<CrashImage> create(std::span<const std::byte> content);
    CrashImage(CrashImage&& other) noexcept;
    CrashImage& operator=(CrashImage&&) = delete;
    ~CrashImage();

    // For this process, its children, and other programs of the same user.
    const std::string& path() const { return path_; }
    std::uint64_t size_bytes() const { return base_.size(); }
    std::span<const std::byte> base() const { return base_; }
    std::span<const std::byte> content() const { return {mapped_, base_.size()}; }

    // Changes the base, from which states are patched and to which they are put back.
    void set_base(LineNumber line, const LineBytes& bytes);
    void patch(LineNumber line, const LineBytes& bytes);
    // The same for any bytes; what their lines hold beside them stays as it is.
    void patch_bytes(std::uint64_t offset, std::span<const std::byte> bytes);
    // Puts back the pages (numbers) and all that was patched.
    void restore(const std::vector<std::uint64_t>& pages);
    void restore_all();
    // The same for few changes that nobody has noted: reads everything, writes what differs.
    void restore_by_comparing();

  private:
    CrashImage() = default;
    int file_ = -1;
    std::byte* mapped_ = nullptr;
    std::vector<std::byte> base_;
    std::vector<LineNumber> patched_;
    std::string path_;
};

}  // namespace holdfast::crash
