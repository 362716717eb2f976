// Results of windows as JSON: what workers tell the campaign.
#pragma once

#include <nlohmann/json.hpp>

#include "campaign/explore_window.hpp"

namespace holdfast::crash {

nlohmann::json to_json(const WindowResult& result);
WindowResult window_result_of(const nlohmann::json& json);

}  // namespace holdfast::crash
