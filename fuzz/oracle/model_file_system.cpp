#include "oracle/model_file_system.hpp"

#include <fmt/format.h>

#include <cstring>
#include <iterator>
#include <optional>

#include "holdfast/types.hpp"

namespace holdfast::oracle {
namespace {

// The name of the file of this path.
std::optional<std::string> name_of(const std::string& path) {
    const std::string folder = path_of_model_file("");
    if (!path.starts_with(folder)) return std::nullopt;
    return path.substr(folder.size());
}

Error no_file(const std::string& path) {
    return {ErrorCode::not_found, fmt::format("{}: the model has no such file", path)};
}

}  // namespace

class ModelFileSystem::File final : public memory::BackingFile {
  public:
    File(ModelFileSystem& files, ModelFile::Content& content, std::uint64_t inode)
        : files_(files), content_(content), inode_(inode) {}

    Result<memory::FileIdentity> identity() override {
        return memory::FileIdentity{.device = 1,
                                    .inode = inode_,
                                    .size_bytes = content_.words.size() * kPageSize,
                                    .modified_ns = static_cast<std::int64_t>(content_.version)};
    }
    Result<void> read(std::uint64_t offset, std::span<std::byte> destination) override {
        std::memset(destination.data(), 0, destination.size());
        const std::uint64_t page = offset / kPageSize;
        if (page < content_.words.size() && destination.size() >= sizeof(std::uint64_t))
            std::memcpy(destination.data(), &content_.words[page], sizeof(std::uint64_t));
        return {};
    }
    Result<void> write(std::uint64_t offset, std::span<const std::byte> source) override {
        std::memcpy(&content_.words.at(offset / kPageSize), source.data(), sizeof(std::uint64_t));
        ++content_.version;
        if (files_.on_step) files_.on_step();
        return {};
    }
    Result<void> sync() override {
        if (files_.on_step) files_.on_step();
        return {};
    }

  private:
    ModelFileSystem& files_;
    ModelFile::Content& content_;
    std::uint64_t inode_;
};

ModelFileSystem::~ModelFileSystem() {
    if (&memory::file_system() == this) memory::replace_file_system(nullptr);
}

void ModelFileSystem::install() { memory::replace_file_system(this); }

void ModelFileSystem::set(const ModelFiles& files, bool power_failed) {
    contents_.clear();
    for (const auto& [name, file] : files) contents_[name] = power_failed ? file.durable : file.now;
}

Result<std::string> ModelFileSystem::canonical(const std::string& path) {
    const auto name = name_of(path);
    if (name && contents_.contains(*name)) return path;
    return std::unexpected(no_file(path));
}

Result<std::unique_ptr<memory::BackingFile>> ModelFileSystem::open(const std::string& path, bool) {
    const auto name = name_of(path);
    const auto found = name ? contents_.find(*name) : contents_.end();
    if (found == contents_.end()) return std::unexpected(no_file(path));
    const auto inode = 1 + static_cast<std::uint64_t>(std::distance(contents_.begin(), found));
    return std::make_unique<File>(*this, found->second, inode);
}

}  // namespace holdfast::oracle
