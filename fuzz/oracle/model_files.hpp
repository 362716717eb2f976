// Files of the model. Of each page of a file, and of a frame, the model has the first word; all
// else is zeros.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace holdfast::oracle {

struct ModelFile {
    // What a file holds, and how often it was written, which is its time of modification.
    struct Content {
        std::vector<std::uint64_t> words;  // of each page
        std::uint64_t version = 0;
        friend bool operator==(const Content&, const Content&) = default;
    };
    Content now;
    Content durable;                                // what of it is left when power fails
    std::map<std::uint64_t, std::uint64_t> loaded;  // by page: the frame of all who share it

    static ModelFile of(std::uint64_t pages);
};
using ModelFiles = std::map<std::string, ModelFile>;

// The path under which a store knows such a file.
std::string path_of_model_file(const std::string& name);

}  // namespace holdfast::oracle
