// The classes of bugs that persistent-memory programs have, each with what is planted of it; the
// harness is judged by whether it catches them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "holdfast/crash.hpp"

namespace holdfast::crash {

struct MutantClass {
    unsigned number = 0;
    const char* name = "";
    // What is planted, and in what: "drop_flush in map_one".
    std::vector<std::string> instances;
};

// How an instance of a class fared.
struct MutantResult {
    unsigned class_number = 0;
    std::string class_name, instance;
    unsigned planted = 0, caught = 0;  // places of the instance
    std::uint64_t states = 0;          // to the first detection
    double seconds = 0;
    std::vector<Exploration> modes;  // that catch the first place which `full` catches
    std::string text;                // what was wrong
};

const std::vector<MutantClass>& mutant_classes();

struct MutantOptions {
    std::vector<unsigned> classes = {};  // all, if none is named
    Options explore = {};
    // Of each instance only until one place is caught, by full exploration.
    bool first_only = false;
    std::function<void(const MutantResult&)> done = {};  // after each instance
};

// Plants the classes and explores.
Result<std::vector<MutantResult>> run_mutants(const MutantOptions& options);

}  // namespace holdfast::crash
