// The inputs that are kept for the fuzzers (fuzz/corpus) go through their targets once, and so do
// some that each test makes up. `./dev fuzz` goes further.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <vector>

#include "support/temporary_pool.hpp"
#include "targets/targets.hpp"

namespace holdfast::crash {
namespace {

using Target = std::string (*)(std::span<const std::uint8_t>);
using Input = std::vector<std::uint8_t>;

void run_corpus(const std::string& name, Target target) {
    std::set<std::filesystem::path> paths;
    for (const auto& item : std::filesystem::directory_iterator(HOLDFAST_CORPUS + name))
        paths.insert(item.path());
    EXPECT_FALSE(paths.empty());
    for (const std::filesystem::path& path : paths) {
        std::ifstream file(path, std::ios::binary);
        const Input input{std::istreambuf_iterator<char>(file), {}};
        EXPECT_EQ(target(input), "") << path;
    }
}

void run_random(Target target, std::size_t size) {
    std::mt19937_64 random(test::test_seed());
    for (int i = 0; i < 200; ++i) {
        Input input(1 + random() % size);
        for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
        std::string text;
        for (const std::uint8_t byte : input) text += fmt::format("{:02x}", byte);
        EXPECT_EQ(target(input), "") << text;
    }
}

TEST(Corpus, Structures) { run_corpus("structures", run_structures); }
TEST(Corpus, Operations) { run_corpus("operations", run_operations); }
TEST(Corpus, RandomStructures) { run_random(run_structures, 60); }
TEST(Corpus, RandomOperations) { run_random(run_operations, 200); }

}  // namespace
}  // namespace holdfast::crash
