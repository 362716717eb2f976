// The model's files in the place of the operating system's (memory/backing_file.hpp): they live in
// memory, so that a crash can be tried at each step of what is done to them, and any number of
// processes can have each its own.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "memory/backing_file.hpp"
#include "oracle/model_files.hpp"

namespace holdfast::oracle {

// While it lives and is installed, all files are those that it has.
class ModelFileSystem final : public memory::FileSystem {
  public:
    ~ModelFileSystem() override;
    void install();
    void set(const ModelFiles& files, bool power_failed = false);
    ModelFile::Content content(const std::string& name) const { return contents_.at(name); }
    // Called after each step that a crash may follow, and which the pool does not see.
    std::function<void()> on_step = {};

    Result<std::string> canonical(const std::string& path) override;
    Result<std::unique_ptr<memory::BackingFile>> open(const std::string& path,
                                                      bool to_write) override;

  private:
    class File;
    std::map<std::string, ModelFile::Content> contents_;
};

}  // namespace holdfast::oracle
