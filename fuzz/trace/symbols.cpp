#include "trace/symbols.hpp"

#include <cxxabi.h>
#include <elfutils/libdwfl.h>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

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

}  // namespace

struct Symbols::State {
    Dwfl_Callbacks callbacks{};
    Dwfl* dwfl = nullptr;
};

Symbols::Symbols(const std::vector<Module>& modules) : state_(std::make_unique<State>()) {
    state_->callbacks.find_elf = dwfl_build_id_find_elf;
    state_->callbacks.find_debuginfo = dwfl_standard_find_debuginfo;
    state_->callbacks.section_address = dwfl_offline_section_address;
    state_->dwfl = dwfl_begin(&state_->callbacks);
    if (state_->dwfl == nullptr) return;
    dwfl_report_begin(state_->dwfl);
    for (const Module& module : modules) {
        std::error_code ignored;
        if (!std::filesystem::is_regular_file(module.path, ignored)) continue;
        dwfl_report_elf(state_->dwfl, module.path.c_str(), module.path.c_str(), -1,
                        module.loaded_at, false);
    }
    dwfl_report_end(state_->dwfl, nullptr, nullptr);
}

Symbols::~Symbols() {
    if (state_->dwfl != nullptr) dwfl_end(state_->dwfl);
}

std::string Symbols::name(std::uint64_t address) const {
    Dwfl_Module* const module =
        state_->dwfl == nullptr ? nullptr : dwfl_addrmodule(state_->dwfl, address);
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

std::vector<std::string> Symbols::stack(const Event& event) const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < event.stack.size(); ++i) {
        // A return address is that of the next instruction; the innermost is the store's own.
        std::string text = name(i == 0 ? event.stack[i] : event.stack[i] - 1);
        if (text.starts_with("__libc_start") || text.starts_with("_start")) break;
        names.push_back(std::move(text));
    }
    return names;
}

}  // namespace holdfast::crash
