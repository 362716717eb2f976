#include "judge/scratch_folder.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

namespace holdfast::crash {
namespace {
constexpr std::string_view kScratchPrefix = "holdfast-crash-";
}

ScratchFolder::ScratchFolder() {
    namespace fs = std::filesystem;
    std::error_code ignored;
    for (const auto& item : fs::directory_iterator("/dev/shm", ignored)) {
        const std::string name = item.path().filename();
        if (!name.starts_with(kScratchPrefix)) continue;
        const pid_t process = std::atoi(name.c_str() + kScratchPrefix.size());
        if (process > 0 && kill(process, 0) != 0 && errno == ESRCH)
            fs::remove_all(item.path(), ignored);
    }
    std::string pattern = fmt::format("/dev/shm/{}{}-XXXXXX", kScratchPrefix, getpid());
    if (mkdtemp(pattern.data()) != nullptr) path_ = pattern;
}

ScratchFolder::~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

Result<std::vector<std::byte>> read_file(const std::string& path) {
    const auto cannot = [&](const std::string& why) {
        return fail(ErrorCode::io, fmt::format("cannot read {}: {}", path, why));
    };
    std::error_code error;
    const std::uint64_t size = std::filesystem::file_size(path, error);
    if (error) return cannot(error.message());
    std::vector<std::byte> bytes(size);
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
    if (!file) return cannot(std::strerror(errno));
    return bytes;
}

}  // namespace holdfast::crash
