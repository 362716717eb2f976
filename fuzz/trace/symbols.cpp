#include "trace/symbols.hpp"

#include <cxxabi.h>
#include <elfutils/libdwfl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>

namespace holdfast::crash {
namespace {

std::string demangled(const char* name) {
    int status = 0;
    char* const text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
    std::string result = status == 0 ? text : name;
    std::free(text);
    // Arguments make a line unreadable.
    const std::size_t bracket = result.find('(');
    if (bracket != std::string::npos && bracket != 0 && !result.starts_with("(")) {
        const bool nested = result.find("(anonymous namespace)") != std::string::npos ||
                            result.find("{lambda") != std::string::npos;
        if (!nested) result.resize(bracket);
    }
    return result;
}

// A return address is that of the next instruction; the innermost is the store's own.
std::uint64_t address_in(const Event& event, std::size_t frame) {
    return frame == 0 ? event.stack[frame] : event.stack[frame] - 1;
}

}  // namespace

struct Symbols::State {
    Dwfl_Callbacks callbacks{};
    std::map<std::uint32_t, Dwfl*> processes;  // each has its own addresses

    Dwfl_Module* module_of(std::uint64_t address, std::uint32_t process) const {
        const auto found = processes.find(process);
        return found == processes.end() ? nullptr : dwfl_addrmodule(found->second, address);
    }
};

Symbols::Symbols(const std::vector<Module>& modules) : state_(std::make_unique<State>()) {
    state_->callbacks.find_elf = dwfl_build_id_find_elf;
    state_->callbacks.find_debuginfo = dwfl_standard_find_debuginfo;
    state_->callbacks.section_address = dwfl_offline_section_address;
    for (const Module& module : modules) {
        std::error_code ignored;
        if (!std::filesystem::is_regular_file(module.path, ignored)) continue;
        Dwfl*& process = state_->processes[module.process];
        if (process == nullptr) {
            process = dwfl_begin(&state_->callbacks);
            if (process == nullptr) {
                state_->processes.erase(module.process);
                continue;
            }
            dwfl_report_begin(process);
        }
        dwfl_report_elf(process, module.path.c_str(), module.path.c_str(), -1, module.loaded_at,
                        false);
    }
    for (const auto& [number, process] : state_->processes)
        dwfl_report_end(process, nullptr, nullptr);
}

Symbols::~Symbols() {
    for (const auto& [number, process] : state_->processes) dwfl_end(process);
}

std::string Symbols::name(std::uint64_t address, std::uint32_t process) const {
    Dwfl_Module* const module = state_->module_of(address, process);
    if (module == nullptr) return fmt::format("{:#x}", address);
    const char* const function = dwfl_module_addrname(module, address);
    std::string text = function != nullptr ? demangled(function) : fmt::format("{:#x}", address);
    int line = 0;
    Dwfl_Line* const source = dwfl_module_getsrc(module, address);
    const char* const file = source == nullptr
                                 ? nullptr
                                 : dwfl_lineinfo(source, nullptr, &line, nullptr, nullptr, nullptr);
    const auto base_name = [](const char* path) {
        const char* const slash = std::strrchr(path, '/');
        return slash == nullptr ? path : slash + 1;
    };
    if (file != nullptr)
        text += fmt::format(" ({}:{})", base_name(file), line);
    else
        text +=
            fmt::format(" ({})", base_name(dwfl_module_info(module, nullptr, nullptr, nullptr,
                                                            nullptr, nullptr, nullptr, nullptr)));
    return text;
}

std::string Symbols::place(const Event& event) const {
    for (std::size_t i = 0; i < event.stack.size(); ++i) {
        const std::uint64_t address = address_in(event, i);
        Dwfl_Module* const module = state_->module_of(address, event.process);
        if (module == nullptr) continue;
        const std::string file =
            std::filesystem::path(dwfl_module_info(module, nullptr, nullptr, nullptr, nullptr,
                                                   nullptr, nullptr, nullptr))
                .filename();
        constexpr std::array kBelow = {"libpmem.so", "libpmemobj.so", "libc.so", "ld-linux",
                                       "libholdfast-crash-preload.so"};
        if (std::any_of(kBelow.begin(), kBelow.end(),
                        [&](const char* name) { return file.starts_with(name); }))
            continue;
        return name(address, event.process);
    }
    return {};
}

std::vector<std::string> Symbols::stack(const Event& event) const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < event.stack.size(); ++i) {
        std::string text = name(address_in(event, i), event.process);
        if (text.starts_with("__libc_start") || text.starts_with("_start")) break;
        names.push_back(std::move(text));
    }
    return names;
}

}  // namespace holdfast::crash
